"""Chains of work that write files: what is killed in the tests of faults, and must end as if it had not been."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import nbformat
from PIL import Image
from safetensors import safe_open

import labkit as lk
from labkit import cli
from labkit._files import atomic_write
from labkit.course.series import run_series
from labkit.must import checkpoint, estimator
from labkit.own import cluster as workflow
from labkit.own import layout, reading
from labkit.papers import reproduce
from labkit.papers.results import read_rows
from labkit.spaces import features
from labkit.spaces.features import extract_features
from labkit.turtle import Turtle
from labkit.zeroshot.naming import name_by_model
from tests import tiny
from tests.unit.papers import small

N = 24


def prepare(folder: Path) -> None:
    """What a chain starts from, and where it may write: its images, its cache and its temporary files."""
    for name in ("photos", "cache", "tmp", "notebooks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for i, picture in enumerate(tiny.images(N).array):
        Image.fromarray(picture).save(folder / "photos" / f"{i:02d}.png")
        os.utime(folder / "photos" / f"{i:02d}.png", (10**9, 10**9))
    small.write_datasets(folder / "datasets")
    for number in ("00", "01"):
        cells = [
            nbformat.v4.new_code_cell('profile = "pocket"', metadata={"tags": ["parameters"]}),
            nbformat.v4.new_code_cell(
                "import os, json\n"
                "row = dict(notebook='n', dataset='d', split='s', method='turtle', variant='', spaces=['pixels'], "
                "metric='accuracy', value=0.5, seed=0, selected_without_labels=False, labels_used=False, seconds=None, "
                f"profile='pocket') | {{'notebook': '{number}'}}\n"
                "open(os.environ['LABKIT_RESULTS'], 'a').write('\\n' + json.dumps({'row': row}))\n"
                "print('done')"
            ),
        ]
        for k, cell in enumerate(cells):
            cell["id"] = f"cell-{k}"
        notebook = nbformat.v4.new_notebook(cells=cells)
        notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
        nbformat.write(notebook, folder / "notebooks" / f"{number}_small.ipynb")


def enter(folder: Path, tiny_files: Path) -> None:
    """Make this process work there, quietly and in small steps."""
    os.environ["LABKIT_CACHE"] = str(folder / "cache")
    tempfile.tempdir = str(folder / "tmp")
    os.environ["TMPDIR"] = str(folder / "tmp")
    features.PART = reading.PART = 5
    reading.BATCH = 2
    estimator.LOG_EVERY, checkpoint.SAVE_EVERY = 1, -1.0
    tiny.use_model(tiny_files)
    workflow.NAMED_BY = tiny.NAME
    layout.FEWEST = N + 1  # two principal components: compiling UMAP takes 20 seconds
    logging.disable(logging.CRITICAL)


def extraction(folder: Path) -> None:
    manifest = lk.load_manifest(folder / "photos")
    for name in ("pixels", tiny.NAME):
        extract_features(lk.load_backbone(name, device="cpu"), manifest, batch_size=2)


def read(folder: Path) -> None:
    """All that is read of a folder of photographs, of which two are broken, for two spaces."""
    (folder / "photos" / "empty.png").touch()
    (folder / "photos" / "cut.png").write_bytes((folder / "photos" / "00.png").read_bytes()[:200])
    for name in ("empty.png", "cut.png"):
        os.utime(folder / "photos" / name, (10**9, 10**9))
    found = reading.read_folder(folder / "photos", [lk.load_backbone(name, device="cpu") for name in ("pixels", "hog")])
    features = {name: features.tobytes().hex() for name, features in found.features.items()}
    thumbnails = [thumbnail.hex() for thumbnail in found.thumbnails]
    left_out = [str(path) for path in found.left_out]
    report = [found.facts.to_dict("list"), thumbnails, features, left_out, found.identity]
    with atomic_write(folder / "out" / "reading.json") as temporary:
        temporary.write_text(json.dumps(report), "utf-8")


def cluster(folder: Path) -> None:
    command = ["cluster", str(folder / "photos"), "--classes", "3", "--backbone", "pixels", "--restarts", "2"]
    command += ["--out", str(folder / "out" / "clusters")]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert cli.main(command) == 0


def must(folder: Path) -> None:
    images = lk.load_dataset(folder / "photos")
    fitted = tiny.must(epochs=2).fit(images, folder=folder / "out")
    fitted.save(folder / "out" / "must.safetensors")


def papers(folder: Path) -> None:
    """Rows of both papers."""
    small.use(folder / "datasets")
    reproduce.write_report = lambda *_, **__: None  # it takes longer than all the rest, and is made of the rows alone
    for paper, name in (("turtle", "colors"), ("turtle", "shades"), ("must", "colors")):
        done = reproduce.reproduce(paper, folder / "out", datasets=[name])
        assert not done.failed


def series(folder: Path) -> None:
    with contextlib.redirect_stderr(io.StringIO()):
        report = run_series(folder / "out", notebooks=folder / "notebooks")
    assert len(report["results"]) == 2, report["failures"]


def chain(folder: Path) -> None:
    """As a reproduction of a paper's row: features, TURTLE, names, MUST from there."""
    manifest = lk.load_manifest(folder / "photos")
    spaces = [extract_features(lk.load_backbone(name, device="cpu"), manifest) for name in ("pixels", "hog")]
    turtle = Turtle(3, n_restarts=2, n_outer_steps=20, random_state=0, device="cpu").fit(spaces)
    turtle.save(folder / "out" / "turtle.safetensors")
    backbone, probs = tiny.backbone(), turtle.predict_proba(spaces)
    names = name_by_model(probs, backbone, extract_features(backbone, manifest), lk.Prompts.from_words(tiny.WORDS))
    images, labels = lk.load_dataset(manifest), names.predict(probs)
    student = tiny.must(epochs=1).fit(images, initial_labels=labels, folder=folder / "out" / "must")
    student.save(folder / "out" / "must.safetensors")


SCENARIOS: dict[str, Callable[[Path], None]] = {
    "extraction": extraction,
    "read": read,
    "cluster": cluster,
    "must": must,
    "chain": chain,
    "papers": papers,
    "series": series,
}


def outcome(folder: Path) -> dict[str, str]:
    """Digests of all files that the chain left, by name, temporary ones included.

    Of a run of notebooks only the results, since times differ; of reproductions neither times nor the page with them.
    """
    found = {}
    for path in sorted(path for name in ("out", "cache", "tmp") for path in (folder / name).rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            found[name] = "folder"
        elif path.name == "results.json":
            report = json.loads(path.read_text("utf-8"))
            found[name] = json.dumps([report["results"], report["failures"], sorted(report["timings"])])
        elif path.name == "results.jsonl":
            found[name] = read_rows(path).drop(columns=["seconds", "date"]).to_json()
        elif path.name == "report.html":
            found[name] = "a page"
        elif path.suffix == ".safetensors" and not path.parent.name.startswith("."):
            with safe_open(path, "numpy") as file:  # whose metadata come in any order
                found[name] = file.metadata()["sha256"]
        else:
            content = b"" if (folder / "out" / "results.json").exists() else path.read_bytes()
            found[name] = hashlib.sha256(content).hexdigest()
    return found
