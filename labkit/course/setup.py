"""What a notebook works with: setup, exercises, bands, the running results table, and figures with alt text.

Everything printed here is the same on every machine, so that the outputs of stored notebooks can be compared exactly;
numbers go to rich displays (HTML, images), which are not compared.
"""

from __future__ import annotations

import base64
import html
import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from labkit import pocket
from labkit._files import own_dir, user_path
from labkit._inputs import is_whole
from labkit.course import exercises
from labkit.course.exercises import TODO
from labkit.course.profiles import Profile, headless, pick_profile
from labkit.course.results import METHODS, METRICS, ROW_KEYS, append_result, read_results, summarize
from labkit.errors import LabkitError, quote

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from PIL import Image

    from labkit.data.images import ImageDataset
    from labkit.data.schema import Manifest
    from labkit.spaces.backbones import Backbone

__all__ = ["TODO", "Lab", "check", "hint", "setup", "show"]

T = TypeVar("T")


# ----------------------------------------------------------------------------------------------------------------- lab


def setup(profile: str = "auto", *, notebook: str = "") -> Lab:
    """Start a notebook: choose the profile, set the style of all figures, and open the running results table.

    Args:
        profile: "pocket", "photos", "standard", "paper" or "auto" (see `profiles.pick_profile`).
        notebook: the notebook's name, such as "02_representation_spaces"; its results are kept under it.

    Raises:
        LabkitError: there is no such profile.
        DataError: the user has no home folder, and $LABKIT_RESULTS names no file.
    """
    import matplotlib as mpl

    from labkit import plots
    from labkit.devices import pick_device

    chosen = pick_profile(profile)
    mpl.rcParams.update(plots.STYLE)
    given = os.environ.get("LABKIT_RESULTS")
    # the user's own folder: $LABKIT_CACHE may be one that a class shares, and cannot write to
    results_path = user_path(given) if given else own_dir() / "results" / f"{chosen.name}.jsonl"
    lab = Lab(chosen, str(pick_device()), notebook, results_path)
    print(f"labkit is ready. Profile {chosen.name}: {chosen.summary}.")
    return lab


