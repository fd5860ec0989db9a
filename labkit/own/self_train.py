"""Masked self-training of a dataset or of a folder of images: settings, initial labels, training, a table of labels."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from labkit._processes import are_launched
from labkit.data.datasets import load_dataset
from labkit.data.images import ImageDataset
from labkit.data.manifests import list_manifests, load_manifest
from labkit.data.schema import Manifest
from labkit.errors import DataError, did_you_mean, printable, quote, shorten, shown
from labkit.must import MUST, PRESETS, MustConfig, preset_key, preset_source
from labkit.must.length import Length, epochs_needed, length_of
from labkit.must.model import image_tower
from labkit.must.presets import describe
from labkit.own.cluster import DEFAULT_SPACES
from labkit.own.files import expect_places, file_cell, word_cell, write_table
from labkit.own.reading import read_folder
from labkit.spaces.backbones import Backbone, load_backbone
from labkit.spaces.features import extract_features
from labkit.turtle import Turtle
from labkit.zeroshot.classifier import ZeroShot, text_classifier
from labkit.zeroshot.naming import name_by_model
from labkit.zeroshot.prompts import Prompts, load_prompts

logger = logging.getLogger(__name__)

SHOWN = 10  # changes, and files that are left out, that are printed


@dataclass(frozen=True)
class Plan:
    """What will be trained on what: known, and checked, before the work.

    Attributes:
        data: as it was given, the name of a dataset or the path of a folder.
        split: of the data that it trains on, the first.
        settings: the settings, in lines for people.
        warning: what speaks against them; "" is nothing.
        words_file: where the class names are from, which is not to be replaced.
    """

    data: str
    manifest: Manifest
    split: str
    prompts: Prompts
    backbone: str
    config: MustConfig
    settings: list[str]
    warning: str
    words_file: Path | None


@dataclass(frozen=True)
class Trained:
    """A fitted MUST, the class of each image before and after, (n,) int64, and what came of it in lines for people."""

    must: MUST
    before: np.ndarray
    after: np.ndarray
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
        LabkitError: there are no such data, settings or class names, or fewer images than classes.
    """
    manifest = load_manifest(data)
    split, promised = next(iter(manifest.splits.items()))
    # what a folder is called says nothing of what it holds: such images are one's own, not a dataset's
    is_folder = data not in list_manifests() and Path(data).is_dir()
    if preset is None:
        preset = preset_key(None if is_folder else manifest.id, backbone)
    elif preset not in PRESETS:
        near = did_you_mean(preset, PRESETS)
        raise DataError(f"--preset is {quote(preset)}.{near} Expected one of {', '.join(PRESETS)}.")
    given = {"epochs": epochs, "batch_size": batch_size, "threshold": threshold}
    config = PRESETS[preset].replace(**{name: value for name, value in given.items() if value is not None})
    changed = "" if config == PRESETS[preset] else "; changed by options"
    prompts, source = _classes(data, manifest, words, words_file, is_folder)
    n, n_classes = promised.size, len(prompts.classes)
    if n < n_classes:
        raise DataError(f"{data} has {n} images for {n_classes} classes. Expected more images, or fewer words.")
    settings = [
        f"classes: {shorten(', '.join(prompts.classes), 200)} ({n_classes}, {source})",
        f"settings: {preset} ({preset_source(preset)}{changed})",
    ]
    if config.batch_size > n:
        settings.append(f"  a batch is all {n} images: there are no {config.batch_size:,} of them")
        config = config.replace(batch_size=n, accumulate=1)
    length = length_of(config, n)
    settings += [f"  {line}" for line in describe(config)]
    rest = ""
    if length.unused > n // 4:
        rest = f", of which each leaves out {length.unused:,}: --batch {n // (length.per_epoch + 1):,} would use all"
    settings.append(f"  {length.steps:,} steps, {length.per_epoch:,} in an epoch of {n:,} images{rest}")
    short = f"{_too_short(length)}, so it can hardly change anything. {_cure(config, n)}" if length.is_too_short else ""
    return Plan(data, manifest, split, prompts, backbone, config, settings, short, words_file)


def _classes(
    data: str, manifest: Manifest, words: Sequence[str] | None, words_file: Path | None, is_folder: bool
) -> tuple[Prompts, str]:
    """The prompts, and where the names of the classes are from."""
    if words is None and not manifest.classes:
        raise DataError(f"{data} has no class names. Give them, such as --words cat,dog,bird.")
    if words is None:
        prompts, source = load_prompts(manifest), "the names of its sub-folders" if is_folder else "of the dataset"
    else:
        prompts, source = Prompts.from_words(words), f"from {words_file}" if words_file else "from --words"
        if manifest.classes:
            source += ", not the names of its sub-folders" if is_folder else ", not those of the dataset"
    if len(prompts.classes) < 2:
        raise DataError(
            f"{data} has one class, {quote(prompts.classes[0])} ({source}). Expected at least two: give them, such as "
            "--words cat,dog,bird."
        )
    return prompts, source


def _too_short(length: Length) -> str:
    steps = "1 step" if length.steps == 1 else f"{length.steps:,} steps"
    still = f"{length.left:.0%}" if length.left < 0.995 else "almost wholly"
    return f"this run has {steps}, after which the model that predicts is still {still} the one it began with"


def _cure(config: MustConfig, n: int) -> str:
    """What to set so that a run on n images is long enough."""
    return f"Set --epochs {epochs_needed(config, n):,} or more, or give more images."


