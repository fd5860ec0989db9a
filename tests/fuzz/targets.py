"""What the fuzzer feeds: for each kind of file that labkit reads, whole examples and the reader that must bear all."""

from __future__ import annotations

import contextlib
import functools
import gzip
import io
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import torch
from PIL import Image, features
from safetensors.torch import save_file

import labkit as lk
from labkit import _saved
from labkit.course import series
from labkit.course.results import read_results
from labkit.data.datasets import read_idx
from labkit.data.decoding import read_image
from labkit.data.manifests import load_manifest
from labkit.errors import LabkitError
from labkit.must import MUST
from labkit.own.clustering import Clustering
from labkit.own.files import read_words
from labkit.own.review import read_review, reviewed
from labkit.spaces.cache import read_features, write_features
from labkit.turtle import Turtle
from labkit.zeroshot.prompts import Prompts, load_prompts
from tests import tiny


@dataclass(frozen=True)
class Target:
    """A kind of file.

    Attributes:
        suffix: what the names of its files end in.
        seeds: whole examples of it.
        read: reads a file of it; may raise a LabkitError and nothing else.
    """

    suffix: str
    seeds: Callable[[], list[bytes]]
    read: Callable[[Path], object]


def small_image(mode: str = "RGB", size: tuple[int, int] = (19, 13)) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    if mode == "I;16":
        return Image.fromarray(noise[..., :2].copy().view(np.uint16)[..., 0])
    return Image.fromarray(noise, "RGBA").convert("RGB" if mode != "RGBA" else mode).convert(mode)


