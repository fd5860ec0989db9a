"""Runs of different settings as the restarts of one Turtle: side by side on the same batches, in one matrix product."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from labkit._scales import block_of
from labkit._stored import Space
from labkit.turtle.estimator import Turtle
from labkit.turtle.parallel import Whole
from labkit.turtle.prediction import found_clusters, task_encoder
from labkit.turtle.solver import TurtleSolver
from labkit.turtle.streaming import SolverSpace

OF_EACH_ROW = ("outer_lr", "inner_lr", "entropy_weight")  # what restarts of one solver can differ in


class SideBySide(Turtle):
    """A Turtle whose restarts have settings of their own, `OF_EACH_ROW`; `run` gives each as a Turtle of one restart.

    Attributes:
        labelings_: cluster of each training sample in each run, (R, n) int32.
        agreement_: how often the spaces' own task encoders choose the cluster that their mean chooses, (R,).
    """

    def fit_runs(self, spaces: Any, runs: Sequence[Mapping[str, Any]]) -> SideBySide:
        """Fit all runs; each maps settings to its values, of which only those in `OF_EACH_ROW` may differ.

        Raises:
            FitError: as `Turtle.fit`.
        """
        self._runs, self.n_restarts, self.race = list(runs), len(runs), False
        self.fit(spaces)
        return self

    def run(self, row: int) -> Turtle:
        """One of the runs as a fitted Turtle."""
        settings = {name: getattr(self, name) for name in Turtle().get_params()}
        turtle = Turtle(**{**settings, **self._runs[row], "n_restarts": 1})
        one = slice(row, row + 1)
        turtle.n_features_in_, turtle.columns_, turtle.means_ = self.n_features_in_, self.columns_, self.means_
        turtle.best_restart_ = 0
        turtle.restarts_ = [(weight[one], bias[one]) for weight, bias in self.restarts_]
        turtle.labels_ = self.labelings_[row].astype(np.int64)
        turtle.confidence_, turtle.n_found_ = self.confidence_[one], self.n_found_[one]
        turtle.prior_, turtle.n_clusters_ = self.prior_, self.n_clusters_
        turtle.history_ = {name: values[:, one] for name, values in self.history_.items()}
        evenness = turtle.history_["entropy"] if "entropy" in turtle.history_ else -turtle.history_["divergence"]
        turtle.history_["outer_loss"] = turtle.history_["inner_loss"] - turtle.entropy_weight * evenness
        return turtle

    def _solver(self, features: Sequence[SolverSpace], generator: torch.Generator, **changes: Any) -> TurtleSolver:
        solver = super()._solver(features, generator, **changes)
        values = {name: [float(run.get(name, getattr(self, name))) for run in self._runs] for name in OF_EACH_ROW}
        solver.set_each(**{name: torch.tensor(of_each, dtype=torch.float64) for name, of_each in values.items()})
        return solver

    def _choose_restart(self, spaces: Sequence[Space], parts: Whole) -> None:
        """Score all runs instead; the choice is the sweep's."""
        n, done = len(spaces[0]), 0
        self.labelings_ = np.empty((self.n_restarts, n), np.int32)
        confidence, agreement = torch.zeros(2, self.n_restarts, dtype=torch.float64)
        encoders = [task_encoder(self, k, slice(None)) for k in range(len(spaces))]
        block = block_of(sum(space.shape[1] for space in spaces) + len(spaces) * self.restarts_[0][1].size)
        for rows in zip(*(space.split(block) for space in spaces), strict=True):
            probs = torch.stack([encoder(z) for encoder, z in zip(encoders, rows, strict=True)])  # (K, R, C, b)
            highest, chosen = probs.mean(0).max(1)
            confidence += highest.cpu().double().sum(-1)
            agreement += (probs.argmax(2) == chosen).cpu().double().mean(0).sum(-1)
            self.labelings_[:, done : done + len(rows[0])] = chosen.cpu().numpy()
            done += len(rows[0])
        self.n_found_ = found_clusters(self.labelings_, self.prior_, parts)
        self.confidence_, self.agreement_ = confidence.numpy() / n, agreement.numpy() / n
