"""`labkit datasets`: the datasets that labkit knows."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Give the command to the parser of `labkit`."""
    parser = commands.add_parser("datasets", help="list the datasets that labkit knows")
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
