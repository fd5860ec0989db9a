"""Audit: which images of a folder are blurred, blank, tiny, or the same as another one; nothing is changed or deleted.

Flags are for a person to look at. Their limits were chosen on photographs of clothing and CIFAR-10 and on the bundled
images, blurred and changed on purpose, without labels; the comment at each says how often it errs there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from labkit.own.joined import joined

if TYPE_CHECKING:
    import pandas as pd

    from labkit.own.reading import Reading

# Below this sharpness are 0.2 % of the 3,781 clothing photographs and none of the other images; of the clothing ones
# that a Gaussian of 0.8 % (1.2 %) of the longest side blurred, 92 % (all) are.
BLURRED = 0.05
BLANK = (
    0.01  # contrast, 2.5 of 255 levels: every one of these images has at least five times that, white paper has less
)
TINY = 32  # pixels of the shorter side: a network that sees 224 gets at most one pixel in 49 from a smaller image
# Bits of the hash that differ. Of the photographs 0.1 % have another one so near that is none (of fashion-mini 2 %);
# half the size is found in 95 %, a JPEG of quality 40 and a fifth more light in 99 %, but a crop of 5 % in 35 %.
SAME_HASH = 4
# Cosine in the first space, less the mean of the folder, without which a space of positive features finds all images
# alike. With EfficientNet-Lite0 no other photograph of clothing is so near, and a crop of 5 % is in 86 %.
SAME_FEATURES = 0.9
CHUNK = 512  # images that are compared with all before at a time: memory grows with n, not with its square


def audit(reading: Reading) -> pd.DataFrame:
    """What is odd about each of the n images of a folder.

    Returns:
        n rows: blurred, blank, tiny (bool); duplicate_of, the row of the first image with the same pixels; and
        near_duplicate_of, that of the first image before that looks alike, by perceptual hash or by features of the
        first space. Both are -1 where there is none; what is a duplicate is no near-duplicate. And like, the path below
        the folder of that other image, "" where there is none.
    """
    import pandas as pd

    facts = reading.facts
    blank = facts["contrast"].to_numpy() < BLANK
    content = facts["content"].to_numpy()
    _, first, group = np.unique(content, return_index=True, return_inverse=True)
    duplicate_of = np.where(first[group] < np.arange(len(content)), first[group], -1)
    near = first_alike(_signs(facts["hash"].to_numpy()), 1 - 2 * (SAME_HASH + 0.5) / 64, skip=blank)
    for features in list(reading.features.values())[:1]:
        by_features = first_alike(features - features.mean(axis=0), SAME_FEATURES, skip=blank)
        near = np.where((near < 0) | ((by_features >= 0) & (by_features < near)), by_features, near)
    near = np.where(duplicate_of >= 0, -1, near)
    return pd.DataFrame(
        {
            "blurred": (facts["sharpness"].to_numpy() < BLURRED) & ~blank,
            "blank": blank,
            "tiny": facts[["width", "height"]].min(axis=1).to_numpy() < TINY,
            "duplicate_of": duplicate_of,
            "near_duplicate_of": near,
            "like": [
                reading.below(reading.files[other]) if other >= 0 else "" for other in np.maximum(duplicate_of, near)
            ],
        }
    )


def flags(row: Any) -> str:
    """A row of `audit` in words, such as "blurred; near duplicate of cats/3.jpg"; "" where nothing is odd.

    Args:
        row: from `iterrows` or `itertuples`.
    """
    words = [name for name in ("blurred", "blank", "tiny") if getattr(row, name)]
    if row.duplicate_of >= 0:
        words.append(f"duplicate of {row.like}")
    elif row.near_duplicate_of >= 0:
        words.append(f"near duplicate of {row.like}")
    return "; ".join(words)


def first_alike(vectors: np.ndarray, at_least: float, *, skip: np.ndarray) -> np.ndarray:
    """For each of n vectors (n, d) the row of the first one before it with a cosine of at least this much, or -1: (n,).

    Args:
        vectors: n of them.
        at_least: the cosine.
        skip: (n,) bool, those that are compared with none.
    """
    units = joined([vectors])
    found = np.full(len(units), -1)
    for start in range(0, len(units), CHUNK):
        end = min(start + CHUNK, len(units))
        alike = units[start:end] @ units[:end].T >= at_least  # (chunk, end)
        alike &= np.arange(end) < np.arange(start, end)[:, None]
        alike &= ~(skip[:end] | skip[start:end, None])
        found[start:end] = np.where(alike.any(1), alike.argmax(1), -1)
    return found


def _signs(hashes: np.ndarray) -> np.ndarray:
    """Bits of hashes (n) as −1 and 1: (n, 64). The cosine of two is 1 − 2 b / 64 where b bits differ."""
    bits = (hashes[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    return bits.astype(np.float32) * 2 - 1
