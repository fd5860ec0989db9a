"""What the command line takes: `run`, `cluster`, `must` and `datasets`, each with its options and an example."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import labkit
from labkit._files import user_path
from labkit.errors import quote

Command = Callable[[argparse.Namespace], int]

# labkit.spaces.papers has these; its imports would slow the help down
PAPER_SPACES = (
    "clip-rn50, clip-rn101, clip-rn50x4, clip-rn50x16, clip-rn50x64, clip-vit-b32, clip-vit-b16, clip-vit-l14, "
    "dinov2-vit-g14, dinov2-vit-b14"
)


def make_parser(work: Mapping[str, Command]) -> argparse.ArgumentParser:
    """The parser of `labkit`; `work` has the function of each command."""
    parser = argparse.ArgumentParser("labkit", description="Unsupervised transfer: from images to labels, no labels.")
    seed = "of random numbers: the same seed gives the same labels (default: %(default)s)"
    parser.add_argument("--version", action="version", version=f"labkit {labkit.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run",
        help="run the notebook series and collect its results",
        description="Run the notebooks one after another; write pages and results.json. Example: labkit run --only 04",
    )
    run.add_argument("--profile", default="pocket", help="pocket (default), standard, paper or auto")
    run.add_argument("--out", default="runs/latest", type=_path, help="folder for results (default: %(default)s)")
    run.add_argument("--only", nargs="+", default=[], metavar="NN", help="numbers of the notebooks to run: 02 03")
    run.set_defaults(
        command=work["run"], when_stopped="The pages of the notebooks that had ended are in the output folder."
    )

    cluster = commands.add_parser(
        "cluster",
        help="sort a folder of images into classes, without labels",
        description="Cluster a folder of images with TURTLE, and name the clusters if words are given. "
        "Example: labkit cluster photos --classes 3 --words cat,dog,horse --sheet clusters.html",
    )
    cluster.add_argument("folder", type=_path, help="images, flat or in sub-folders")
    cluster.add_argument("--classes", type=int, required=True, metavar="C", help="how many classes to look for")
    cluster.add_argument(
        "--backbone",
        action="append",
        metavar="NAME",
        help="feature space: efficientnet-lite0 (default), efficientnet-lite2, hog, pixels, pocket-clip, pocket-vit "
        f"(with labkit or its packages); {PAPER_SPACES}, timm:MODEL, open_clip:MODEL/PRETRAINED (from the hub once); "
        "repeat for several",
    )
    cluster.add_argument("--out", default="labels.csv", type=_path, help="CSV to write (default: %(default)s)")
    cluster.add_argument("--sheet", type=_path, metavar="FILE", help="contact sheet of the clusters, .html or .png")
    cluster.add_argument(
        "--words", metavar="WORDS", help="name the clusters: a,comma,list or a file with a word a line"
    )
    cluster.add_argument("--seed", type=_seed, default=0, metavar="N", help=seed)
    cluster.add_argument(
        "--restarts",
        type=_positive,
        default=8,
        metavar="N",
        help="runs; the most confident is kept (default: %(default)s)",
    )
    cluster.set_defaults(command=work["cluster"], when_stopped="Features are kept: the same command is quicker now.")

    must = commands.add_parser(
        "must",
        help="masked self-training on a dataset or a folder of images, without labels",
        description="Masked unsupervised self-training (MUST). Stop it with Ctrl-C; the same command resumes from "
        "there. Example: labkit must photos --words cat,dog,horse --out runs/pets. On several GPUs: accelerate launch "
        "-m labkit.cli must …",
    )
    must.add_argument("data", type=_data, help="a dataset's id (see `labkit datasets`), or a folder of images")
    must.add_argument(
        "--words", metavar="WORDS", help="names of the classes, where the dataset has none: a,comma,list or a file"
    )
    must.add_argument(
        "--backbone",
        default="pocket-vit",
        metavar="NAME",
        help="the image-text model that it starts from: pocket-vit (default), clip-vit-b16, clip-vit-l14, …",
    )
    must.add_argument(
        "--preset",
        metavar="KEY",
        help="settings of another pair, such as the published dtd/ViT-B-16 (default: those of this dataset and model; "
        "pocket for a pocket model on other images)",
    )
    must.add_argument("--epochs", type=_positive, metavar="N", help="passes over the images (default: the preset's)")
    must.add_argument(
        "--batch", type=_positive, metavar="N", help="images in a step, over all processes (default: the preset's)"
    )
    must.add_argument(
        "--threshold", type=float, metavar="P", help="least confidence of a pseudo-label (default: the preset's)"
    )
    must.add_argument(
        "--initial-labels",
        choices=("zero-shot", "turtle"),
        default="zero-shot",
        help="the first pseudo-labels: zero-shot predictions (default), or named TURTLE clusters",
    )
    must.add_argument(
        "--space",
        action="append",
        metavar="NAME",
        help="feature space of TURTLE (default: efficientnet-lite0); repeat for several",
    )
    must.add_argument("--out", default="runs/must", type=_path, help="folder for the model, metrics and labels.csv")
    must.add_argument("--seed", type=_seed, default=0, metavar="N", help=seed)
    must.set_defaults(command=work["must"], when_stopped="Features and checkpoints are kept: the same command resumes.")

    datasets = commands.add_parser("datasets", help="list the datasets that labkit knows")
    datasets.set_defaults(command=work["datasets"], when_stopped="")
    return parser


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("it is empty. Expected a path; that of this folder is a dot")
    return user_path(text)


def _data(text: str) -> str:
    from labkit.data.manifests import list_manifests

    return text if text in list_manifests() else str(_path(text))


def _positive(text: str) -> int:
    return _whole(text, 1, sys.maxsize, "of at least 1")


def _seed(text: str) -> int:
    return _whole(text, 0, 2**32 - 1, "from 0 to 2**32 - 1")


def _whole(text: str, low: int, high: int, expected: str) -> int:
    with contextlib.suppress(ValueError):
        if low <= int(text) <= high:
            return int(text)
    raise argparse.ArgumentTypeError(f"{quote(text)} is not a whole number {expected}")
