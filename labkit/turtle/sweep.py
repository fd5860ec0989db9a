"""Settings without labels: many runs of TURTLE, each labeling scored by criteria that need no class.

The protocol is the TURTLE paper's: a sweep over inner and outer learning rate and start, whose labelings are compared
by how well linear classifiers predict them on samples they have not seen (section 4 of Gadetsky et al., ICML 2024).
The other criteria, the grids and the default are ours. The criteria, of which more is better:

generalization  cross-validated accuracy of a logistic regression on the labeling, mean of folds and spaces
consensus       mean normalized mutual information with all other labelings of the sweep; its largest is the medoid
stability       the same with the other restarts of the same setting
silhouette      mean silhouette of a sample, mean of the spaces
confidence      mean largest probability of the labeling
agreement       how often the spaces' own task encoders choose the cluster that their mean chooses
fit             minus the inner loss, mean of the last 20 outer steps
combined        mean rank by consensus and by confidence, from which the part that each setting explains is taken out
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.model_selection import ParameterGrid

from labkit._inputs import LARGEST_COUNT, is_whole, named_spaces
from labkit._scales import refuse_far_rows
from labkit._stored import as_spaces
from labkit.devices import explain_out_of_memory, fast_dtype, pick_device
from labkit.errors import CollapseWarning, FitError, quote
from labkit.evaluation.metrics import clustering_accuracy
from labkit.turtle.counting import estimate_n_clusters
from labkit.turtle.criteria import consensus, mean_rank, pairwise_nmi, silhouette, stability, without_settings
from labkit.turtle.estimator import Turtle
from labkit.turtle.probe import cross_validated_accuracy
from labkit.turtle.rows import OF_EACH_ROW, SideBySide
from labkit.turtle.settings import check_settings, random_state_of
from labkit.turtle.transform import FeatureTransform, transformed

if TYPE_CHECKING:
    import pandas as pd

Grid = Mapping[str, Iterable[Any]] | Sequence[Mapping[str, Iterable[Any]]]

DEFAULT_GRID: dict[str, list[Any]] = {
    "outer_lr": [2.5e-3, 5e-3, 1e-2],
    "inner_lr": [2.5e-3, 5e-3, 1e-2],
    "entropy_weight": [3.0, 10.0],
}
# The paper's axes; the values, around its 1e-3, are ours. For its features as they are, 6,000 steps and all else see
# `Turtle.official`, whose settings go into `sweep` beside the grid.
PAPER_GRID: dict[str, list[Any]] = {
    "outer_lr": [1e-4, 1e-3, 1e-2],
    "inner_lr": [1e-4, 1e-3, 1e-2],
    "inner_start": ["cold", "warm"],
}
CRITERIA = ("combined", "generalization", "consensus", "stability", "silhouette", "confidence", "agreement", "fit")
NOT_SWEPT = ("n_clusters", "n_restarts", "race", "random_state", "device", "progress")
# Of the logits (R, C, B) of runs side by side: on a CPU what its caches hold (more is half as fast), else 1 GiB
MOST_ENTRIES, MOST_ENTRIES_ELSEWHERE = {"cpu": 2**20}, 2**28
N_SCORED, N_SCORED_OF_CLUSTER, N_DISTANCES = 2000, 20, 1000  # samples at most
N_COMPONENTS, WHITENING, FEATURE_SCALE = 128, 0.5, 8.0  # of the features that are scored, whatever the runs had


def sweep(
    spaces: Any,
    n_clusters: int | str,
    grid: Grid | None = None,
    *,
    n_restarts: int = 2,
    criterion: str = "combined",
    device: str = "auto",
    random_state: int | np.random.RandomState | None = None,
    progress: bool = False,
    **settings: Any,
) -> Sweep:
    """Fit TURTLE with every setting of a grid, and rank the labelings without labels.

    Args:
        spaces: one space (n, d), or a list of K spaces (n, d_k) whose rows are the same samples.
        n_clusters: C, or "auto" as in `Turtle`.
        grid: values to try for settings of `Turtle`, lists by their names; all combinations are run. Several such
            dicts are run one after the other. Runs that differ in learning rates and γ only are computed side by side.
            None is `labkit.turtle.DEFAULT_GRID`; `labkit.turtle.PAPER_GRID` has the axes of the paper.
        n_restarts: runs of each setting, from different starts.
        criterion: what the runs are ranked by, one of `labkit.turtle.CRITERIA`.
        device, random_state, progress: as in `Turtle`.
        settings: settings of `Turtle` that are the same for all runs.

    A default sweep is 36 runs, none of which is stopped early; it takes about as long as five fits with `race=False`.
    On the embedded datasets, Food-10 and Oxford Pets, whose labels the criterion and the grid were chosen with, the
    first run by "combined" is on average 1.4 points behind the best of its sweep, and no more than 4.3. On digits by
    their pixels alone it is 8: most runs there agree on a worse labeling. Every other criterion fails somewhere:
    "consensus" where most runs agree on a worse labeling, "confidence" and "fit" since they grow with the learning
    rates, "generalization" on fashion-mini, by up to 13 points. On long-tailed data none of them can be trusted (5 to 7
    points). There, and everywhere, the starts of the runs matter more than the settings: one default fit, which
    compares restarts of one setting, does as well.

    Raises:
        FitError: the spaces, the grid or a setting cannot be fitted; the message says why and what to do.
    """
    if not is_whole(n_restarts, 1):
        raise FitError(f"n_restarts is {quote(n_restarts)}. Expected a whole number from 1 to {LARGEST_COUNT:,}.")
    _expect_criterion(criterion, CRITERIA)
    swept, points = _read_grid(DEFAULT_GRID if grid is None else grid, settings)
    common: dict[str, Any] = {"n_clusters": n_clusters, "device": device, "progress": progress}
    runs = [{**settings, **point} for point in points for _ in range(n_restarts)]
    n = len(as_spaces(named_spaces(spaces))[0])
    if any(isinstance(prior := run.get("prior"), str) and prior == "estimated" for run in runs):
        raise FitError('prior is "estimated". Expected "even" or shares: one Turtle estimates them, a sweep does not.')
    for run in runs:
        check_settings(Turtle(**common, **run), n)
    if isinstance(n_clusters, str):  # "auto", as was checked
        count = estimate_n_clusters(spaces, random_state=random_state, device=device, progress=progress)
        common["n_clusters"] = n_clusters = count.estimate
    source = random_state_of(random_state)
    turtles: dict[int, Turtle] = {}
    agreement: dict[int, float] = {}
    for members in _side_by_side(runs, n_clusters, n, pick_device(device)):
        together = SideBySide(**common, **runs[members[0]], random_state=_seed(source))
        together.fit_runs(spaces, [runs[i] for i in members])
        turtles |= {i: together.run(row) for row, i in enumerate(members)}
        agreement |= dict(zip(members, together.agreement_, strict=True))
    fitted = [turtles[i] for i in range(len(runs))]
    with explain_out_of_memory(f"Sweep fewer runs (now {len(runs)})."):
        scores = _scores(spaces, fitted, n_restarts, _seed(source))
    if len(fitted[0].restarts_) > 1:
        scores["agreement"] = np.array([agreement[i] for i in range(len(runs))])
    settings_of = [{name: getattr(turtle, name) for name in swept} for turtle in fitted]
    parts = [without_settings(scores["confidence"], settings_of), *([scores["consensus"]] if len(runs) > 1 else [])]
    scores["combined"] = mean_rank(*parts)
    most = max(int(turtle.n_found_[0]) for turtle in fitted)
    if most < n_clusters:
        refuse_far_rows(as_spaces(named_spaces(spaces)))
        warnings.warn(
            f"all runs of the sweep collapsed: of {n_clusters} clusters at most {most} hold a tenth of an equal share. "
            "Sweep larger values of entropy_weight or n_outer_steps, or ask for fewer clusters.",
            CollapseWarning,
            stacklevel=2,
        )
    return Sweep(fitted, settings_of, scores, criterion)


class Sweep:
    """The runs of a sweep, ranked without labels.

    Attributes:
        table: a row for each run, the best first; the index is the number of the run. Columns: the settings that were
            swept, "n_found" (see `Turtle`) and the criteria. Runs that found fewer clusters than another come last
            whatever they score: a labeling that has collapsed is easy to predict.
        labelings: cluster of each sample in each run, (runs, n).
        criteria: those that could be computed: "agreement" needs several spaces, "stability" several restarts.
        criterion: what `table` is ranked by.
    """

    def __init__(
        self,
        turtles: Sequence[Turtle],
        settings: Sequence[Mapping[str, Any]],
        scores: Mapping[str, np.ndarray],
        criterion: str,
    ) -> None:
        import pandas as pd

        self._turtles = list(turtles)
        self.criteria = tuple(name for name in CRITERIA if name in scores)
        self.criterion = criterion
        n_found = [int(turtle.n_found_[0]) for turtle in turtles]
        table = pd.DataFrame(settings).assign(n_found=n_found, **{name: scores[name] for name in self.criteria})
        self.table = table.rename_axis("run")
        self.table = self.table.loc[self._ranked(criterion)]

    @property
    def labelings(self) -> np.ndarray:
        return np.stack([turtle.labels_ for turtle in self._turtles])

    def best(self, criterion: str | None = None) -> Turtle:
        """The run that a criterion ranks first, by default that of `table`, as a fitted Turtle of one restart.

        Raises:
            FitError: there is no such criterion in this sweep.
        """
        return self._turtles[self._ranked(criterion or self.criterion)[0]]

    def regret(self, labels: ArrayLike) -> pd.DataFrame:
        """What each criterion would have chosen, judged by labels, which nothing else here sees.

        Args:
            labels: class of each sample of the sweep, (n,).

        Returns:
            For each criterion: "accuracy" (clustering accuracy of its first run), "best" (of all runs), "mean" (of all
            runs, so of one that is drawn at random) and "regret" (best − accuracy), the smallest first.

        Raises:
            DataError: they are no labels of these samples.
        """
        import pandas as pd

        accuracy = np.array([clustering_accuracy(labels, turtle.labels_) for turtle in self._turtles])
        chosen = [accuracy[self._ranked(name)[0]] for name in self.criteria]
        rows = {"accuracy": chosen, "best": accuracy.max(), "mean": accuracy.mean()}
        table = pd.DataFrame(rows, index=pd.Index(self.criteria, name="criterion"))
        return table.assign(regret=table["best"] - table["accuracy"]).sort_values("regret", kind="stable")

    def _ranked(self, criterion: str) -> list[int]:
        """Numbers of the runs, the best first."""
        _expect_criterion(criterion, self.criteria)
        table = self.table.sort_index()
        full = table["n_found"] == table["n_found"].max()
        scores = table[criterion].fillna(-np.inf)
        return [int(i) for i in np.lexsort((table.index, -scores, ~full))]


# --------------------------------------------------------------------------------------------------------------- scores


def _scores(spaces: Any, turtles: Sequence[Turtle], n_restarts: int, seed: int) -> dict[str, np.ndarray]:
    """The criteria of all runs, each (R,), on a sample of what was fitted."""
    first = turtles[0]
    n, n_clusters = len(first.labels_), first.n_clusters_
    device, generator = pick_device(first.device), torch.Generator().manual_seed(seed)
    rows = torch.randperm(n, generator=generator)[: max(N_SCORED, N_SCORED_OF_CLUSTER * n_clusters)].sort().values
    labelings = torch.from_numpy(np.stack([turtle.labels_[rows.numpy()] for turtle in turtles])).to(device)
    generalization, by_distance = [], []
    for space in as_spaces(named_spaces(spaces)):
        transform = FeatureTransform.from_rows(space, rows, N_COMPONENTS, WHITENING, FEATURE_SCALE)
        features = transformed(space, transform, rows, device, torch.float32)
        folds = torch.Generator().manual_seed(seed)
        probed = features.to(fast_dtype(device))
        generalization.append(cross_validated_accuracy(probed, labelings, n_clusters, generator=folds))
        some = torch.randperm(len(rows), generator=generator)[:N_DISTANCES].to(device)
        by_distance.append(silhouette(features[some], labelings[:, some], n_clusters))
    scores = {
        "generalization": torch.stack(generalization).mean(0).cpu().numpy(),
        "silhouette": torch.stack(by_distance).mean(0).cpu().numpy(),
        "confidence": np.array([turtle.confidence_[0] for turtle in turtles]),
        "fit": np.array([-turtle.history_["inner_loss"][-20:].mean() for turtle in turtles]),
    }
    if len(turtles) > 1:
        similarity = pairwise_nmi(labelings, n_clusters)
        scores["consensus"] = consensus(similarity).cpu().numpy()
        if n_restarts > 1:
            groups = torch.arange(len(turtles), device=device) // n_restarts
            scores["stability"] = stability(similarity, groups).cpu().numpy()
    return scores


# ------------------------------------------------------------------------------------------------------------- the grid


def _read_grid(grid: Any, settings: Mapping[str, Any]) -> tuple[list[str], list[dict[str, Any]]]:
    """The names that are swept and all points of a grid.

    Raises:
        FitError: it is no grid, is empty, or sweeps what cannot be.
    """
    parts = [grid] if isinstance(grid, Mapping) else grid
    expected = 'Expected lists of values by names of settings, such as {"outer_lr": [5e-3, 1e-2]}.'
    known = [name for name in Turtle().get_params() if name not in NOT_SWEPT]
    if not isinstance(parts, list | tuple) or not parts or not all(isinstance(part, Mapping) for part in parts):
        raise FitError(f"grid is {quote(grid)}. {expected}")
    names = list(dict.fromkeys(name for part in parts for name in part))
    for name in (*names, *settings):
        if name not in known:
            raise FitError(f"the sweep got the setting {quote(name)}. Expected one of {', '.join(known)}.")
    twice = [name for name in names if name in settings]
    if twice:
        raise FitError(f"{twice[0]} is in the grid and a setting of all runs. Expected it in one of both.")
    try:
        points = list(ParameterGrid(parts))
    except (TypeError, ValueError) as error:
        raise FitError(f"grid is {quote(grid)} ({error}). {expected}") from error
    return names, points


def _side_by_side(
    runs: Sequence[Mapping[str, Any]], n_clusters: int, n: int, device: torch.device
) -> Iterator[list[int]]:
    """Numbers of runs that one solver can do: they differ in `OF_EACH_ROW` only, and their logits fit the memory."""
    most_entries = MOST_ENTRIES.get(device.type, MOST_ENTRIES_ELSEWHERE)
    groups: dict[str, list[int]] = {}
    for i, run in enumerate(runs):
        groups.setdefault(repr(sorted((k, v) for k, v in run.items() if k not in OF_EACH_ROW)), []).append(i)
    for members in groups.values():
        size = min(n, Turtle(**runs[members[0]]).batch_size or n)
        most = max(1, most_entries // (n_clusters * size))
        for part in np.array_split(members, -(-len(members) // most)):
            yield part.tolist()


def _seed(source: np.random.RandomState) -> int:
    return int(source.randint(2**31 - 1))


def _expect_criterion(criterion: object, known: Sequence[str]) -> None:
    if criterion not in known:
        raise FitError(f"criterion is {quote(criterion)}. Expected one of {', '.join(known)}.")
