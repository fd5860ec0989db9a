"""Feature spaces side by side, as everything that compares images of a folder sees them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from labkit._scales import unit_rows

SHORTEST = 1e-12  # of a feature vector: what is shorter is noise about zero, and stays short


def joined(spaces: Iterable[np.ndarray]) -> np.ndarray:
    """Spaces (n, d_s) beside one another, each L2-normalized: (n, sum of d_s)."""
    return np.hstack([unit_rows(space, SHORTEST) for space in spaces])