@dataclass
class Lab:
    """What a notebook works with: the profile's data and features, and the results table of the whole series.

    Attributes:
        profile: the chosen `Profile`.
        device: where models run, "cuda", "mps" or "cpu".
        notebook: the name that results are kept under.
        results_path: JSON lines, one result or band each; a later line replaces an earlier one with the same key.
    """

    profile: Profile
    device: str
    notebook: str
    results_path: Path
    _backbones: dict[str, Backbone] = field(default_factory=dict, repr=False)

    def manifest(self, dataset: str) -> Manifest:
        """The manifest of a dataset."""
        from labkit.data.manifests import load_manifest

        return load_manifest(dataset)

    def images(self, dataset: str, split: str = "train") -> ImageDataset:
        """The images of a split."""
        from labkit.data.datasets import load_dataset

        return load_dataset(dataset, split)

    def thumbnails(self, dataset: str, split: str = "train", *, side: int = 128) -> list[Image.Image]:
        """The images of a split, to show: all in memory, none larger than `side` pixels, so that photographs fit."""
        shown, images = [], self.images(dataset, split)
        for i in range(len(images)):
            shown.append(images[i][0].copy())  # thumbnail() changes the image itself
            shown[-1].thumbnail((side, side))
        return shown

    def some_rows(self, dataset: str, n: int, split: str = "train") -> np.ndarray:
        """Up to n rows of a split to look at, not class by class: the first, or random ones where they are sorted."""
        labels = self.labels(dataset, split)
        is_sorted = bool((np.diff(labels) >= 0).all())
        return (np.random.default_rng(0).permutation(len(labels)) if is_sorted else np.arange(len(labels)))[:n]

    def labels(self, dataset: str, split: str = "train") -> np.ndarray:
        """True labels (n,), int64; for evaluation only."""
        return self.images(dataset, split).labels

    def backbone(self, name: str) -> Backbone:
        """A backbone at the profile's image size, loaded once."""
        from labkit.spaces.backbones import load_backbone

        if name not in self._backbones:
            has_own = name in ("hog", "pixels", *pocket.NAMES)  # a size that it was made for
            size = None if has_own else self.profile.image_size
            self._backbones[name] = load_backbone(name, image_size=size, device=self.device)
        return self._backbones[name]

    def features(self, dataset: str, backbone: str, split: str = "train") -> np.ndarray:
        """Features (n, d) of a split through one backbone; computed once, then read from the cache."""
        from labkit.spaces.features import extract_features

        return extract_features(self.backbone(backbone), self.manifest(dataset), split=split, progress=not headless())

    def spaces(self, dataset: str, names: Sequence[str] | None = None, split: str = "train") -> list[np.ndarray]:
        """One array (n, d_k) of features for each backbone; `names` defaults to all of the profile's."""
        return [self.features(dataset, name, split) for name in names or self.profile.backbones]

    def progress(self, iterable: Iterable[T], desc: str = "") -> Iterable[T]:
        """The iterable behind a progress bar, which is hidden when headless."""
        from tqdm.auto import tqdm

        return tqdm(iterable, desc=desc, disable=headless())

    # results and bands

    def record(
        self,
        *,
        dataset: str,
        split: str,
        method: str,
        spaces: Sequence[str],
        metric: str,
        value: float,
        variant: str = "",
        seed: int | None = None,
        selected_without_labels: bool = False,
        labels_used: bool = False,
        seconds: float | None = None,
    ) -> None:
        """Add one row to the results of the series; it replaces a row that differs only in value and seconds.

        Args:
            dataset, split: what was evaluated.
            method: one of METHODS.
            spaces: names of the backbones whose features were used.
            metric: one of METRICS.
            value: a fraction.
            variant: tells apart forms of one method, such as K-means on "normalized" features.
            seed: of the run, if it has one.
            selected_without_labels: this is the label-free choice among several runs.
            labels_used: labels were used to fit.
            seconds: how long the fit took.

        Raises:
            LabkitError: an unknown method or metric, or a value that is not finite.
            DataError: something other than text or a number was given, or the results file cannot be written.
        """
        if method not in METHODS:
            raise LabkitError(f"method is {quote(method)}. Expected one of {', '.join(METHODS)}.")
        if metric not in METRICS:
            raise LabkitError(f"metric is {quote(metric)}. Expected one of {', '.join(METRICS)}.")
        fraction = _number("value", value)
        if not -1 <= fraction <= 1:
            raise LabkitError(f"value is {quote(value)}. Expected a fraction (0.72, not 72); only ari can be below 0.")
        if isinstance(spaces, str):
            raise LabkitError(
                f"spaces is the text {quote(spaces)}. Expected a list of backbone names: [{quote(spaces)}]."
            )
        if not isinstance(spaces, list | tuple) or not all(isinstance(name, str) for name in spaces):
            raise LabkitError(f"spaces is {quote(spaces)}. Expected a list of backbone names.")
        for flag, given in (("selected_without_labels", selected_without_labels), ("labels_used", labels_used)):
            if not isinstance(given, bool | np.bool_):
                raise LabkitError(f"{flag} is {quote(given)}. Expected True or False.")
        if seed is not None and not is_whole(seed, 0, 2**63):
            raise LabkitError(f"seed is {quote(seed)}. Expected a whole number from 0 on, or None.")
        row = {
            "notebook": self.notebook,
            "dataset": dataset,
            "split": split,
            "method": method,
            "variant": variant,
            "spaces": list(spaces),
            "metric": metric,
            "value": fraction,
            "seed": None if seed is None else int(seed),
            "selected_without_labels": bool(selected_without_labels),
            "labels_used": bool(labels_used),
            "seconds": None if seconds is None else round(_number("seconds", seconds), 3),
            "profile": self.profile.name,
        }
        append_result(self.results_path, "row", row)

    def band(self, name: str, value: float, low: float, high: float) -> None:
        """Print whether a number lies within the band where it was measured before; the number itself is shown as HTML.

        A band is a promise for the pocket profile; other profiles only show the number.

        Raises:
            LabkitError: one of the three is not a number.
            DataError: the results file cannot be written.
        """
        value, low, high = _number("value", value), _number("low", low), _number("high", high)
        if not isinstance(name, str) or low > high:
            raise LabkitError(f"the band is {quote((name, low, high))}. Expected a name, and low up to high.")
        if self.profile.name != "pocket":
            verdict, text = "no band", f"no band for profile {self.profile.name}"
        else:
            verdict = "within" if low <= value <= high else "outside"
            text = f"{'within' if verdict == 'within' else 'OUTSIDE'} {_digits(low)} to {_digits(high)}"
        print(f"{name}: {text}")
        _display_html(f"{html.escape(name)}: <b>{value:.4f}</b>")
        band = {
            "notebook": self.notebook,
            "name": name,
            "value": value if math.isfinite(value) else None,  # JSON has no NaN
            "low": low,
            "high": high,
            "verdict": verdict,
            "profile": self.profile.name,
        }
        append_result(self.results_path, "band", band)

    def results(self) -> pd.DataFrame:
        """All rows of this profile so far, from every notebook of the series; empty before the first."""
        import pandas as pd

        rows, _ = read_results(self.results_path)
        return pd.DataFrame([row for row in rows if row["profile"] == self.profile.name], columns=list(ROW_KEYS))

    def show_results(self, dataset: str | None = None, metric: str = "accuracy") -> None:
        """Show the running results table, of one dataset or of all."""
        rows = self.results()
        rows = rows[(rows["metric"] == metric) & (rows["dataset"] == dataset if dataset else True)]
        _display_html(summarize(rows).to_html(index=False, border=0, na_rep=""))


