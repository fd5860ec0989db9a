"""Make emoji-unseen, Microsoft's flat Fluent emoji in 14 classes: a drawing style that no pocket model has seen.

    python -m labkit.pocket.recipe.emoji_unseen WORK_DIR [OUT_DIR]

Fetches the npm packages @iconify/json and emojibase-data into WORK_DIR where they are not there yet, and writes
train.png, test.png and index.csv. Kept are the emoji whose name is a label of emojibase, one of each (no skin tones),
without those that look exactly like an earlier one; others are still much alike (a man and a woman on a bicycle).
A rerun chooses the same emoji, and draws the same pixels where libvips has the same librsvg.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from labkit import pocket
from labkit._files import atomic_write
from labkit.data.datasets import TILE
from labkit.errors import DataError
from labkit.pocket.recipe import corpus
from labkit.pocket.recipe.fashion_mini import mosaic, write_index

SEED = 0
STYLE = "fluent-emoji-flat"  # its name among Iconify's sets
N_COLUMNS = 40  # images in a row of the mosaic
OUT = pocket.DATA / "emoji-unseen"

# Every class is a union of Unicode's subgroups of emoji (the names in front of the label in emoji-test.txt).
SUBGROUPS = {
    "face": "face-smiling face-affection face-tongue face-hand face-neutral-skeptical face-sleepy face-unwell face-hat "
    "face-glasses face-concerned face-negative face-costume",
    "person": "person person-gesture person-role person-fantasy person-activity person-sport person-resting family "
    "person-symbol",
    "hand or body part": "hand-fingers-open hand-fingers-partial hand-single-finger hand-fingers-closed hands "
    "hand-prop body-parts",
    # cats and monkeys with a mien are animals: the cat that grins is drawn exactly like the cat that does not
    "animal": "animal-mammal animal-bird animal-amphibian animal-reptile animal-marine animal-bug cat-face monkey-face",
    "plant": "plant-flower plant-other",
    "food or drink": "food-fruit food-vegetable food-prepared food-asian food-marine food-sweet drink dishware",
    "vehicle": "transport-ground transport-water transport-air",
    "place": "place-map place-geographic place-building place-religious place-other",  # maps: globes, too
    "sky or weather": "sky-weather",
    "clock": "time",
    "clothing": "clothing",
    "sport, game or party": "sport game award-medal event",
    "object": "arts-crafts hotel sound music musical-instrument phone computer light-video book-paper money mail "
    "writing office lock tool science medical household other-object",
    "sign": "heart emotion transport-sign warning arrow religion zodiac av-symbol gender math punctuation currency "
    "other-symbol keycap alphanum geometric flag country-flag subdivision-flag",
}


def choose(icon_set: dict[str, Any], emojibase: Path) -> tuple[list[str], list[str], np.ndarray]:
    """The icons (n) whose name is an emoji's, what emojibase calls them (n), and their classes (n,), by name of icon.

    Raises:
        DataError: an emoji is of a subgroup that the table does not have.
    """
    rows = json.loads((emojibase / "en" / "data.json").read_text("utf-8"))
    keys = json.loads((emojibase / "meta" / "groups.json").read_text("utf-8"))["subgroups"]
    class_of = {key: i for i, members in enumerate(SUBGROUPS.values()) for key in members.split()}
    emoji = {corpus.plain_label(row["label"]): row for row in rows if "subgroup" in row}
    found = [(icon, emoji[name]) for icon in sorted(icon_set["icons"]) if (name := icon.replace("-", " ")) in emoji]
    subgroups = [keys[str(row["subgroup"])] for _, row in found]
    if new := set(subgroups) - set(class_of):
        raise DataError(f"the subgroups {', '.join(sorted(new))} are in no class. Add them to SUBGROUPS in {__file__}.")
    labels = np.array([class_of[key] for key in subgroups])
    return [icon for icon, _ in found], [row["label"].lower() for _, row in found], labels


def draw(icon_set: dict[str, Any], icons: list[str]) -> np.ndarray:
    """The icons on white, (n, 64, 64, 3) uint8."""
    side = TILE["emoji-unseen"]
    rgba = corpus.render([corpus.svg_of(icon_set, icon, side) for icon in icons], side)
    white = Image.new("RGBA", (side, side), "white")
    return np.stack([np.asarray(Image.alpha_composite(white, Image.fromarray(x)).convert("RGB")) for x in rgba])


def in_test(labels: np.ndarray, seed: int) -> np.ndarray:
    """Which images are the test split, (n,) bool: a third of each class, rounded."""
    # RandomState, because its stream is frozen for good, while that of default_rng may change (NEP 19)
    order = np.random.RandomState(seed).permutation(len(labels))
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        chosen[members[: round(len(members) / 3)]] = True
    return chosen


def make(work: Path, out: Path = OUT) -> None:
    """Fetch, draw and split the emoji, and write the mosaics and the index to `out`.

    Raises:
        DataError: a package cannot be fetched, or an emoji is of a subgroup that the table does not have.
    """
    iconify, emojibase = (
        corpus.fetch(package, version, work / "packages") for package, version in corpus.PACKAGES.items()
    )
    icon_set = json.loads((iconify / "json" / f"{STYLE}.json").read_text("utf-8"))
    icons, names, labels = choose(icon_set, emojibase)
    images = draw(icon_set, icons)
    first = {image.tobytes(): i for i, image in reversed(list(enumerate(images)))}
    kept = np.array(sorted(first.values()))  # no image twice, which could be in both splits
    images, labels, names = images[kept], labels[kept], [names[i] for i in kept]
    test = in_test(labels, SEED)
    rows: list[tuple[str, int, str]] = []
    for split, chosen in (("train", ~test), ("test", test)):
        with atomic_write(out / f"{split}.png") as temporary:
            Image.fromarray(mosaic(images[chosen], N_COLUMNS)).save(temporary, format="PNG", optimize=True)
        rows += [(split, int(labels[i]), names[i]) for i in np.flatnonzero(chosen)]
    write_index(out / "index.csv", [("split", "label", "name"), *rows])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, metavar="WORK_DIR")
    parser.add_argument("out", type=Path, nargs="?", default=OUT, metavar="OUT_DIR")
    arguments = parser.parse_args()
    make(arguments.work, arguments.out)
