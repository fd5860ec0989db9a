"""The command line: `labkit run` the notebooks, `cluster` a folder of images, `must` to self-train, `datasets`.

Heavy modules are imported by the command that needs them, so that `labkit --help` answers at once.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import csv
import html
import io
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import labkit
from labkit._files import atomic_write
from labkit.errors import DataError, LabkitError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from labkit.backbones import Backbone
    from labkit.manifests import Manifest
    from labkit.must import MustConfig
    from labkit.prompts import Prompts

SPACES = ("efficientnet-lite0",)  # where TURTLE looks for classes unless told otherwise
# labkit.papers has these; its imports would slow the help down
PAPER_SPACES = (
    "clip-rn50, clip-rn101, clip-rn50x4, clip-rn50x16, clip-rn50x64, clip-vit-b32, clip-vit-b16, clip-vit-l14, "
    "dinov2-vit-g14, dinov2-vit-b14"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0 done, 1 a notebook failed, 2 bad input, 130 interrupted."""
    arguments = _parser().parse_args(argv)
    # Threads that spin for long while they wait stall on a busy machine; read when torch is loaded, so it is set here.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        return arguments.command(arguments)
    except LabkitError as error:
        print(f"labkit: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"labkit: interrupted. {arguments.when_stopped}", file=sys.stderr)
        return 130


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
    run.add_argument("--out", default="runs/latest", type=Path, help="folder for results (default: %(default)s)")
    run.add_argument("--only", nargs="+", default=[], metavar="NN", help="numbers of the notebooks to run: 02 03")
    run.set_defaults(command=_run, when_stopped="The pages of the notebooks that had ended are in the output folder.")

    cluster = commands.add_parser(
        "cluster",
        help="sort a folder of images into classes, without labels",
        description="Cluster a folder of images with TURTLE, and name the clusters if words are given. "
        "Example: labkit cluster photos --classes 3 --words cat,dog,horse --sheet clusters.html",
    )
    cluster.add_argument("folder", type=Path, help="images, flat or in sub-folders")
    cluster.add_argument("--classes", type=int, required=True, metavar="C", help="how many classes to look for")
    cluster.add_argument(
        "--backbone",
        action="append",
        metavar="NAME",
        help="feature space: efficientnet-lite0 (default), efficientnet-lite2, hog, pixels, pocket-clip, pocket-vit "
        f"(with labkit or its packages); {PAPER_SPACES}, timm:MODEL, open_clip:MODEL/PRETRAINED (from the hub once); "
        "repeat for several",
    )
    cluster.add_argument("--out", default="labels.csv", type=Path, help="CSV to write (default: %(default)s)")
    cluster.add_argument("--sheet", type=Path, metavar="FILE", help="contact sheet of the clusters, .html or .png")
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
    must.add_argument("data", help="a dataset's id (see `labkit datasets`), or a folder of images")
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
        "--start", choices=("prompts", "turtle"), default="prompts", help="zero-shot, or a named TURTLE labeling"
    )
    must.add_argument(
        "--space",
        action="append",
        metavar="NAME",
        help="feature space of TURTLE (default: efficientnet-lite0); repeat for several",
    )
    must.add_argument("--out", default="runs/must", type=Path, help="folder for the model, metrics and labels.csv")
    must.add_argument("--seed", type=_seed, default=0, metavar="N", help=seed)
    must.set_defaults(command=_must, when_stopped="Features and checkpoints are kept: the same command goes on.")

    datasets = commands.add_parser("datasets", help="list the datasets that labkit knows")
    datasets.set_defaults(command=_datasets, when_stopped="")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return number


def _seed(text: str) -> int:
    seed = int(text)
    if not 0 <= seed < 2**32:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0 to 2**32 - 1")
    return seed


def _run(arguments: argparse.Namespace) -> int:
    from labkit.series import describe_failure, run_series

    report = run_series(arguments.out, profile=arguments.profile, only=arguments.only)
    for failure in report["failures"]:
        print(f"FAILED {describe_failure(failure)}", file=sys.stderr)
    seconds = sum(timing["seconds"] for timing in report["timings"].values())
    print(f"{len(report['timings'])} notebooks in {seconds:.0f} s, {len(report['results'])} results, ", end="")
    print(f"{len(report['failures'])} failed. See {arguments.out / 'index.html'}")
    return 1 if report["failures"] else 0


