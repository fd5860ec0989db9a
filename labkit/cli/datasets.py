"""`labkit datasets`: the datasets that labkit knows."""

from __future__ import annotations

import argparse

from labkit.cli.parser import Parser, examples


def add(commands: argparse._SubParsersAction[Parser]) -> None:
    """Give the command to the parser of `labkit`."""
    parser = commands.add_parser(
        "datasets",
        help="list the datasets that labkit knows",
        description="List the datasets that labkit knows: number of classes, images in each split, where they come "
        "from, license. An id stands for the dataset in other commands and in Python.",
        epilog=examples("labkit datasets", "labkit must digits        an id from the list"),
    )
    parser.set_defaults(run=run, when_stopped="")


def run(arguments: argparse.Namespace) -> int:
    from labkit.data.manifests import list_manifests, load_manifest

    rows = [("id", "classes", "images", "source", "license", "title")]
    for manifest in map(load_manifest, list_manifests()):
        sizes = ", ".join(f"{name} {split.size:,}" for name, split in manifest.splits.items())
        rows.append(
            (manifest.id, str(manifest.n_classes), sizes, manifest.source.kind, manifest.license, manifest.title)
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0
