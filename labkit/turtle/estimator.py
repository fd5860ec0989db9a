"""The estimator `Turtle`: fit on feature spaces without labels, choose a restart, predict, save and load."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils.validation import validate_data

from labkit._inputs import column_names, expect_columns, expect_fitted, is_whole, named_spaces
from labkit._scales import refuse_far_rows
from labkit._stored import Space, as_spaces
from labkit.devices import explain_out_of_memory, pick_device
from labkit.errors import CollapseWarning, FitError, quote
from labkit.turtle.counting import estimate_n_clusters
from labkit.turtle.parallel import Whole, agreeing, part_of
from labkit.turtle.prediction import keep_best, labelings_of
from labkit.turtle.priors import estimated, shares_of
from labkit.turtle.published import read_published
from labkit.turtle.racing import race
from labkit.turtle.saved import read_turtle, write_turtle
from labkit.turtle.settings import check_settings
from labkit.turtle.solver import TurtleSolver
from labkit.turtle.streaming import SolverSpace, solver_inputs


class Turtle(ClusterMixin, BaseEstimator):
    """Cluster with TURTLE (Gadetsky et al., ICML 2024), scikit-learn style: `fit` never sees a label.

    Args:
        n_clusters: C, the number of classes to look for; "auto" asks `labkit.estimate_n_clusters`.
        n_restarts: R, runs from different starts, side by side on the same batches. Kept is the labeling that is
            most confident, among those that use the most clusters (see `confidence_` and `n_found_`).
        race: stop restarts of large outer loss early: half of them after a quarter of the steps, half of the others
            after two fifths.
        n_outer_steps: T, steps of the task encoder.
        n_inner_steps: M, steps of the linear classifiers for each outer step.
        outer_lr, inner_lr: learning rates of the two Adam optimizers.
        inner_start: "cold" redraws the classifiers at every outer step, "warm" continues from the last ones.
        entropy_weight: γ, how strongly clusters of other sizes than those of `prior` are avoided.
        prior: how large the classes are. "even" is the published objective: all alike. An array of C shares, such as
            `labkit.turtle.power_law` gives, is the share of each cluster. "estimated" finds out without labels whether
            classes are uneven, and how large they are: it takes three to five times as long, errs both ways (README),
            and ends with one restart where it finds them uneven (see `labkit.turtle.priors`).
        batch_size: samples in a step, drawn without replacement; None takes all. Of more samples than all steps
            together can draw, a random part is used.
        n_components: each space is rotated to its directions of largest variance, and only so many are kept: several
            times faster where features are many, and as accurate on average on the embedded datasets. None keeps all
            directions.
        whitening: α, from 0 (none) to 1 (all): in the directions that are kept a standard deviation s becomes
            s^(1 − α), before the whole space is rescaled to `feature_scale`. Where few directions have most of the
            variance the classifiers see little else in their few steps; α lets the others have a say.
        feature_scale: each space is centered and scaled to this root mean square norm, because Adam's first steps have
            the same length whatever the gradient, so the method depends on the scale of the features. None leaves
            the scale as it is.
        dtype: of the features in the matrix products: "auto" (bfloat16 where the hardware multiplies it), "float32",
            "bfloat16", or "float64" (then everything is float64).
        device: "auto" (CUDA, else MPS, else CPU) or a torch device.
        random_state: int, NumPy RandomState or None, as in scikit-learn.
        progress: show a progress bar.

    Attributes:
        labels_: cluster of each training sample, (n,).
        n_clusters_: C, as it was given or estimated.
        prior_: shares of the clusters that the fit asked for, (C,).
        restarts_: weight (R, C, d_k) and bias (R, C) of every space's task encoder, for features as they were given;
            in float64, which holds them whatever the scale of the features.
        means_: mean (d_k,) of every space, which predictions subtract, so that a large offset costs no precision.
        confidence_: mean over the training set of the labeling's largest probability, (R,).
        n_found_: clusters that hold at least a tenth of their share (see `prior_`) of the training set, (R,).
        best_restart_: which restart was kept.
        history_: arrays (T, R): "inner_loss" (cross-entropy of the fitted classifiers), "entropy" (of the mean
            labelings), both summed over spaces, and "outer_loss" (inner_loss − γ · entropy); NaN after a restart was
            stopped. With other shares than even ones, "divergence" (of the mean labelings from them) is in the place of
            "entropy", and the outer loss is inner_loss + γ · divergence.
        n_features_in_: features of all spaces together.
        columns_: names of the columns of every space that came as a frame, else None; predictions expect the same.

    `Turtle.official` gives the paper's settings. The defaults were chosen by their accuracy on fashion-mini and digits,
    so what they reach there is a little optimistic; they are a starting point for other data, not a promise.
    """

    def __init__(
        self,
        n_clusters: int | str = 8,
        *,
        n_restarts: int = 8,
        race: bool = True,
        n_outer_steps: int = 250,
        n_inner_steps: int = 3,
        outer_lr: float = 5e-3,
        inner_lr: float = 5e-3,
        inner_start: str = "warm",
        entropy_weight: float = 10.0,
        prior: str | ArrayLike = "even",
        batch_size: int | None = 2000,
        n_components: int | None = 128,
        whitening: float = 0.5,
        feature_scale: float | None = 8.0,
        dtype: str = "auto",
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        progress: bool = False,
    ) -> None:
        self.n_clusters = n_clusters
        self.n_restarts = n_restarts
        self.race = race
        self.n_outer_steps = n_outer_steps
        self.n_inner_steps = n_inner_steps
        self.outer_lr = outer_lr
        self.inner_lr = inner_lr
        self.inner_start = inner_start
        self.entropy_weight = entropy_weight
        self.prior = prior
        self.batch_size = batch_size
        self.n_components = n_components
        self.whitening = whitening
        self.feature_scale = feature_scale
        self.dtype = dtype
        self.device = device
        self.random_state = random_state
        self.progress = progress

    @classmethod
    def official(cls, n_clusters: int, **changes: Any) -> Turtle:
        """The settings of the authors' published code: one run, 6,000 steps, batches of 10,000, features as given."""
        settings: dict[str, Any] = {
            "n_restarts": 1,
            "n_outer_steps": 6000,
            "n_inner_steps": 10,
            "outer_lr": 1e-3,
            "inner_lr": 1e-3,
            "inner_start": "cold",
            "entropy_weight": 10.0,
            "batch_size": 10000,
            "n_components": None,
            "whitening": 0.0,
            "feature_scale": None,
            "dtype": "float32",
            "random_state": 42,
        }
        return cls(n_clusters, **{**settings, **changes})

    @classmethod
    def from_published(cls, path: str | os.PathLike[str], **changes: Any) -> Turtle:
        """A labeling that the authors released (`turtle_tasks/2space/…/dtd.pt`), to predict with.

        It expects the spaces that it was found in, features as they are (see `labkit.turtle.published`).

        Raises:
            CheckpointError: the file is missing, damaged, or holds something else than weights and biases.
        """
        return read_published(cls, path, **changes)

    # ------------------------------------------------------------------------------------------------ fit and predict

    def fit(self, X: Any, y: object = None) -> Turtle:
        """Find the labeling.

        Args:
            X: one space (n, d), or a list of K spaces (n, d_k) whose rows are the same samples. A np.memmap and
                `labkit.spaces.shards.ShardedFeatures` stay on disk; what the steps draw of them, transformed, is held
                where it takes no more than a quarter of the free memory, else each batch is read anew.
            y: ignored; there for scikit-learn's pipelines.

        Raises:
            FitError: the spaces or the settings cannot be fitted; the message says why and what to do.
        """
        spaces = self._read_spaces(X, reset=True)
        return self._fit(X, spaces, Whole(len(spaces[0])))

    def fit_parts(self, X: Any, y: object = None) -> Turtle:
        """Find the labeling of samples that are divided among processes, as if one process held all of them.

        Every process calls it, with its own part of the samples; `accelerate launch` and torchrun start processes
        (see `labkit.turtle.parallel`). All end with the same task encoders; `labels_` are those of the own samples. In
        a process alone it is `fit`.

        Args:
            X: as in `fit`, the samples of this process; `labkit.turtle.own_part` takes them from all.
            y: ignored.

        Raises:
            FitError: as `fit`, in all processes where one of them cannot go on.
        """
        device = pick_device(self.device)
        with agreeing(device):
            spaces = self._read_spaces(X, reset=True)
        parts = part_of(spaces, device)
        if parts.processes > 1 and isinstance(self.n_clusters, str):
            raise FitError(
                f"n_clusters is {quote(self.n_clusters)}, with {parts.processes} processes. Expected a whole number: "
                "labkit.estimate_n_clusters finds one from some thousand samples."
            )
        return self._fit(X, spaces, parts)

    def _fit(self, X: Any, spaces: Sequence[Space], parts: Whole) -> Turtle:
        check_settings(self, parts.n)
        self.n_clusters_ = self._count(X)
        shares = shares_of(self.prior, self.n_clusters_)
        advice = (
            f"Lower batch_size (now {self.batch_size or 'all samples'}) or n_restarts (now {self.n_restarts}); "
            f"n_components (now {self.n_components or 'all'}) says how many features are kept of every space."
        )
        with explain_out_of_memory(advice):
            try:
                self._optimize(spaces, shares, parts)
            except FitError:
                refuse_far_rows(spaces)
                raise
            self._choose_restart(spaces, parts)
        return self

    def _count(self, X: Any) -> int:
        """C, estimated where it is not given."""
        if self.n_clusters != "auto":
            return int(self.n_clusters)
        return estimate_n_clusters(
            X, random_state=self.random_state, device=self.device, progress=self.progress
        ).estimate

    def _optimize(self, spaces: Sequence[Space], shares: np.ndarray | None, parts: Whole) -> None:
        """Run the solver on the transformed spaces; sets `restarts_`, `means_`, `prior_` and `history_`."""
        features, transforms, generator, drawn = solver_inputs(self, spaces, parts)
        prior = None if shares is None else torch.from_numpy(shares)
        new_solver = functools.partial(self._solver, features, generator, parts=drawn)
        solver = new_solver(prior=prior)
        encoder, records = race(solver, self.n_outer_steps, all_to_the_end=not self.race, progress=self.progress)
        if isinstance(self.prior, str) and self.prior == "estimated":
            found = estimated(solver, new_solver, self.n_outer_steps, progress=self.progress)
            if found is not None:
                encoder, records, shares = found
        if not (solver.is_finite() and encoder.flat.isfinite().all()):
            raise FitError(
                f"the weights are not finite after {self.n_outer_steps} outer steps. Expected steps that stay within "
                f"the range of numbers: lower outer_lr (now {self.outer_lr}), inner_lr (now {self.inner_lr}) or "
                f"entropy_weight (now {self.entropy_weight})."
            )
        inner_loss, evenness = records.cpu().numpy().swapaxes(0, 1)
        other = {"entropy": evenness} if shares is None else {"divergence": -evenness}
        outer_loss = inner_loss - self.entropy_weight * evenness
        self.history_ = {"inner_loss": inner_loss, **other, "outer_loss": outer_loss}
        self.prior_ = np.full(self.n_clusters_, 1 / self.n_clusters_) if shares is None else shares
        self.means_ = [transform.mean.numpy() for transform in transforms]
        self.restarts_ = []
        for k, transform in enumerate(transforms):
            weight, bias = encoder.normalized_weight(k).cpu(), encoder.biases[k].cpu()
            self.restarts_.append(tuple(array.numpy() for array in transform.fold(weight, bias)))

    def _solver(self, features: Sequence[SolverSpace], generator: torch.Generator, **changes: Any) -> TurtleSolver:
        """The solver of this estimator's settings, with changes, before its first step."""
        settings: dict[str, Any] = {
            "n_restarts": self.n_restarts,
            "entropy_weight": float(self.entropy_weight),
            "n_inner_steps": self.n_inner_steps,
            "outer_lr": float(self.outer_lr),
            "inner_lr": float(self.inner_lr),
            "inner_start": self.inner_start,
            "batch_size": self.batch_size,
        }
        return TurtleSolver(features, self.n_clusters_, generator, **{**settings, **changes})

    def predict(self, X: Any, *, restart: int | None = None) -> np.ndarray:
        """Cluster of each sample, (n,) int64; X as in `fit`, `restart` other than the one that was kept."""
        return np.concatenate([probs.argmax(1) for probs in self._labelings(X, restart)])

    def predict_proba(self, X: Any, *, restart: int | None = None) -> np.ndarray:
        """The labeling τ(x), (n, C); X as in `fit`, `restart` other than the one that was kept.

        Raises:
            FitError: X has other spaces than those of the fit or is not finite, or there is no such restart.
        """
        return np.concatenate(list(self._labelings(X, restart)))

    def _labelings(self, X: Any, restart: int | None) -> Iterator[np.ndarray]:
        """τ of some samples after the other, each (b, C)."""
        expect_fitted(self, "restarts_")
        chosen, n_restarts = self.best_restart_ if restart is None else restart, len(self.confidence_)
        if not is_whole(chosen, 0, n_restarts - 1):
            raise FitError(f"restart is {quote(restart)}. Expected a whole number from 0 to {n_restarts - 1}, or None.")
        spaces = self._read_spaces(X, reset=False)
        labelings = labelings_of(self, spaces, slice(int(chosen), int(chosen) + 1))
        return (probs[0].T.numpy() for probs in labelings)

    def _choose_restart(self, spaces: Sequence[Space], parts: Whole) -> None:
        """Keep the most confident labeling among those that use the most clusters."""
        keep_best(self, spaces, parts)
        most = self.n_found_[self.best_restart_]
        if most < self.n_clusters_:
            refuse_far_rows(spaces)
            warnings.warn(
                f"the labeling collapsed: of {self.n_clusters_} clusters at most {most} hold a tenth of their share, "
                f"in the best of {len(self.n_found_)} restarts. Raise entropy_weight (now {self.entropy_weight}) or "
                "n_outer_steps, ask for fewer clusters, or look whether the spaces separate that many classes.",
                CollapseWarning,
                stacklevel=4,
            )

    # ------------------------------------------------------------------------------------------------ checks of input

    def _read_spaces(self, X: Any, *, reset: bool) -> list[Space]:
        """Check X and bring it to a list of K spaces (n, d_k) that share its memory, or its files, where they can."""
        named = named_spaces(X)
        spaces = as_spaces(named)
        dims = [space.shape[1] for space in spaces]
        if "X" in named:
            try:
                validate_data(self, X if column_names(X) else spaces[0], reset=reset, skip_check_array=True)
            except ValueError as error:
                raise FitError(str(error)) from error
        columns = [column_names(space) for space in named.values()]
        if reset:
            self.n_features_in_, self.columns_ = sum(dims), columns
        elif dims != [weight.shape[-1] for weight, _ in self.restarts_]:
            expected = [weight.shape[-1] for weight, _ in self.restarts_]
            raise FitError(f"the spaces have {dims} features. Expected {expected}, in the order given to fit.")
        else:
            for name, found, fitted in zip(named, columns, self.columns_, strict=False):
                expect_columns(name, found, fitted)
        return spaces

    # -------------------------------------------------------------------------------------------------- save and load

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write settings and everything fitted to one safetensors file, atomically.

        Raises:
            CheckpointError: the file cannot be written.
        """
        expect_fitted(self, "restarts_")
        write_turtle(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Turtle:
        """Read what `save` wrote; the device is chosen anew where it was "auto".

        Raises:
            CheckpointError: the file is missing, damaged, of a newer labkit, or something else.
        """
        return read_turtle(cls, path)