def images() -> list[bytes]:
    """Images of every format and mode that is read, and of some that are not."""
    with contextlib.suppress(ImportError):  # it comes with the extra "photos"
        from pillow_heif import register_heif_opener

        register_heif_opener()
    wanted = [("PNG", m, {}) for m in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")]
    wanted += [("JPEG", m, {}) for m in ("RGB", "L", "CMYK")] + [("JPEG", "RGB", {"progressive": True})]
    wanted += [("TIFF", m, {"compression": c}) for m in ("RGB", "L") for c in (None, "tiff_lzw", "tiff_adobe_deflate")]
    wanted += [("TIFF", m, {}) for m in ("CMYK", "P", "I;16", "F", "1", "LAB")]
    wanted += [("BMP", m, {}) for m in ("RGB", "L", "P", "1")] + [("PPM", m, {}) for m in ("RGB", "L", "1")]
    wanted += [("GIF", m, {}) for m in ("RGB", "L")] + [("ICO", "RGBA", {}), ("DDS", "RGBA", {}), ("EPS", "RGB", {})]
    wanted += [("TGA", "RGB", {}), ("PCX", "RGB", {}), ("SGI", "RGB", {}), ("PDF", "RGB", {})]
    wanted += [("ICNS", "RGBA", {}), ("QOI", "RGB", {}), ("MPO", "RGB", {})]
    wanted += [(name, "RGB", {}) for name, has in (("WEBP", "webp"), ("JPEG2000", "jpg_2000")) if features.check(has)]
    wanted += [(name, "RGB", {}) for name in ("AVIF", "HEIF") if name in Image.SAVE]
    found = []
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, mode, options in wanted:
        file = io.BytesIO()
        more = {"exif": exif} if name in ("PNG", "JPEG", "WEBP") else {}
        small_image(mode, (32, 32) if name in ("ICO", "DDS", "ICNS") else (19, 13)).save(file, name, **options, **more)
        found.append(file.getvalue())
    frames = io.BytesIO()
    small_image("P").save(frames, "GIF", save_all=True, append_images=[small_image("L").convert("P")] * 2, duration=50)
    return [*found, frames.getvalue()]


NAMED = (
    "tga",
    "pcx",
    "sgi",
    "dib",
    "msp",
    "xbm",
)  # formats that only the name of a file tells, and that can be written


def named_images() -> list[bytes]:
    """Such images, each after a byte that says its name."""
    found = []
    for number, suffix in enumerate((*NAMED, "tga", "pcx")):
        file = io.BytesIO()
        name = Image.registered_extensions()[f".{suffix}"]
        small_image("1" if suffix in ("msp", "xbm") else "L" if number >= len(NAMED) else "RGB").save(file, name)
        found.append(bytes([number]) + file.getvalue())
    return [*found, bytes([len(NAMED)]) + b'/* XPM */ "2 1 2 1", "a c #ff0000", "b c #00ff00", "ab"']


def read_named(path: Path) -> None:
    content, suffixes = path.read_bytes() or b"\0", (*NAMED, "xpm", "cur", "dcx", "ras")
    path = path.with_suffix(f".{suffixes[content[0] % len(suffixes)]}")
    path.write_bytes(content[1:])
    read_image(path)


def read_both_ways(path: Path) -> None:
    """An image at its own size, and where a small one is enough."""
    with contextlib.suppress(LabkitError):
        read_image(path, at_least=3)
    read_image(path)


MANIFEST = """id: things
title: Things of three kinds
task: tell which
classes: [cat, dog, "7"]
splits: {train: {size: 3, how: all}, test: {size: 2, how: "the rest"}}
source:
  kind: torchvision
  dataset: CIFAR10
  args: {train: [{train: true}], test: [{train: false}]}
sha256: {}
license: CC0
citation: nobody
homepage: https://example.org
prompts: null
published:
- {method: "TURTLE, CLIP", metric: accuracy, value: 0.573, source: "the paper, table 1"}
"""
OTHER_SOURCES = (
    "{kind: folder, path: ~/photos}",
    "{kind: manual, path: x, instructions: fetch it}",
    "{kind: huggingface, repo: a/b, image: image, label: label, splits: {train: train, test: test}}",
    "{kind: builtin, builder: digits}",
)


def manifests() -> list[bytes]:
    begin, end = MANIFEST.index("source:"), MANIFEST.index("sha256:")
    others = [f"{MANIFEST[:begin]}source: {source}\n{MANIFEST[end:]}" for source in OTHER_SOURCES]
    return [text.encode() for text in (MANIFEST, *others)]


def prompt_files() -> list[bytes]:
    text = 'templates: ["a photo of a {}.", "{}"]\nrelation: members\nclasses: {a: [cat, "7"], b: [dog]}\n'
    return [text.encode(), text.replace("relation: members\n", "").encode("utf-8-sig")]


@functools.cache
def manifest_with_prompts() -> lk.Manifest:
    return load_manifest("digits").model_copy(update={"classes": ["a", "b"]})


def read_prompts(path: Path) -> Prompts:
    return load_prompts(manifest_with_prompts().model_copy(update={"prompts": str(path)}))


KEY = {"images": "x", "rows": 4, "width": 3, "dtype": "float32"}


@functools.cache
def small_backbone() -> lk.Backbone:
    folder = Path(tempfile.mkdtemp(prefix="labkit-fuzz-"))
    tiny.use_model(tiny.write_model(folder))
    return tiny.backbone()


def read_tensors(path: Path) -> None:
    """A file of tensors by everything that could be asked to read it; all must refuse or agree with themselves."""
    readers: tuple[Callable[[], object], ...] = (
        lambda: Turtle.load(path).predict(np.zeros((2, 3), np.float32)),
        lambda: MUST.load(path, backbone=small_backbone(), device="cpu"),
        lambda: read_features(path, KEY),
        lambda: _saved.read_saved(path, "checkpoint of MUST", ""),
    )
    refused = 0
    for reader in readers:
        try:
            reader()
        except LabkitError:
            refused += 1
    assert refused >= len(readers) - 1, "a file was taken for two kinds"


def tensor_files() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.safetensors")
        found = []
        x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
        Turtle(2, n_restarts=2, n_outer_steps=2, random_state=0, device="cpu").fit(x).save(path)
        found.append(path.read_bytes())
        tiny.must(small_backbone(), epochs=1).fit(tiny.images(8)).save(path)
        found.append(path.read_bytes())
        write_features(path, np.ones((4, 3), np.float32), KEY)
        found.append(path.read_bytes())
        _saved.write_saved(path, "checkpoint of MUST", {"step": 3}, {"labels": torch.zeros(3)})
        return [*found, path.read_bytes()]


@functools.cache
def whole_files() -> list[tuple[str, dict[str, Any], dict[str, torch.Tensor]]]:
    """Of a Turtle, a MUST and a checkpoint: kind, settings and tensors."""
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for content, kind in zip(tensor_files(), ("Turtle", "MUST", "features", "checkpoint of MUST"), strict=True):
            path = Path(folder, "a.safetensors")
            path.write_bytes(content)
            found.append((kind, *_saved.read_saved(path, kind, "")))
        tiny.must(small_backbone(), epochs=1).fit(tiny.images(8), folder=folder)
        kind = "checkpoint of MUST"
        found[-1] = (kind, *_saved.read_saved(Path(folder, "checkpoint.safetensors"), kind, ""))
        return found


def settings_texts() -> list[bytes]:
    return [json.dumps(settings).encode() for _, settings, _ in whole_files()]


def read_signed(path: Path) -> None:
    """The text as the settings of every kind of file, whose digest is right, with the tensors of a whole one."""
    text = path.read_bytes().decode("utf-8", "replace")
    for kind, settings, tensors in whole_files():
        changed = dict(tensors)
        if (pick := sum(path.read_bytes())) % 3 == 0:  # and one of them of another dtype or shape, or gone
            name = sorted(changed)[pick % len(changed)]
            forms = (changed[name].to(torch.bfloat16), changed[name].flatten()[:1], torch.zeros(3), None)
            changed[name] = forms[pick % len(forms)]  # type: ignore[assignment]
            changed = {key: tensor for key, tensor in changed.items() if tensor is not None}
            text = json.dumps(settings)
        sign(path.with_suffix(".safetensors"), kind, text, changed)
        readers: dict[str, Callable[[Path], object]] = {
            "Turtle": lambda file: Turtle.load(file).predict(np.zeros((2, 3), np.float32)),
            "MUST": lambda file: MUST.load(file, backbone=small_backbone(), device="cpu").predict(tiny.images(3)),
            "features": lambda file: read_features(file, KEY),
            "checkpoint of MUST": go_on_from,
        }
        with contextlib.suppress(LabkitError):
            readers[kind](path.with_suffix(".safetensors"))


def sign(path: Path, kind: str, settings: str, tensors: dict[str, torch.Tensor]) -> None:
    digest = _saved._digest(kind, settings, tensors)
    save_file(tensors, path, {"labkit": kind, "format": "1", "settings": settings, "sha256": digest})


def go_on_from(path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "checkpoint.safetensors").write_bytes(path.read_bytes())
        tiny.must(small_backbone(), epochs=1).fit(tiny.images(8), folder=folder)


def results() -> list[bytes]:
    row = {
        "notebook": "n", "dataset": "d", "split": "s", "method": "turtle", "variant": "", "spaces": ["pixels"],
        "metric": "accuracy", "value": 0.5, "seed": 0, "selected_without_labels": False, "labels_used": False,
        "seconds": None, "profile": "pocket",
    }  # fmt: skip
    band = {"notebook": "n", "name": "b", "value": 1, "low": 0, "high": 2, "verdict": "within", "profile": "pocket"}
    lines = [json.dumps({"row": row}), json.dumps({"band": band}), json.dumps({"row": row | {"seed": 1}})]
    return ["\n".join(lines).encode()]


def read_and_show_results(path: Path) -> None:
    import pandas as pd

    from labkit.course.results import ROW_KEYS, summarize

    rows, _ = read_results(path)
    summarize(pd.DataFrame(rows, columns=list(ROW_KEYS)))


def idx_files() -> list[bytes]:
    plain = b"\0\0\x08\x03" + np.array([2, 3, 4], ">u4").tobytes() + bytes(range(24))
    return [plain, b"\0\0\x08\x01" + np.array([5], ">u4").tobytes() + bytes(5)]


def read_gz(path: Path) -> None:
    """The same bytes as a plain and as a compressed file."""
    read_idx(path.parent, path.name.removesuffix(".gz"))


def notebooks() -> list[bytes]:
    cells = [nbformat.v4.new_markdown_cell("# a"), nbformat.v4.new_code_cell("1")]
    return [nbformat.writes(nbformat.v4.new_notebook(cells=cells)).encode()]


def run_into(path: Path) -> None:
    """A folder of results that holds the file as a notebook and as the report of an earlier run: looked at, not run."""
    with tempfile.TemporaryDirectory() as folder:
        source, report = Path(folder, path.name), path.with_name("results.json")
        source.write_bytes(notebooks()[0])
        report.write_bytes(path.read_bytes())
        series.expect_replaceable(path.parent, [source])


def reviews() -> list[bytes]:
    operations = [
        {"do": "merge", "clusters": [0, 1]},
        {"do": "split", "cluster": 2, "into": 2},
        {"do": "rename", "cluster": 0, "name": "球"},
        {"do": "reject", "files": ["0.png", "5.png"]},
        {"do": "move", "files": ["5.png"], "cluster": 3},
        {"do": "reject", "cluster": 2},
    ]
    whole = {"labkit": "review", "version": 1, "run": "", "operations": operations}
    return [json.dumps(whole | {"operations": operations[i : i + 4]}).encode() for i in range(3)]


def carry_out(path: Path) -> None:
    """A review of eight images in four clusters."""
    found = [k // 2 for k in range(8)]
    images = pd.DataFrame({"file": [f"{i}.png" for i in range(8)], "found": found, "cluster": found})
    clusters = pd.DataFrame({"cluster": range(4), "size": 2, "name": "", "name_confidence": 0.5})
    clusters["suggestions"] = [["cat"]] * 4
    clustering = Clustering(Path(), [Path()] * 8, images, clusters, {"run": ""})
    reviewed(clustering, read_review(path), {"pixels": np.eye(8, dtype=np.float32)})


TARGETS = {
    "image": Target(".jpg", images, read_both_ways),
    "named-image": Target(".img", named_images, read_named),
    "manifest": Target(".yaml", manifests, load_manifest),
    "prompts": Target(".yaml", prompt_files, read_prompts),
    "words": Target(".txt", lambda: ["cat\ndog\n球\n".encode("utf-8-sig"), b"a\r\nb"], lambda p: read_words(str(p), 2)),
    "tensors": Target(".safetensors", tensor_files, read_tensors),
    "settings": Target(".txt", settings_texts, read_signed),
    "results": Target(".jsonl", results, read_and_show_results),
    "idx": Target("", idx_files, lambda path: read_idx(path.parent, path.name)),
    "idx-gz": Target(".gz", lambda: [gzip.compress(content) for content in idx_files()], read_gz),
    "review": Target(".json", reviews, carry_out),
    "notebook": Target(".ipynb", notebooks, run_into),
}
