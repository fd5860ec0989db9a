"""`labkit cluster`: a folder of images sorted into clusters, without labels."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from labkit.cli import options
from labkit.cli.left_out import left_out_lines
from labkit.cli.parser import Several
from labkit.errors import printable

if TYPE_CHECKING:
    from labkit.own.clustering import Clustering

EXAMPLES = """examples:
  labkit cluster photos                                    how many classes is estimated; results in ./clusters
  labkit cluster photos --classes 8 --out runs/pets
  labkit cluster photos --words cat,dog,horse              and a name for each cluster
  labkit cluster photos --backbone clip-vit-b32,dinov2-vit-b14
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Give the command to the parser of `labkit`."""
    parser = commands.add_parser(
        "cluster",
        help="sort a folder of images into classes, without labels",
        description="Look through a folder of images, cluster those that can be read with TURTLE, and write tables, "
        "pages to review, and a model for later images. Nothing in the folder is changed.",
        epilog=EXAMPLES,
    )
    parser.add_argument("folder", type=options.path, help="images, at any depth")
    parser.add_argument(
        "--classes", type=_classes, default="auto", metavar="N|auto", help="how many classes (default: estimated)"
    )
    parser.add_argument(
        "--prior",
        choices=("estimated", "even"),
        default="estimated",
        help="sizes of the classes: estimated (default), or even",
    )
    parser.add_argument("--words", metavar="WORDS", help="name the clusters: a,comma,list or a file with a word a line")
    parser.add_argument(
        "--backbone",
        action=Several,
        metavar="NAME",
        help=f"feature space (default: efficientnet-lite0): {options.SPACES}; several with commas",
    )
    parser.add_argument(
        "--out", default="clusters", type=options.path, metavar="DIR", help="folder of results (default: %(default)s)"
    )
    parser.add_argument("--strict", action="store_true", help="stop where an image cannot be read")
    parser.add_argument("--seed", type=options.seed, default=0, metavar="N", help=options.SEED)
    parser.add_argument(
        "--restarts",
        type=options.positive,
        default=8,
        metavar="N",
        help="runs; the most confident is kept (default: %(default)s)",
    )
    parser.set_defaults(run=run, when_stopped="Features are kept: the same command is quicker now.")


def _classes(text: str) -> int | str:
    return text if text == "auto" else options.whole(text, 2, "of at least 2, or auto")


def run(arguments: argparse.Namespace) -> int:
    """Cluster the folder, and say what was found and where it is."""
    options.expect_folder(arguments.folder)
    words, file = options.given_words(arguments.words)
    from labkit.own.cluster import cluster_folder

    found = cluster_folder(
        arguments.folder,
        arguments.out,
        n_classes=arguments.classes,
        prior=arguments.prior,
        backbones=arguments.backbone,
        words=words,
        words_file=file,
        strict=arguments.strict,
        n_restarts=arguments.restarts,
        seed=arguments.seed,
        progress=True,
    )
    _print(found, arguments.out)
    return 0


def _print(found: Clustering, out: Path) -> None:
    from labkit.own.names import lines

    for line in left_out_lines(found.report["left_out"], found.report["other_endings"]):
        print(line)
    n_flagged = int((found.images["flags"] != "").sum())
    if n_flagged:
        print(f"flagged: {n_flagged} images (blurred, blank, tiny or near duplicates), see labels.csv")
    for line in lines(found.clusters, bool(found.report["settings"]["words"])):
        print(printable(line))
    if found.report["settings"]["named_by"] == "pocket-clip" and not all(found.clusters["name"]):
        print(
            "the words after perhaps are guesses of a small model that learned from icons, for photographs mostly wrong"
        )
    for first, second in found.report["look_alikes"]:
        print(f"clusters {first} and {second} look alike: if they are one class, merge them in clusters.html")
    n_classes, n_clusters = found.report["n_classes"], len(found.clusters)
    if not found.report["review"] and n_clusters < n_classes["used"]:
        print(f"only {n_clusters} of {n_classes['used']} clusters have images: these spaces tell no more apart")
    if n_classes["interval"]:
        low, high = n_classes["interval"]
        plausible = f"{low} to {high}" if high <= len(found.paths) // 6 else f"{low} or more"  # as far as was looked
        print(f"number of classes: {n_classes['used']} is an estimate, {plausible} are plausible (--classes)")
    print(f"{len(found.paths)} images in {n_clusters} cluster{'s' if n_clusters > 1 else ''}: {out / 'labels.csv'}")
    print(f"to look at and to review: {out / 'clusters.html'}, {out / 'map.html'}")
