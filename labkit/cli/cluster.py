"""`labkit cluster`: a folder of images sorted into clusters, without labels."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from labkit.cli import options
from labkit.cli.parser import Parser, Several, examples
from labkit.errors import DataError

if TYPE_CHECKING:
    from labkit.zeroshot.naming import Names


def add(commands: argparse._SubParsersAction[Parser]) -> None:
    """Give the command to the parser of `labkit`."""
    parser = commands.add_parser(
        "cluster",
        help="sort a folder of images into classes, without labels",
        description="Cluster a folder of images with TURTLE, and name the clusters if words are given.",
        epilog=examples(
            "labkit cluster photos --classes 8",
            "labkit cluster photos --classes 3 --words cat,dog,horse --sheet clusters.html",
            "labkit cluster photos --classes 8 --backbone efficientnet-lite0,pixels",
        ),
    )
    parser.add_argument("folder", type=options.path, help="images, flat or in sub-folders")
    parser.add_argument("--classes", type=int, required=True, metavar="C", help="how many classes to look for")
    parser.add_argument(
        "--backbone",
        action=Several,
        metavar="NAME",
        help=f"feature space (default: efficientnet-lite0): {options.SPACES}; several with commas",
    )
    parser.add_argument("--out", default="labels.csv", type=options.path, help="CSV to write (default: %(default)s)")
    parser.add_argument(
        "--sheet", type=options.path, metavar="FILE", help="contact sheet of the clusters, .html or .png"
    )
    parser.add_argument("--words", metavar="WORDS", help="name the clusters: a,comma,list or a file with a word a line")
    parser.add_argument("--seed", type=options.seed, default=0, metavar="N", help=options.SEED)
    parser.add_argument(
        "--restarts",
        type=options.positive,
        default=8,
        metavar="N",
        help="runs; the most confident is kept (default: %(default)s)",
    )
    parser.set_defaults(run=run, when_stopped="Features are kept: the same command is quicker now.")


def run(arguments: argparse.Namespace) -> int:
    if not os.path.isdir(arguments.folder):  # noqa: PTH112 (says no where pathlib raises)
        raise DataError(f"{arguments.folder} is not a folder. Expected a folder of images.")
    if arguments.sheet and arguments.sheet.suffix not in (".html", ".png"):
        raise DataError(f"the contact sheet is {arguments.sheet}. Expected a name that ends in .html or .png.")
    if arguments.classes < 2:
        raise DataError(f"--classes is {arguments.classes}. Expected a whole number of at least 2.")
    words, file = options.given_words(arguments.words, arguments.classes)
    from labkit.own.cluster import cluster_folder

    found = cluster_folder(
        arguments.folder,
        arguments.classes,
        backbones=arguments.backbone,
        out=arguments.out,
        sheet=arguments.sheet,
        words=words,
        words_file=file,
        n_restarts=arguments.restarts,
        seed=arguments.seed,
    )
    if words and found.names:
        _print_names(words, found.names)
    print(f"{found.n_images} images in {found.n_clusters} clusters: {arguments.out}")
    if arguments.sheet:
        print(f"contact sheet: {arguments.sheet}")
    return 0


def _print_names(words: list[str], names: Names) -> None:
    for cluster, (word, margin) in enumerate(zip(names.assignment, names.margins, strict=True)):
        doubt = "" if margin >= 0 else ", another word fits it better: look before you believe it"
        print(f"cluster {cluster}: {words[word]} (margin {margin:+.2f}{doubt})")
    print(
        "The margin is how far a word is ahead of the next best, in nats of mean log-probability. It compares only the"
    )
    print("words that were given: where none of them fits, one may still be far ahead.")