# ------------------------------------------------------------------------------------------------ exercises and figures


def check(exercise_id: str, attempt: Any) -> None:
    """Check an attempt at an exercise and print the verdict; a wrong answer never raises.

    Args:
        exercise_id: such as "02.1".
        attempt: the learner's function, or plain value where the exercise asks for one.
    """
    print(exercises.get(exercise_id).grade(attempt))


_hints_shown: Counter[str] = Counter()  # in this kernel: a fresh one begins with the first hint


def hint(exercise_id: str) -> None:
    """Print the next of an exercise's three hints; after the third it says where the solution is."""
    hints = exercises.get(exercise_id).hints
    shown = _hints_shown[exercise_id]
    _hints_shown[exercise_id] += 1
    if shown < len(hints):
        print(f"Hint {shown + 1} of {len(hints)} for {exercise_id}: {hints[shown]}")
    else:
        print(f"No more hints for {exercise_id}: the solution is folded below the exercise.")


def show(figure: Figure, *, alt: str) -> None:
    """Display a figure with a text for those who cannot see it, then close it.

    Args:
        figure: from `labkit.plots`.
        alt: what the figure shows and what to conclude from it.

    Raises:
        LabkitError: `alt` is empty.
    """
    import matplotlib.pyplot as plt
    from IPython.display import display

    from labkit import plots

    if not isinstance(alt, str) or not alt.strip():
        raise LabkitError(f"alt is {quote(alt)}. Expected a sentence that says what the figure shows.")
    png = plots.to_png(figure)
    plt.close(figure)
    # Rendered here, not by the front end: works for figures made without pyplot, and the text is always the same.
    data = {"image/png": base64.b64encode(png).decode(), "text/plain": "<Figure>"}
    display(data, raw=True, metadata={"image/png": {"alt": alt}})


def _display_html(text: str) -> None:
    from IPython.display import display

    display({"text/html": text, "text/plain": "<HTML>"}, raw=True)


def _number(name: str, value: Any) -> float:
    try:
        if isinstance(value, str | bytes | bool):  # which float() would read
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise LabkitError(f"{name} is {quote(value)}. Expected a number.") from error


def _digits(number: float) -> str:
    """At least two decimals, more where the number has them: 0.7 -> "0.70", 0.725 -> "0.725"."""
    return np.format_float_positional(number, min_digits=2)