def _cluster(arguments: argparse.Namespace) -> int:
    if not arguments.folder.is_dir():
        raise DataError(f"{arguments.folder} is not a folder. Expected a folder of images.")
    if arguments.sheet and arguments.sheet.suffix not in (".html", ".png"):
        raise DataError(f"the contact sheet is {arguments.sheet}. Expected a name that ends in .html or .png.")
    if arguments.classes < 2:
        raise DataError(f"--classes is {arguments.classes}. Expected a whole number of at least 2.")
    words = _read_words(arguments.words, arguments.classes) if arguments.words is not None else None
    import numpy as np

    from labkit.backbones import load_backbone
    from labkit.features import extract_features
    from labkit.manifests import load_manifest
    from labkit.turtle import Turtle

    def extract(backbone: Backbone) -> np.ndarray:
        parts = [extract_features(backbone, manifest, split=split, progress=True) for split in manifest.splits]
        return np.concatenate(parts)

    manifest = load_manifest(arguments.folder)
    n_images = sum(split.size for split in manifest.splits.values())
    if arguments.classes > n_images:
        raise DataError(
            f"--classes is {arguments.classes}, but {arguments.folder} holds {n_images} images. Ask for fewer."
        )
    backbones = [load_backbone(name) for name in arguments.backbone or SPACES]
    image_text = load_backbone("pocket-clip") if words else None  # before the work, for it may be missing
    with _all_unreadable(manifest):
        spaces = [extract(backbone) for backbone in backbones]
    turtle = Turtle(arguments.classes, n_restarts=arguments.restarts, random_state=arguments.seed, progress=True)
    probs = turtle.fit(spaces).predict_proba(spaces)  # (n, C)
    labels, confidence = probs.argmax(1), probs.max(1)
    root = arguments.folder.resolve()
    paths = _image_files(manifest)
    files = [path.relative_to(root).as_posix() for path in paths]

    names = _name(probs, image_text, extract(image_text), words) if words and image_text else None

    rows = [
        [file, label, f"{c:.4f}", *([names[label]] if names else [])]
        for file, label, c in zip(files, labels, confidence, strict=True)
    ]
    _write_table(arguments.out, ["file", "cluster", "confidence", *(["name"] if names else [])], rows)
    print(f"{len(files)} images in {len(np.unique(labels))} clusters: {arguments.out}")
    if arguments.sheet:
        make_sheet = _html_sheet if arguments.sheet.suffix == ".html" else _png_sheet
        _write(arguments.sheet, make_sheet(paths, labels, confidence, names))
        print(f"contact sheet: {arguments.sheet}")
    return 0


def _must(arguments: argparse.Namespace) -> int:
    from accelerate import PartialState

    from labkit.manifests import load_manifest
    from labkit.must import MUST
    from labkit.prompts import Prompts, load_prompts

    manifest = load_manifest(arguments.data)
    preset, config = _must_settings(arguments, manifest)
    if arguments.words is None and not manifest.classes:
        raise DataError(f"{arguments.data} has no class names. Give them, such as --words cat,dog,bird.")
    prompts = load_prompts(manifest) if arguments.words is None else Prompts.of(_read_words(arguments.words, 2))
    split = next(iter(manifest.splits))
    images = manifest.images(split)
    must = MUST(arguments.backbone, prompts, config, random_state=arguments.seed)
    _print_settings(preset, config)
    with _all_unreadable(manifest):
        start = _named_labeling(arguments, manifest, split, prompts) if arguments.start == "turtle" else None
        must.fit(images, start=start, folder=arguments.out, progress=True)
    if not PartialState().is_main_process:
        return 0
    must.save(arguments.out / "must.safetensors")
    probs = must.predict_proba(images)
    root = Path(arguments.data).resolve()
    names: Iterable[object] = range(len(images))
    if images.files is not None:
        names = [path.relative_to(root).as_posix() if path.is_relative_to(root) else path for path in images.files]
    rows = [[name, must.classes_[p.argmax()], f"{p.max():.4f}"] for name, p in zip(names, probs, strict=True)]
    _write_table(arguments.out / "labels.csv", ["file", "label", "confidence"], rows)
    last = must.history_[must.best_epoch_ - 1]
    for i, name in enumerate(must.classes_):
        print(f"{name}: predicted for {(must.pseudo_labels_[0] == i).sum()} images in epoch 1, ", end="")
        print(f"for {(probs.argmax(1) == i).sum()} at the end")
    print(f"{len(images)} images of {split}, epoch {must.best_epoch_}: ", end="")
    print(f"{last['kept']:.0%} of pseudo-labels kept, mean confidence {last['confidence']:.2f}. See {arguments.out}")
    return 0


def _must_settings(arguments: argparse.Namespace, manifest: Manifest) -> tuple[str, MustConfig]:
    """The preset's key, and its settings with what the command line changes: those of --preset, else of the pair."""
    from labkit.manifests import list_manifests
    from labkit.must import PRESETS, preset_key

    key = arguments.preset
    if key is None:
        # what a folder is called says nothing of what it holds: such images are one's own, not a dataset's
        is_folder = arguments.data not in list_manifests() and Path(arguments.data).expanduser().is_dir()
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
    from labkit.backbones import load_backbone
    from labkit.features import extract_features
    from labkit.naming import name_by_model
    from labkit.turtle import Turtle

    spaces = [
        extract_features(load_backbone(name), manifest, split=split, progress=True)
        for name in arguments.space or SPACES
    ]
    turtle = Turtle(len(prompts.classes), n_restarts=8, random_state=arguments.seed, progress=True).fit(spaces)
    probs = turtle.predict_proba(spaces)
    image_text = load_backbone(arguments.backbone)
    features = extract_features(image_text, manifest, split=split, progress=True)
    return name_by_model(probs, image_text, features, prompts).predict(probs)


