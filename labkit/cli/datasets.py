"""`labkit datasets`: what labkit has a manifest for; its description as Croissant; miniatures to try things on."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from labkit.cli import options
from labkit.cli.parser import Parser, examples
from labkit.errors import printable, shorten, shown

if TYPE_CHECKING:
    from labkit.data.schema import Manifest

LICENSE = 17  # characters of a license in the list, so that 100 columns have all but the titles; `show` has the rest


def add(commands: argparse._SubParsersAction[Parser]) -> None:
    """Give the command to the parser of `labkit`."""
    parser = commands.add_parser(
        "datasets",
        help="list the datasets; describe them as Croissant; write miniatures",
        description="Without a further word: list the datasets that labkit has a manifest for, with their classes, "
        "sizes, source, license, which papers use them, and whether the data is here ($LABKIT_DATA). Nothing is "
        "downloaded for that.",
        epilog=examples(
            "labkit datasets",
            "labkit datasets show eurosat                             all that is known of it",
            "labkit datasets export eurosat --to described            its Croissant description",
            "labkit datasets export digits --to d --backbone pixels   and its features",
            "labkit datasets stand-ins minis                          miniatures of all, laid out like the real ones",
        ),
    )
    parser.set_defaults(run=run, when_stopped="Nothing is lost.")
    actions = parser.add_subparsers(metavar="ACTION")
    show = actions.add_parser("show", help="all that is known of a dataset", description="Print what a manifest says.")
    show.add_argument("ids", nargs="+", metavar="ID", help="of a dataset, a manifest, or all")
    show.set_defaults(run=run_show)
    export = actions.add_parser(
        "export",
        help="describe datasets as Croissant 1.1",
        description="Write NEW/ID/croissant.json for every dataset and, where its data is here, a table of its samples "
        "(parquet) beside it; with --backbone its features, too.",
    )
    export.add_argument("ids", nargs="+", metavar="ID", help="of a dataset, a manifest, or all")
    export.add_argument("--to", required=True, type=options.path, metavar="NEW", help="a folder")
    export.add_argument(
        "--backbone", metavar="NAME", help="features of these spaces as well, several with commas; downloads the data"
    )
    export.set_defaults(run=run_export)
    stand_ins = actions.add_parser(
        "stand-ins",
        help="write a miniature of every dataset",
        description="Write a miniature of every dataset, of generated images in the layout of the real one, into a "
        "folder for $LABKIT_DATA: to try a command on all of them without a download. Accuracies mean nothing there.",
    )
    stand_ins.add_argument("folder", type=options.path, help="new, or of an earlier call")
    stand_ins.set_defaults(run=run_stand_ins)


def run(arguments: argparse.Namespace) -> int:
    """Print a line for each dataset."""
    from labkit.data.manifests import list_manifests, load_manifest
    from labkit.data.presence import presence

    columns = ("id", "classes", "train", "test", "source", "here", "paper", "license", "title")
    rows: list[tuple[str, ...]] = [columns]
    for manifest in map(load_manifest, list_manifests()):
        sizes = [f"{manifest.splits[name].size:,}" if name in manifest.splits else "" for name in ("train", "test")]
        license = manifest.license.partition(" (")[0]
        license = license if len(license) <= LICENSE else f"{license[: LICENSE - 1].rstrip()}…"
        cells = (*sizes, manifest.source.kind, presence(manifest).state, _papers(manifest) or "-", license)
        rows.append((manifest.id, str(manifest.n_classes), *cells, manifest.title))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = [
            cell.rjust(width) if 0 < i < 4 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(line).rstrip())
    return 0


def run_show(arguments: argparse.Namespace) -> int:
    """Print what is known of each dataset."""
    from labkit.data.manifests import list_manifests, load_manifest
    from labkit.data.presence import presence

    for manifest in map(load_manifest, list_manifests() if "all" in arguments.ids else arguments.ids):
        here = presence(manifest)
        print(printable(f"{manifest.id}: {manifest.title}"))
        lines = {
            "task": manifest.task,
            "paper": _papers(manifest),
            "classes": f"{manifest.n_classes}: {shorten(', '.join(manifest.classes), 300)}",
            **{name: f"{split.size:,} images: {split.how}" for name, split in manifest.splits.items()},
            "source": f"{manifest.source.kind}; {here.state}: {here.why}",
            **_places(manifest),
            "license": manifest.license,
            "cite": manifest.citation,
            "homepage": manifest.homepage,
            "note": manifest.note or "",
        }
        for key, text in lines.items():
            if text:
                print(printable(f"  {key}: {' '.join(text.split())}"))
        for row in manifest.published:
            print(printable(f"  published: {100 * row.value:.1f} {row.metric}, {row.method} ({row.source})"))
    return 0


def _papers(manifest: Manifest) -> str:
    """The papers whose datasets it is one of, as "TURTLE, MUST"; "" where it is none, or a folder of somebody's own."""
    if manifest.source.kind == "folder":
        return ""
    from labkit.papers.protocol import DATASETS
    from labkit.papers.report import NAMES

    return ", ".join(NAMES[paper] for paper, ids in DATASETS.items() if manifest.id in ids)


def _places(manifest: Manifest) -> dict[str, str]:
    """Where the data is to be had, and where it belongs: by what the source says."""
    from labkit.data.schema import Manual

    source, found = manifest.source, {}
    for file in getattr(source, "files", []):
        found[f"file {file.name or file.url.rpartition('/')[2]}"] = (
            f"{file.url}, or by hand into {shown(manifest.root)}"
        )
    if repo := getattr(source, "repo", ""):
        found["hub"] = f"https://huggingface.co/datasets/{repo}"
    return found | ({"by hand": source.instructions} if isinstance(source, Manual) else {})


def run_export(arguments: argparse.Namespace) -> int:
    """Describe each dataset, and say where."""
    from labkit.data.manifests import list_manifests, load_manifest
    from labkit.spaces.described import write_described

    given = list_manifests() if "all" in arguments.ids else arguments.ids
    backbones = [name.strip() for name in (arguments.backbone or "").split(",") if name.strip()]
    for manifest in map(load_manifest, given):
        path = write_described(manifest, arguments.to / manifest.id, backbones=backbones, progress=True)
        print(printable(f"{manifest.id}: {shown(path)}"))
    return 0


def run_stand_ins(arguments: argparse.Namespace) -> int:
    """Write the miniatures, and say how they are used."""
    from labkit.papers.standins import write_stand_ins

    write_stand_ins(arguments.folder, progress=sys.stderr.isatty())
    print(printable(f"miniatures of all datasets in {shown(arguments.folder)}. Use them: set LABKIT_DATA to it."))
    return 0
