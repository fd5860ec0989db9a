"""Later images: what is unlike anything seen, by loops from the definition, and what a review made of clusters."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from labkit._saved import read_saved, write_saved
from labkit.errors import CheckpointError, DataError
from labkit.own import later
from labkit.own.clustering import SEEN
from labkit.own.later import Seen, load_seen, reviewed, save_seen, see
from tests.unit.own.results import make_result

RNG = np.random.default_rng(0)
FITTED = {"a": RNG.normal(3, 1, (40, 6)).astype(np.float32), "b": RNG.normal(0, 5, (40, 4)).astype(np.float32)}


def far_by_loops(image: dict[str, np.ndarray], leave_out: int | None) -> list[float]:
    """Of each space, the mean of one minus the five largest cosines with the fitted images: as they are, and less the
    mean of their unit vectors."""
    found = []
    for name, fitted in FITTED.items():
        vectors = [x.astype(float) / np.sqrt(x.astype(float) @ x) for x in fitted]
        mean = sum(vectors) / len(vectors)
        unit = image[name].astype(float) / np.sqrt(image[name].astype(float) @ image[name])
        for origin in (0 * mean, mean):
            cosines = []
            for i, other in enumerate(vectors):
                if i != leave_out:
                    x, y = unit - origin, other - origin
                    cosines.append(x @ y / np.sqrt((x @ x) * (y @ y)))
            found.append(float(np.mean([1 - c for c in sorted(cosines)[-5:]])))
    return found


def test_unlike_is_the_share_of_fitted_images_that_are_nearer_to_the_rest() -> None:
    own = np.array([far_by_loops({k: v[i] for k, v in FITTED.items()}, i) for i in range(40)])  # (m, spaces)
    usual = np.median(own, axis=0)
    own = (own / usual).mean(1)
    new = {"a": RNG.normal(3, 2, (9, 6)).astype(np.float32), "b": RNG.normal(0, 5, (9, 4)).astype(np.float32)}
    unlike = see(FITTED, "run").unlike(new)
    for i in range(9):
        far = np.mean(np.array(far_by_loops({k: v[i] for k, v in new.items()}, None)) / usual)
        near = min(abs(own - far))
        expected = sum(other < far for other in own) / 41
        assert unlike[i] == pytest.approx(expected, abs=1e-6 if near > 2e-3 else 1.1 / 41)  # kept in half precision


def test_of_images_like_the_fitted_ones_about_a_twentieth_is_flagged() -> None:
    shares = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        fitted, new = (rng.normal(1, 1, (n, 8)).astype(np.float32) for n in (300, 300))
        shares.append((see({"x": fitted}, "run").unlike({"x": new}) > later.UNLIKE).mean())
    assert np.mean(shares) == pytest.approx(0.05, abs=0.015)


def test_what_is_far_away_is_flagged_and_too_few_images_flag_nothing() -> None:
    fitted = RNG.normal(0, 1, (60, 8)) * [1, 1, 1, 1, 0.01, 0.01, 0.01, 0.01]
    new = RNG.normal(0, 1, (20, 8)) * [0.01, 0.01, 0.01, 0.01, 1, 1, 1, 1]
    assert (see({"x": fitted.astype(np.float32)}, "run").unlike({"x": new.astype(np.float32)}) > later.UNLIKE).all()
    few = see({"x": fitted[:8].astype(np.float32)}, "run").unlike({"x": new.astype(np.float32)})
    assert (few <= later.UNLIKE).all()


@pytest.mark.parametrize("n", [2, 3])
def test_identical_images_give_numbers(n: int) -> None:
    seen = see({"x": np.ones((n, 3), np.float32)}, "run")
    unlike = seen.unlike({"x": np.eye(3, dtype=np.float32)})
    assert np.isfinite(unlike).all()
    assert ((unlike >= 0) & (unlike < 1)).all()


def test_of_many_images_a_part_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(later, "REFERENCE", 10)
    seen = see(FITTED, "run")
    assert len(seen.rows) == len(seen.distances) == len(seen.spaces["a"][1]) == 10
    assert (np.diff(seen.rows) > 0).all()
    assert seen.unlike(FITTED).shape == (40,)


def test_a_missing_space_is_named() -> None:
    with pytest.raises(DataError, match="4 columns of the space b"):
        see(FITTED, "run").unlike({"a": FITTED["a"], "b": FITTED["a"]})
    with pytest.raises(DataError, match="6 columns of the space a"):
        see(FITTED, "run").unlike({})


# ----------------------------------------------------------------------------------------------------------------- kept


def test_what_is_kept_is_read_back(tmp_path: Path) -> None:
    result = make_result(tmp_path, [f"{i}.jpg" for i in range(40)], [0] * 40, {})
    save_seen(tmp_path, FITTED, result)
    seen, expected = load_seen(tmp_path), see(FITTED, "a")
    assert (seen.run, seen.usual) == (expected.run, expected.usual)
    assert (seen.unlike(FITTED) == expected.unlike(FITTED)).all()
    first = (tmp_path / SEEN).read_bytes()
    save_seen(tmp_path, FITTED, result)
    assert len((tmp_path / SEEN).read_bytes()) == len(first)


@pytest.mark.parametrize("broken", ["rows", "usual", "units/0", "mean/1", "distances", "nan"])
def test_what_does_not_fit_is_refused(tmp_path: Path, broken: str) -> None:
    save_seen(tmp_path, FITTED, make_result(tmp_path, [f"{i}.jpg" for i in range(40)], [0] * 40, {}))
    settings, tensors = read_saved(tmp_path / SEEN, "Seen", "")
    if broken == "usual":
        settings["usual"]["a"] = [0, 1]
    elif broken == "nan":
        tensors["distances"][0] = torch.nan
    else:
        tensors[broken] = tensors[broken][:-1]
    write_saved(tmp_path / SEEN, "Seen", settings, tensors)
    with pytest.raises(CheckpointError, match="no whole Seen"):
        load_seen(tmp_path)
    (tmp_path / SEEN).write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="Run labkit cluster again"):
        load_seen(tmp_path)


# ----------------------------------------------------------------------------------------------------------- the review


def two_sides(n: int, seed: int) -> np.ndarray:
    """Features of n images: the first half near +x, the others near -x."""
    rng = np.random.default_rng(seed)
    features = rng.normal(0, 0.1, (n, 4)).astype(np.float32)
    features[:, 0] += np.repeat([1, -1], n // 2)
    return features


@pytest.fixture
def split(tmp_path: Path) -> tuple[later.Clustering, Seen]:
    """Cluster 0, found as one, split in two sides (0 and 5) but for one rejected image; 1 merged into 0, 2 rejected."""
    labels = [0] * 19 + [-1] + [5] * 20 + [0] * 4 + [-1] * 4
    result = make_result(tmp_path, [f"{i}.jpg" for i in range(48)], labels, {0: "left", 5: "right"})
    result.images["found"] = [0] * 40 + [1] * 4 + [2] * 4
    features = np.concatenate([two_sides(40, 0), np.full((8, 4), 0.1, np.float32)])
    return result, see({"x": features}, "a")


def test_later_images_follow_the_review(split: tuple[later.Clustering, Seen]) -> None:
    result, seen = split
    new = np.concatenate([two_sides(10, 1), two_sides(4, 2)])
    found = np.array([0] * 10 + [1, 2, 2, 1])
    assert reviewed(found, result, seen, {"x": new}).tolist() == [0] * 5 + [5] * 5 + [0, -1, -1, 0]


def test_a_cluster_that_no_fitted_image_has_stays(split: tuple[later.Clustering, Seen]) -> None:
    result, seen = split
    assert reviewed(np.array([7]), result, seen, {"x": two_sides(2, 0)[:1]}).tolist() == [7]


def test_a_part_of_which_nothing_is_kept_is_not_chosen(split: tuple[later.Clustering, Seen]) -> None:
    result, seen = split
    kept = seen.rows < 20
    fewer = dataclasses.replace(
        seen, rows=seen.rows[kept], spaces={name: (mean, units[kept]) for name, (mean, units) in seen.spaces.items()}
    )
    assert reviewed(np.zeros(10, int), result, fewer, {"x": two_sides(10, 1)}).tolist() == [0] * 10
