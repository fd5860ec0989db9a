"""Choosing among fits without labels: thresholds and other settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from numpy.typing import ArrayLike
from sklearn.base import clone

from labkit.data.images import ImageDataset
from labkit.errors import FitError, quote
from labkit.must.estimator import MUST
from labkit.spaces.backbones import Backbone, load_backbone

if TYPE_CHECKING:
    import pandas as pd

CRITERIA = ("mutual_information", "agreement", "confidence", "marginal_entropy", "kept")


def compare(
    candidates: Mapping[str, MUST],
    images: ImageDataset,
    *,
    initial_labels: ArrayLike | None = None,
    criterion: str = "mutual_information",
) -> tuple[str, dict[str, MUST], pd.DataFrame]:
    """Fit several settings on the same images and name the best by a criterion that needs no label.

    "mutual_information" is the entropy of the mean prediction minus the mean entropy of a prediction (Bridle, Heading
    and MacKay, NIPS 1991): high when single images are told apart with confidence and all classes are in use. It trusts
    the teacher, so it cannot tell when the teacher is confidently wrong. The number of classes should be the same.

    Args:
        candidates: estimators to fit, by name; they are cloned, and share their backbone.
        images: images, as `MUST.fit` takes them.
        initial_labels: as `MUST.fit` takes them.
        criterion: a column of the table; the highest wins.

    Returns:
        The name of the best, all fitted estimators by name, and a table with a row for each: what its kept epoch's
        history says.

    Raises:
        FitError: there are no candidates, or the criterion is none.
    """
    import pandas as pd

    if not isinstance(candidates, Mapping) or not all(isinstance(must, MUST) for must in candidates.values()):
        raise FitError(f"candidates is {quote(candidates)}. Expected a MUST for each name, in a dictionary.")
    if not candidates:
        raise FitError("there is nothing to compare. Expected at least one estimator by name.")
    if criterion not in CRITERIA:
        raise FitError(f"criterion is {quote(criterion)}. Expected one of {', '.join(CRITERIA)}.")
    loaded: dict[tuple[str, str], Backbone] = {}  # a model that several name is loaded once
    fitted = {}
    for name, must in candidates.items():
        copy = clone(must)
        if isinstance(must.backbone, str):
            key = (must.backbone, must.device)
            loaded[key] = loaded[key] if key in loaded else load_backbone(must.backbone, device=must.device)
            copy.set_params(backbone=loaded[key])
        fitted[name] = copy.fit(images, initial_labels=initial_labels)
    rows = [{name: must.history_[must.best_epoch_ - 1][name] for name in CRITERIA} for must in fitted.values()]
    table = pd.DataFrame(rows, index=pd.Index(fitted, name="candidate"))
    return str(table[criterion].idxmax()), fitted, table
