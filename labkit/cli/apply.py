"""`labkit apply`: carry out the review that was made in clusters.html."""

from __future__ import annotations

import argparse
import shlex

from labkit.cli import options
from labkit.cli.parser import Parser, examples
from labkit.errors import DataError, printable, shown


def add(commands: argparse._SubParsersAction[Parser]) -> None:
    """Give the command to the parser of `labkit`."""
    parser = commands.add_parser(
        "apply",
        help="carry out a review of clusters",
        description="Carry out the review.json that clusters.html saves: merge, split, rename and reject clusters. "
        "Tables and pages are written anew; images stay as they are. A review begins with the clusters as they were "
        "found, so one without operations undoes all.",
        epilog=examples(
            "labkit apply ~/Downloads/review.json --to clusters",
            "labkit apply clusters/review.json              where the review lies beside clusters.html",
        ),
    )
    parser.add_argument("review", type=options.path, help="the review.json that the page saved")
    parser.add_argument(
        "--to", type=options.path, metavar="OUT", help="the folder of the clusters (default: that of the review)"
    )
    parser.set_defaults(run=run, when_stopped="The same command carries the review out as a whole.")


def run(arguments: argparse.Namespace) -> int:
    from labkit.own.clustering import LABELS, REJECTED, REPORT
    from labkit.own.review import apply_review, read_review

    review = read_review(arguments.review)
    out = arguments.to or arguments.review.parent
    if arguments.to is None and not (out / REPORT).exists():
        raise DataError(
            f"{shown(arguments.review)} lies in a folder without clusters. Expected the folder that `labkit cluster "
            f"--out` wrote: labkit apply {shlex.quote(shown(arguments.review))} --to OUT."
        )
    result = apply_review(out, review, progress=True)
    n_rejected = int((result.labels == REJECTED).sum())
    print(review.summary())
    print(
        f"{len(result.paths) - n_rejected} images in {len(result.clusters)} clusters, {n_rejected} rejected: "
        f"{printable(shown(out / LABELS))}"
    )
    return 0
