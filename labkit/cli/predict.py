"""`labkit predict`: the clusters of an earlier result for the images of another folder."""

from __future__ import annotations

import argparse

from labkit.cli import options
from labkit.cli.left_out import left_out_lines
from labkit.cli.parser import examples
from labkit.errors import printable, shown


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Give the command to the parser of `labkit`."""
    parser = commands.add_parser(
        "predict",
        help="the clusters of an earlier result for later images",
        description="Find the clusters of an earlier result, as they were reviewed, for the images of another folder. "
        "Writes the columns of labels.csv, and unlike: the share of the earlier images that are nearer to the rest "
        "than this one is to them. Above 0.95 an image is flagged as unlike anything seen; so are about 5 % of images "
        "like the earlier ones.",
        epilog=examples(
            "labkit predict clusters new_photos                  the clusters in ./clusters for other images",
            "labkit predict clusters new_photos --out new.csv",
        ),
    )
    parser.add_argument("saved", type=options.path, help="the folder that `labkit cluster` wrote")
    parser.add_argument("folder", type=options.path, help="images, at any depth")
    parser.add_argument(
        "--out", default="predicted.csv", type=options.path, metavar="FILE", help="CSV to write (default: %(default)s)"
    )
    parser.add_argument("--strict", action="store_true", help="stop where an image cannot be read")
    parser.set_defaults(run=run, when_stopped="What was read is kept: the same command is quicker now.")


def run(arguments: argparse.Namespace) -> int:
    """Predict, and say how many images went to each cluster."""
    options.expect_folder(arguments.folder)
    from labkit.own.later import predict_folder

    found = predict_folder(arguments.saved, arguments.folder, arguments.out, strict=arguments.strict, progress=True)
    left_out = {found.reading.below(path): why for path, why in found.reading.left_out.items()}
    for line in left_out_lines(left_out, found.reading.others):
        print(line)
    for cluster, name, size in found.counts():
        title = "rejected" if cluster < 0 else f"cluster {cluster}{f' ({name})' if name else ''}"
        print(printable(f"{title}: {size:,} {'image' if size == 1 else 'images'}"))
    n, n_unlike = len(found.clusters), int(found.is_unlike.sum())
    print(
        f"unlike anything seen: {n_unlike:,} of {n:,} ({n_unlike / n:.0%}; of images like the earlier ones about 5 %)"
    )
    print(printable(f"See {shown(arguments.out)}"))
    return 0
