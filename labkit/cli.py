"""The command line: `labkit run` the notebooks, `cluster` a folder of images, `must` to self-train, `datasets`.

Heavy modules are imported by the command that needs them, so that `labkit --help` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import labkit
from labkit._files import user_path
from labkit.data.datasets import load_dataset
from labkit.errors import DataError, LabkitError, printable, quote

if TYPE_CHECKING:
    import numpy as np

    from labkit.data.schema import Manifest
    from labkit.must import MustConfig
    from labkit.zeroshot.naming import Names
    from labkit.zeroshot.prompts import Prompts

SPACES = ("efficientnet-lite0",)  # where TURTLE looks for classes unless told otherwise
# labkit.spaces.papers has these; its imports would slow the help down
PAPER_SPACES = (
    "clip-rn50, clip-rn101, clip-rn50x4, clip-rn50x16, clip-rn50x64, clip-vit-b32, clip-vit-b16, clip-vit-l14, "
    "dinov2-vit-g14, dinov2-vit-b14"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0 done, 1 a notebook failed, 2 bad input, 130 interrupted."""
    # Threads that spin for long while they wait stall on a busy machine; read when torch is loaded, so it is set here.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    _fill_closed_streams()
    out, err = _Words(sys.stdout), _Words(sys.stderr)
    with contextlib.redirect_stdout(cast(IO[str], out)), contextlib.redirect_stderr(cast(IO[str], err)):
        status = _answer(argv)
        out.flush()
        if out.failure is not None and not isinstance(out.failure, BrokenPipeError) and status == 0:
            print(f"labkit: all is done, but standard output cannot be written ({out.failure}).", file=sys.stderr)
            status = 2
        err.flush()
    return status