def _image_files(manifest: Manifest) -> list[Path]:
    """The images of a folder, split by split, in the order of their features."""
    return [path for found in manifest.scan().values() for path, _ in found]


@contextlib.contextmanager
def _all_unreadable(manifest: Manifest) -> Iterator[None]:
    """Where an image of a folder cannot be read, look at all of them, and name every one that cannot."""
    try:
        yield
    except DataError as error:
        paths = _image_files(manifest) if manifest.source.kind in ("folder", "manual") else []
        bad = [path for path in paths if not _is_readable(path)]
        if len(bad) < 2:
            raise
        named = ", ".join(map(str, bad[:20])) + (f" and {len(bad) - 20} more" if len(bad) > 20 else "")
        raise DataError(
            f"{len(bad)} of {len(paths)} images cannot be read: {named}. They are damaged or no images: replace them "
            "or take them away."
        ) from error


def _is_readable(path: Path) -> bool:
    from labkit.folders import read_image

    try:
        read_image(path)
    except DataError:
        return False
    return True


def _read_words(given: str, n_clusters: int) -> list[str]:
    """The vocabulary in a file, a word a line, or in a comma list; at least a word for each cluster."""
    if "," in given:
        lines = given.split(",")
    elif not Path(given).exists():
        raise DataError(
            f"--words is {given!r}, which is neither a list nor a file. Expected at least {n_clusters} words with "
            "commas between them, such as cat,dog,bird, or a file with a word a line."
        )
    else:
        try:
            lines = Path(given).read_text("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"the file of words {given!r} cannot be read ({error}). Expected a word a line in UTF-8, or a list "
                "such as cat,dog,bird instead of the file."
            ) from error
    words = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if len(words) < n_clusters:
        raise DataError(
            f"there are {len(words)} different words for {n_clusters} clusters. Expected at least one for each: add "
            "words, or ask for fewer classes."
        )
    return words


def _name(probs: np.ndarray, backbone: Backbone, features: np.ndarray, words: list[str]) -> list[str]:
    """A word for each cluster of the labeling `probs` (n, C), told to the user as well."""
    from labkit.naming import name_by_model
    from labkit.prompts import Prompts

    found = name_by_model(probs, backbone, features, Prompts.of(words, templates=("{}", "a photo of a {}.")))
    for cluster, (word, margin) in enumerate(zip(found.words, found.margins, strict=True)):
        doubt = "" if margin >= 0 else ", another word fits it better: look before you believe it"
        print(f"cluster {cluster}: {words[word]} (margin {margin:+.2f}{doubt})")
    print(
        "The margin is how far a word is ahead of the next best, in nats of mean log-probability. It compares only the"
    )
    print("words that were given: where none of them fits, one may still be far ahead.")
    return [words[i] for i in found.words]


def _html_sheet(
    paths: Sequence[Path], labels: np.ndarray, confidence: np.ndarray, names: Sequence[str] | None, n: int = 40
) -> bytes:
    """A page with the n most confident images of every cluster, largest cluster first."""
    import numpy as np

    parts = []
    for cluster in np.argsort(-np.bincount(labels), kind="stable"):
        members = np.flatnonzero(labels == cluster)
        members = members[np.argsort(-confidence[members], kind="stable")]
        title = f"Cluster {cluster}, {html.escape(names[cluster])}" if names else f"Cluster {cluster}"
        parts.append(f"<h2>{title}: {len(members)} images</h2><p>")
        for i in members[:n]:
            jpeg, name = io.BytesIO(), html.escape(paths[i].name)
            _thumbnail(paths[i]).save(jpeg, "JPEG", quality=85)
            data = base64.b64encode(jpeg.getvalue()).decode()
            parts.append(f'<img alt="{name}" title="{name}, {confidence[i]:.2f}" src="data:image/jpeg;base64,{data}">')
        parts.append("</p>")
    style = "body{font:16px system-ui,sans-serif;margin:2rem}img{margin:2px;vertical-align:top}"
    head = f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Clusters</title><style>{style}</style>'
    return f"{head}</head>\n<body><h1>{len(paths)} images</h1>\n{''.join(parts)}\n</body></html>\n".encode()


def _png_sheet(paths: Sequence[Path], labels: np.ndarray, confidence: np.ndarray, names: Sequence[str] | None) -> bytes:
    """An image with a row of the most confident images for every cluster."""
    from labkit.plots import cluster_gallery, to_png

    return to_png(cluster_gallery([_thumbnail(path) for path in paths], labels, confidence, names))


def _thumbnail(path: Path) -> Image.Image:
    from labkit.folders import read_image

    image = read_image(path)
    image.thumbnail((96, 96))
    return image


def _write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV."""
    table = io.StringIO(newline="")
    csv.writer(table, lineterminator="\n").writerows([header, *rows])
    _write(path, table.getvalue().encode())


def _write(path: Path, content: bytes) -> None:
    try:
        with atomic_write(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error}). Choose another place.") from error


def _datasets(arguments: argparse.Namespace) -> int:
    from labkit.manifests import list_manifests, load_manifest

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
