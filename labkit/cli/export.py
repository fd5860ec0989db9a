"""`labkit export`: a result in the layout of another tool."""

from __future__ import annotations

import argparse

from labkit.cli import options
from labkit.cli.parser import examples
from labkit.errors import printable, shown


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Give the command to the parser of `labkit`."""
    parser = commands.add_parser(
        "export",
        help="write a result as Hugging Face's imagefolder or for FiftyOne",
        description="Write images and labels in the layout of another tool: imagefolder for Hugging Face's datasets, "
        "fiftyone for FiftyOne's image classification. Images that a review rejected are left out.",
        epilog=examples(
            "labkit export clusters --to dataset --format imagefolder",
            "labkit export clusters --to dataset --format fiftyone --link",
        ),
    )
    parser.add_argument("out", type=options.path, help="the folder that `labkit cluster` wrote")
    parser.add_argument("--to", required=True, type=options.path, metavar="NEW", help="a folder that is new or empty")
    parser.add_argument("--format", required=True, choices=("imagefolder", "fiftyone"), help="the layout")
    parser.add_argument("--link", action="store_true", help="symbolic links to the images instead of copies")
    parser.set_defaults(run=run, when_stopped="The same command goes on from there.")


def run(arguments: argparse.Namespace) -> int:
    """Export, and say how the other tool reads it."""
    from labkit.own.clustering import REJECTED, load_clustering
    from labkit.own.exports import export

    clustering = load_clustering(arguments.out)
    how = "link" if arguments.link else "copy"
    left = export(clustering, arguments.to, arguments.format, how, progress=True)
    n = int((clustering.labels != REJECTED).sum()) - len(left)
    for path, reason in list(left.items())[:20]:
        print(printable(f"left out: {shown(path)}: {reason}"))
    if len(left) > 20:
        print(f"left out: {len(left) - 20} more")
    print(printable(f"{n:,} images in {shown(arguments.to)}"))
    if arguments.format == "imagefolder":
        print(printable(f'read it: datasets.load_dataset("imagefolder", data_dir={str(arguments.to)!r})'))
    else:
        kind = "fiftyone.types.FiftyOneImageClassificationDataset"
        print(printable(f"read it: fiftyone.Dataset.from_dir({str(arguments.to)!r}, dataset_type={kind})"))
    return 1 if left else 0
