"""Turtle on two processes, each with a part of the samples, takes the steps that one process takes with all of them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from tests.distributed import exits, turtle_fits
from tests.distributed.test_must_distributed import free_port, launch

JOBS = turtle_fits.JOBS


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All fits in this one process."""
    folder = tmp_path_factory.mktemp("one")
    turtle_fits.run(folder)
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same fits on two processes, by `accelerate launch`."""
    folder = tmp_path_factory.mktemp("two")
    # --multi_gpu starts processes where there is no GPU too; --cpu would start one, or want MPI
    options = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    options += ["--dynamo_backend", "no", "--main_process_port", free_port(), "-m", "tests.distributed.turtle_fits"]
    launch([sys.executable, "-m", "accelerate.commands.launch", *options, str(folder)], folder / "cache")
    return folder


def fitted(folder: Path, name: str, rank: int) -> dict[str, np.ndarray]:
    with np.load(folder / f"{name}-{rank}.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("name", JOBS)
def test_two_processes_equal_one(name: str, one: Path, two: Path) -> None:
    expected, first, second = fitted(one, name, 0), fitted(two, name, 0), fitted(two, name, 1)
    np.testing.assert_array_equal(np.concatenate([first.pop("labels"), second.pop("labels")]), expected.pop("labels"))
    atol = 1e-11 if name == "float64" else 1e-5
    assert first.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(first[key], value, atol=atol, rtol=atol, err_msg=key)
        np.testing.assert_array_equal(second[key], first[key], err_msg=key)  # to the bit: they never drift apart


def test_the_parts_are_not_alike(two: Path) -> None:
    """Else the test above could not tell a mean over a part from one over all."""
    assert [len(fitted(two, "batches", rank)["labels"]) for rank in (0, 1)] == [200, 400]
    assert [len(fitted(two, "uneven", rank)["labels"]) for rank in (0, 1)] == [598, 2]
    assert [len(fitted(two, "shards", rank)["labels"]) for rank in (0, 1)] == [300, 300]  # of `own_part`


def test_what_is_fitted_is_a_labeling(one: Path) -> None:
    for name in JOBS:
        arrays = fitted(one, name, 0)
        assert len(np.unique(arrays["labels"])) == turtle_fits.CLUSTERS, name
        assert np.nanmin(arrays["history/outer_loss"][-1]) < arrays["history/outer_loss"][0].min(), name


def test_an_error_of_one_process_ends_all(two: Path) -> None:
    told = [(two / f"refused-{rank}.txt").read_text("utf-8").split("\n") for rank in (0, 1)]
    assert [len(messages) for messages in told] == [5, 5]
    for message, other in ((told[1][0], told[0][0]), (told[0][1], told[1][1]), (told[1][2], told[0][2])):
        assert "NaN or infinity" in message or "0 sample(s)" in message
        assert other in [f"process {rank} stopped: {message}" for rank in (0, 1)]
    for messages in told:
        assert messages[3].startswith("process 1 has spaces with [11, 11] features")
        assert "n_clusters is 'auto', with 2 processes" in messages[4]


def test_each_process_closes_its_group(two: Path) -> None:
    assert exits.groups(two) == ["closed", "closed"]
