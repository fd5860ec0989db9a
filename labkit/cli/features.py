"""`labkit features`: the features of a dataset or a folder of images, in shards."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from labkit._processes import is_first
from labkit.cli import options
from labkit.cli.parser import Parser, examples
from labkit.errors import DataError, did_you_mean, printable, shown

if TYPE_CHECKING:
    from labkit.spaces.shards import ShardedFeatures


def add(commands: argparse._SubParsersAction[Parser]) -> None:
    """Give the command to the parser of `labkit`."""
    parser = commands.add_parser(
        "features",
        help="features of a dataset or a folder of images, by any number of processes",
        description="Compute the features of all images and keep them in a folder of shards. Start the same command in "
        "as many processes and on as many machines as share the folders: each takes the next shard that nobody has. "
        "Kill what you like: the same command goes on, and what a lost process had begun another one does.",
        epilog=examples(
            "labkit features photos --backbone efficientnet-lite0 --out features",
            "labkit features imagenet --backbone clip-vit-l14 --out clip-test --split test --shard 8192",
            "labkit features imagenet --profile paper --out features   all that `labkit reproduce --features` needs",
            "accelerate launch --multi_gpu -m labkit.cli features …    on several GPUs",
        ),
    )
    parser.add_argument("data", type=options.data, help="a dataset's id (see `labkit datasets`), or a folder of images")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--backbone", metavar="NAME", help=f"one of {options.SPACES}")
    what.add_argument(
        "--profile",
        choices=options.PROFILES,
        help="instead: both splits in all spaces of this profile of `labkit reproduce turtle`, in folders "
        "OUT/DATASET/SPLIT-BACKBONE",
    )
    parser.add_argument("--out", required=True, type=options.path, help="folder for the shards")
    parser.add_argument("--split", help="of a dataset (default: train)")
    parser.add_argument(
        "--dtype", choices=("float16", "float32"), help="of the features (default: float16; a profile has its own)"
    )
    parser.add_argument(
        "--shard",
        type=options.positive,
        default=65536,
        metavar="N",
        help="images in a shard, which is what a lost process costs (default: %(default)s)",
    )
    parser.set_defaults(run=run, when_stopped="What is done is kept: the same command goes on.")


def run(arguments: argparse.Namespace) -> int:
    from labkit.data.datasets import load_dataset
    from labkit.spaces.backbones import load_backbone
    from labkit.spaces.shards import extract_shards

    if os.path.realpath(arguments.out).startswith(os.path.join(os.path.realpath(arguments.data), "")):  # noqa: PTH118
        raise DataError(
            f"--out is {shown(arguments.out)}, which lies in {shown(arguments.data)}, the folder of the images, where "
            "nothing is changed. Choose another place."
        )
    first = is_first()
    if arguments.profile is None:
        images = load_dataset(arguments.data, arguments.split or "train").without_labels()
        backbone = load_backbone(arguments.backbone, device=own_device())
        dtype = arguments.dtype or "float16"
        done = [extract_shards(backbone, images, arguments.out, dtype=dtype, shard=arguments.shard, progress=first)]
    else:
        done = _all_of_profile(arguments, first)
    for features in done if first else []:
        n, d = features.shape
        size = n * d * features.dtype.itemsize / 1e6
        print(printable(f"{n:,} x {d} of {features.dtype}, {size:,.1f} MB, in {shown(features.folder)}"))
    return 0


def _all_of_profile(arguments: argparse.Namespace, progress: bool) -> list[ShardedFeatures]:
    from labkit.data.manifests import list_manifests
    from labkit.papers.job import extract_for
    from labkit.papers.protocol import pick_scale

    if arguments.split or arguments.dtype:
        raise DataError("--profile decides on splits and dtype. Leave out --split and --dtype.")
    known = list_manifests()
    if arguments.data not in known:
        near = did_you_mean(arguments.data, known)
        raise DataError(f"--profile is for datasets.{near} Expected one of {', '.join(known)}.")
    scale = pick_scale(arguments.profile)
    return extract_for(
        arguments.data, scale, arguments.out, device=own_device(), shard=arguments.shard, progress=progress
    )


def own_device() -> str:
    """The GPU that a launcher meant for this process, by its number on the machine; else the best that is there."""
    import torch

    if "LOCAL_RANK" in os.environ and torch.cuda.is_available():
        return f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"
    return "auto"