def _answer(argv: Sequence[str] | None) -> int:
    when_stopped = ""
    try:
        arguments = _parser().parse_args(argv)
        when_stopped = arguments.when_stopped
        _expect_here()
        return arguments.command(arguments)
    except SystemExit as done:  # argparse has said what is wrong, or given the help
        return int(done.code or 0)
    except LabkitError as error:
        print(f"labkit: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"labkit: interrupted. {when_stopped}", file=sys.stderr)
        return 130


def _expect_here() -> None:
    try:
        Path.cwd()
    except OSError as error:  # libraries would end the process
        raise DataError(f"the folder that labkit was started in is gone or closed ({error}). Go to another.") from error


class _Words:
    """Standard output or error that takes any text, and whose failure stops no work: what follows it is dropped."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self.failure: OSError | None = None
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal may lack letters that files can hold

    def write(self, text: str) -> int:
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _try(self, act: Callable[[], object]) -> None:
        if self.failure is not None:
            return
        try:
            act()
        except OSError as error:
            self.failure = error
            with contextlib.suppress(OSError):  # what Python holds back would fail once more when it ends
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


def _fill_closed_streams() -> None:
    """Give a stream that was closed before the start its place: else the next file that is opened takes it."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("r" if name == "stdin" else "w"))  # noqa: SIM115 (to the end)


def _parser() -> argparse.ArgumentParser:
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
    run.set_defaults(command=_run, when_stopped="The pages of the notebooks that had ended are in the output folder.")

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
    cluster.set_defaults(command=_cluster, when_stopped="Features are kept: the same command is quicker now.")

    must = commands.add_parser(
        "must",
        help="masked self-training on a dataset or a folder of images, without labels",
        description="Masked unsupervised self-training (MUST). Stop it with Ctrl-C; the same command goes on from "
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
    must.set_defaults(command=_must, when_stopped="Features and checkpoints are kept: the same command goes on.")

    datasets = commands.add_parser("datasets", help="list the datasets that labkit knows")
    datasets.set_defaults(command=_datasets, when_stopped="")
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


def _run(arguments: argparse.Namespace) -> int:
    from labkit.course.series import describe_failure, run_series

    report = run_series(arguments.out, profile=arguments.profile, only=arguments.only)
    for failure in report["failures"]:
        print(f"FAILED {describe_failure(failure)}", file=sys.stderr)
    seconds = sum(timing["seconds"] for timing in report["timings"].values())
    print(f"{len(report['timings'])} notebooks in {seconds:.0f} s, {len(report['results'])} results, ", end="")
    print(f"{len(report['failures'])} failed. See {arguments.out / 'index.html'}")
    return 1 if report["failures"] else 0


def _cluster(arguments: argparse.Namespace) -> int:
    from labkit.own.files import read_words, words_file

    if not os.path.isdir(arguments.folder):  # noqa: PTH112 (says no where pathlib raises)
        raise DataError(f"{arguments.folder} is not a folder. Expected a folder of images.")
    if arguments.sheet and arguments.sheet.suffix not in (".html", ".png"):
        raise DataError(f"the contact sheet is {arguments.sheet}. Expected a name that ends in .html or .png.")
    if arguments.classes < 2:
        raise DataError(f"--classes is {arguments.classes}. Expected a whole number of at least 2.")
    words = read_words(arguments.words, arguments.classes) if arguments.words is not None else None
    from labkit.own.cluster import cluster_folder

    found = cluster_folder(
        arguments.folder,
        arguments.classes,
        backbones=arguments.backbone or list(SPACES),
        out=arguments.out,
        sheet=arguments.sheet,
        words=words,
        words_file=words_file(arguments.words) if arguments.words else None,
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


def _must(arguments: argparse.Namespace) -> int:
    from accelerate import PartialState

    from labkit.data.manifests import load_manifest
    from labkit.must import MUST
    from labkit.own.files import (
        all_unreadable,
        expect_places,
        file_cell,
        read_words,
        word_cell,
        words_file,
        write_table,
    )
    from labkit.zeroshot.prompts import Prompts, load_prompts

    manifest = load_manifest(arguments.data)
    preset, config = _must_settings(arguments, manifest)
    if arguments.words is None and not manifest.classes:
        raise DataError(f"{arguments.data} has no class names. Give them, such as --words cat,dog,bird.")
    prompts = load_prompts(manifest) if arguments.words is None else Prompts.from_words(read_words(arguments.words, 2))
    given = words_file(arguments.words) if arguments.words else None
    expect_places(
        {f"--out ({name})": arguments.out / name for name in ("must.safetensors", "labels.csv")},
        {"the file of words": [] if given is None else [given]},
    )
    split = next(iter(manifest.splits))
    images = load_dataset(manifest, split)
    must = MUST(arguments.backbone, prompts, config, random_state=arguments.seed, progress=True)
    _print_settings(preset, config)
    with all_unreadable(manifest):
        labels = _named_labeling(arguments, manifest, split, prompts) if arguments.initial_labels == "turtle" else None
        must.fit(images, initial_labels=labels, folder=arguments.out)
    if not PartialState().is_main_process:
        return 0
    must.save(arguments.out / "must.safetensors")
    probs = must.predict_proba(images)
    root = Path(arguments.data).resolve()
    files = range(len(images)) if images.files is None else [file_cell(path, root) for path in images.files]
    rows = [
        [file, word_cell(must.class_names_[p.argmax()]), f"{p.max():.4f}"] for file, p in zip(files, probs, strict=True)
    ]
    write_table(arguments.out / "labels.csv", ["file", "label", "confidence"], rows)
    last = must.history_[must.best_epoch_ - 1]
    for i, name in enumerate(must.class_names_):
        print(f"{name}: predicted for {(must.pseudo_labels_[0] == i).sum()} images in epoch 1, ", end="")
        print(f"for {(probs.argmax(1) == i).sum()} at the end")
    print(f"{len(images)} images of {split}, epoch {must.best_epoch_}: ", end="")
    print(f"{last['kept']:.0%} of pseudo-labels kept, mean confidence {last['confidence']:.2f}. See {arguments.out}")
    return 0


def _must_settings(arguments: argparse.Namespace, manifest: Manifest) -> tuple[str, MustConfig]:
    """The preset's key, and its settings with what the command line changes: those of --preset, else of the pair."""
    from labkit.data.manifests import list_manifests
    from labkit.must import PRESETS, preset_key

    key = arguments.preset
    if key is None:
        # what a folder is called says nothing of what it holds: such images are one's own, not a dataset's
        is_folder = arguments.data not in list_manifests() and Path(arguments.data).is_dir()
        key = preset_key(None if is_folder else manifest.id, arguments.backbone)
    elif key not in PRESETS:
        raise DataError(f"--preset is {key!r}. Expected one of {', '.join(PRESETS)}.")
    given = {"epochs": arguments.epochs, "batch_size": arguments.batch, "threshold": arguments.threshold}
    return key, PRESETS[key].replace(**{name: value for name, value in given.items() if value is not None})


def _print_settings(preset: str, config: MustConfig) -> None:
    from labkit.must import PRESETS, preset_source
    from labkit.must.presets import describe

    if int(os.environ.get("RANK", "0")) > 0:  # of several processes, which accelerate numbers, one speaks
        return
    changed = "" if config == PRESETS[preset] else "; changed by options"
    print(f"settings: {preset} ({preset_source(preset)}{changed})")
    for line in describe(config):
        print(f"  {line}", flush=True)


def _named_labeling(arguments: argparse.Namespace, manifest: Manifest, split: str, prompts: Prompts) -> np.ndarray:
    """The classes that TURTLE finds, named by the image-text model: a class number for each image, (n,)."""
    from labkit.spaces.backbones import load_backbone
    from labkit.spaces.features import extract_features
    from labkit.turtle import Turtle
    from labkit.zeroshot.naming import name_by_model

    spaces = [
        extract_features(load_backbone(name), manifest, split=split, progress=True)
        for name in arguments.space or SPACES
    ]
    turtle = Turtle(len(prompts.classes), n_restarts=8, random_state=arguments.seed, progress=True).fit(spaces)
    probs = turtle.predict_proba(spaces)
    image_text = load_backbone(arguments.backbone)
    features = extract_features(image_text, manifest, split=split, progress=True)
    return name_by_model(probs, image_text, features, prompts).predict(probs)


def _datasets(arguments: argparse.Namespace) -> int:
    from labkit.data.manifests import list_manifests, load_manifest

    rows = [("id", "classes", "images", "source", "licence", "title")]
    for manifest in map(load_manifest, list_manifests()):
        sizes = ", ".join(f"{name} {split.size:,}" for name, split in manifest.splits.items())
        rows.append(
            (manifest.id, str(manifest.n_classes), sizes, manifest.source.kind, manifest.licence, manifest.title)
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


if __name__ == "__main__":
    sys.exit(main())
