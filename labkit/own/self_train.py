"""Masked self-training of a dataset or of a folder of images: settings, initial labels, training, a table of labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from labkit.data.datasets import load_dataset
from labkit.data.manifests import list_manifests, load_manifest
from labkit.data.schema import Manifest
from labkit.errors import DataError
from labkit.must import MUST, PRESETS, MustConfig, preset_key, preset_source
from labkit.must.presets import describe
from labkit.own.cluster import DEFAULT_SPACES
from labkit.own.files import expect_places, file_cell, name_unreadable, word_cell, write_table
from labkit.spaces.backbones import load_backbone
from labkit.spaces.features import extract_features
from labkit.turtle import Turtle
from labkit.zeroshot.naming import name_by_model
from labkit.zeroshot.prompts import Prompts, load_prompts


@dataclass(frozen=True)
class Plan:
    """What will be trained on what: known, and checked, before the work.

    Attributes:
        data: as it was given, the name of a dataset or the path of a folder.
        settings: the settings in lines for people.
        words_file: where the class names are from, which is not to be replaced.
    """

    data: str
    manifest: Manifest
    prompts: Prompts
    backbone: str
    config: MustConfig
    settings: list[str]
    words_file: Path | None


@dataclass(frozen=True)
class Trained:
    """A fitted MUST, and in lines for people how often each class was predicted first and last."""

    must: MUST
    story: list[str]


def plan(
    data: str,
    backbone: str,
    *,
    preset: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    threshold: float | None = None,
    words: Sequence[str] | None = None,
    words_file: Path | None = None,
) -> Plan:
    """Look at the data and choose the settings: those of `preset`, else of the pair, with what is given changed.

    Args:
        data: the name of a dataset, or the path of a folder of images.
        backbone: name of the image-text model.
        preset: a key of `PRESETS`.
        epochs, batch_size, threshold: as in `MustConfig`; None leaves the preset's.
        words: names of the classes, where the dataset has none or others are wanted.
        words_file: where the words are from.

    Raises:
        LabkitError: there are no such data, settings or class names.
    """
    manifest = load_manifest(data)
    if preset is None:
        # what a folder is called says nothing of what it holds: such images are one's own, not a dataset's
        is_folder = data not in list_manifests() and Path(data).is_dir()
        preset = preset_key(None if is_folder else manifest.id, backbone)
    elif preset not in PRESETS:
        raise DataError(f"--preset is {preset!r}. Expected one of {', '.join(PRESETS)}.")
    given = {"epochs": epochs, "batch_size": batch_size, "threshold": threshold}
    config = PRESETS[preset].replace(**{name: value for name, value in given.items() if value is not None})
    if words is None and not manifest.classes:
        raise DataError(f"{data} has no class names. Give them, such as --words cat,dog,bird.")
    prompts = load_prompts(manifest) if words is None else Prompts.from_words(words)
    changed = "" if config == PRESETS[preset] else "; changed by options"
    settings = [f"settings: {preset} ({preset_source(preset)}{changed})", *(f"  {line}" for line in describe(config))]
    return Plan(data, manifest, prompts, backbone, config, settings, words_file)


def self_train(
    plan: Plan, *, out: Path, spaces: Sequence[str] | None = None, from_turtle: bool = False, seed: int = 0
) -> Trained | None:
    """Train on the first split, and write must.safetensors and labels.csv; the same call resumes where it stopped.

    Args:
        plan: from `plan`.
        out: the folder for results and checkpoints.
        spaces: names of the backbones in whose features TURTLE looks for initial labels.
        from_turtle: begin with TURTLE's named clusters and not with zero-shot predictions.
        seed: of random numbers.

    Returns:
        What was trained; None on a process that is not the main one of several.

    Raises:
        LabkitError: anything that does not work, before the work where it can be known.
    """
    from accelerate import PartialState

    expect_places(
        {f"--out ({name})": out / name for name in ("must.safetensors", "labels.csv")},
        {"the file of words": [] if plan.words_file is None else [plan.words_file]},
    )
    split = next(iter(plan.manifest.splits))
    images = load_dataset(plan.manifest, split)
    must = MUST(plan.backbone, plan.prompts, plan.config, random_state=seed, progress=True)
    with name_unreadable(plan.manifest):
        labels = _named_clusters(plan, split, spaces or DEFAULT_SPACES, seed) if from_turtle else None
        must.fit(images, initial_labels=labels, folder=out)
    if not PartialState().is_main_process:
        return None
    must.save(out / "must.safetensors")
    probs = must.predict_proba(images)
    root = Path(plan.data).resolve()
    files = range(len(images)) if images.files is None else [file_cell(path, root) for path in images.files]
    rows = [
        [file, word_cell(must.class_names_[p.argmax()]), f"{p.max():.4f}"] for file, p in zip(files, probs, strict=True)
    ]
    write_table(out / "labels.csv", ["file", "label", "confidence"], rows)
    first, last, epoch = must.pseudo_labels_[0], probs.argmax(1), must.history_[must.best_epoch_ - 1]
    story = [
        f"{name}: predicted for {(first == i).sum()} images in epoch 1, for {(last == i).sum()} at the end"
        for i, name in enumerate(must.class_names_)
    ]
    story.append(
        f"{len(images)} images of {split}, epoch {must.best_epoch_}: {epoch['kept']:.0%} of pseudo-labels kept, mean "
        f"confidence {epoch['confidence']:.2f}."
    )
    return Trained(must, story)


def _named_clusters(plan: Plan, split: str, spaces: Sequence[str], seed: int) -> np.ndarray:
    """The classes that TURTLE finds, named by the image-text model: a class number for each image, (n,)."""
    features = [extract_features(load_backbone(name), plan.manifest, split=split, progress=True) for name in spaces]
    turtle = Turtle(len(plan.prompts.classes), n_restarts=8, random_state=seed, progress=True).fit(features)
    probs = turtle.predict_proba(features)
    image_text = load_backbone(plan.backbone)
    embeddings = extract_features(image_text, plan.manifest, split=split, progress=True)
    return name_by_model(probs, image_text, embeddings, plan.prompts).predict(probs)
