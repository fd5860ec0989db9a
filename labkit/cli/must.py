"""`labkit must`: masked self-training on a dataset or a folder of images."""

from __future__ import annotations

import argparse
import sys

from labkit._processes import is_first
from labkit.cli import options
from labkit.cli.parser import Parser, Several, examples


def add(commands: argparse._SubParsersAction[Parser]) -> None:
    """Give the command to the parser of `labkit`."""
    parser = commands.add_parser(
        "must",
        help="masked self-training on a dataset or a folder of images, without labels",
        description="Masked unsupervised self-training (MUST) of an image-text model. Stop it with Ctrl-C; the same "
        "command resumes from there. It writes the model, its metrics, and labels.csv with the class of each image "
        "before and after.",
        epilog=examples(
            "labkit must photos --words cat,dog,horse --out runs/pets",
            "labkit must photos --words cat,dog,horse --initial-labels turtle --epochs 60 --out runs/pets-turtle",
            "labkit must digits --out runs/digits",
            "accelerate launch -m labkit.cli must …        on several GPUs",
        ),
    )
    parser.add_argument("data", type=options.data, help="a dataset's id (see `labkit datasets`), or a folder of images")
    parser.add_argument(
        "--words", metavar="WORDS", help="names of the classes, where the dataset has none: a,comma,list or a file"
    )
    parser.add_argument(
        "--backbone",
        default="pocket-vit",
        metavar="NAME",
        help="the image-text model that it starts from: pocket-vit (default), clip-vit-b16, clip-vit-l14, …",
    )
    parser.add_argument(
        "--preset",
        metavar="KEY",
        help="settings of another pair, such as the published dtd/ViT-B-16 (default: those of this dataset and model; "
        "pocket for a pocket model on other images)",
    )
    parser.add_argument(
        "--epochs", type=options.positive, metavar="N", help="passes over the images (default: the preset's)"
    )
    parser.add_argument(
        "--batch",
        type=options.positive,
        metavar="N",
        help="images in a step, over all processes (default: the preset's)",
    )
    parser.add_argument(
        "--threshold",
        type=options.share,
        metavar="P",
        help="least confidence of a pseudo-label (default: the preset's)",
    )
    parser.add_argument(
        "--initial-labels",
        choices=("zero-shot", "turtle"),
        default="zero-shot",
        help="the first pseudo-labels: zero-shot predictions (default), or named TURTLE clusters",
    )
    parser.add_argument(
        "--space",
        action=Several,
        metavar="NAME",
        help="feature space of TURTLE (default: efficientnet-lite0); several with commas",
    )
    parser.add_argument(
        "--out", default="runs/must", type=options.path, help="folder for the model, metrics and labels.csv"
    )
    parser.add_argument("--strict", action="store_true", help="stop where an image cannot be read")
    parser.add_argument("--seed", type=options.seed, default=0, metavar="N", help=options.SEED)
    parser.set_defaults(run=run, when_stopped="Features and checkpoints are kept: the same command resumes.")


def run(arguments: argparse.Namespace) -> int:
    from labkit.own.self_train import plan, self_train

    words, file = options.given_words(arguments.words, 2)
    planned = plan(
        arguments.data,
        arguments.backbone,
        preset=arguments.preset,
        epochs=arguments.epochs,
        batch_size=arguments.batch,
        threshold=arguments.threshold,
        words=words,
        words_file=file,
    )
    if is_first():
        print(*planned.settings, sep="\n", flush=True)
        if planned.warning:
            print(f"labkit: warning: {planned.warning}", file=sys.stderr, flush=True)
    trained = self_train(
        planned,
        out=arguments.out,
        spaces=arguments.space,
        from_turtle=arguments.initial_labels == "turtle",
        strict=arguments.strict,
        seed=arguments.seed,
    )
    if trained is None:
        return 0
    print(*trained.story, f"See {arguments.out}", sep="\n")
    return 0