def self_train(
    plan: Plan,
    *,
    out: Path,
    spaces: Sequence[str] | None = None,
    from_turtle: bool = False,
    strict: bool = False,
    seed: int = 0,
) -> Trained | None:
    """Train on the first split, and write must.safetensors and labels.csv; the same call resumes where it stopped.

    Args:
        plan: from `plan`.
        out: the folder for results and checkpoints.
        spaces: names of the backbones in whose features TURTLE looks for initial labels.
        from_turtle: begin with TURTLE's named clusters and not with zero-shot predictions.
        strict: raise where an image of a folder cannot be read, instead of leaving it out.
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
    image_text = load_backbone(plan.backbone)
    image_tower(image_text)  # which raises where it has no patches to mask
    names = list(dict.fromkeys(spaces or DEFAULT_SPACES)) if from_turtle else []
    loaded = {image_text.name: image_text} | {name: load_backbone(name) for name in names if name != plan.backbone}
    images, features = _read(plan, list(loaded.values()), strict)
    if from_turtle:
        start = _named_clusters(plan.prompts, image_text, features, [loaded[name].name for name in names], seed)
    else:
        embeddings = features[image_text.name]
        start = ZeroShot(text_classifier(image_text, plan.prompts)).fit(embeddings).predict(embeddings)
    model = plan.backbone if are_launched() else image_text  # each process loads it on a device of its own
    must = MUST(model, plan.prompts, plan.config, random_state=seed, progress=True)
    must.fit(images, initial_labels=start if from_turtle else None, folder=out)
    if not PartialState().is_main_process:
        return None
    must.save(out / "must.safetensors")
    probs = must.predict_proba(images)
    after, words = probs.argmax(1), must.class_names_
    root = Path(plan.data).resolve()
    files = [str(i) for i in range(len(images))] if images.files is None else [file_cell(p, root) for p in images.files]
    rows = [
        [file, word_cell(words[label]), f"{p.max():.4f}", word_cell(words[first])]
        for file, label, p, first in zip(files, after, probs, start, strict=True)
    ]
    write_table(out / "labels.csv", ["file", "label", "confidence", "before"], rows)
    return Trained(must, start, after, _story(plan, must, files, start, probs))


def _read(plan: Plan, backbones: Sequence[Backbone], strict: bool) -> tuple[ImageDataset, dict[str, np.ndarray]]:
    """The images that can be read, n of them, and their features (n, d) in each space."""
    if plan.manifest.source.kind != "folder":
        features = {b.name: extract_features(b, plan.manifest, split=plan.split, progress=True) for b in backbones}
        return load_dataset(plan.manifest, plan.split), features
    reading = read_folder(plan.manifest.root, backbones, strict=strict, progress=True)
    images = load_dataset(plan.manifest, plan.split)
    row_of = {path: row for row, path in enumerate(reading.files)}
    kept = [i for i, path in enumerate(images.files or []) if path in row_of]
    if len(kept) < len(plan.prompts.classes):
        raise DataError(
            f"{plan.data} has {len(kept)} images that can be read for {len(plan.prompts.classes)} classes. Expected "
            "more images, or fewer words."
        )
    for path, why in list(reading.left_out.items())[:SHOWN]:
        logger.warning("left out: %s: %s", shown(path.relative_to(reading.root)), why)
    if len(reading.left_out) > SHOWN:
        logger.warning("left out: %d more files that cannot be read", len(reading.left_out) - SHOWN)
    images = images.subset(kept)
    rows = [row_of[path] for path in images.files or []]
    return images, {name: found[rows] for name, found in reading.features.items()}


def _named_clusters(
    prompts: Prompts, image_text: Backbone, features: dict[str, np.ndarray], names: Sequence[str], seed: int
) -> np.ndarray:
    """The classes that TURTLE finds, named by the image-text model: a class number for each image, (n,)."""
    spaces = [features[name] for name in names]
    turtle = Turtle(len(prompts.classes), n_restarts=8, random_state=seed, progress=True).fit(spaces)
    probs = turtle.predict_proba(spaces)
    return name_by_model(probs, image_text, features[image_text.name], prompts).predict(probs)


def _story(plan: Plan, must: MUST, files: Sequence[str], before: np.ndarray, probs: np.ndarray) -> list[str]:
    """What a run came to: how often each class is predicted before and after, who changed, how confident it is."""
    words, after, n = must.class_names_, probs.argmax(1), len(files)
    story = [f"{word}: {(before == i).sum()} images before, {(after == i).sum()} after" for i, word in enumerate(words)]
    changed = np.flatnonzero(before != after)
    story.append(f"{len(changed)} of {n} images changed class" + (", the most confident:" if len(changed) else "."))
    for i in changed[np.argsort(-probs[changed].max(1), kind="stable")][:SHOWN]:
        line = f"{files[i]}: {words[before[i]]} -> {words[after[i]]} ({probs[i].max():.2f})"
        story.append(f"  {' '.join(printable(line).split())}")
    epoch, length = must.history_[must.best_epoch_ - 1], length_of(plan.config, n)
    story.append(
        f"{n} images of {plan.split}, epoch {must.best_epoch_}: {epoch['kept']:.0%} of pseudo-labels kept, mean "
        f"confidence {epoch['confidence']:.2f}."
    )
    if length.is_too_short:
        story.append(f"Too few steps: {_too_short(length)}. {_cure(plan.config, n)}")
    return story
