"""Features that stay on disk: the fit is that of the same features in memory, and memory holds a few rows of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs

import labkit as lk
from labkit._stored import RowRange, StoredSpace
from labkit.errors import FitError
from labkit.spaces.shards import ShardedFeatures
from labkit.turtle import Turtle, own_part, streaming

N = 400
STATUS = Path("/proc/self/status")


def arrays() -> list[np.ndarray]:
    """Blobs in three spaces of three dtypes."""
    x, _ = make_blobs(N, 12, centers=4, cluster_std=0.7, random_state=0)
    return [x.astype(np.float16), x[:, :6].astype(np.float32) * 3, x[:, 2:10]]


def on_disk(folder: Path, spaces: list[np.ndarray]) -> list[Any]:
    """A memory-mapped half-precision array, shards, and an array in memory."""
    np.save(folder / "half.npy", spaces[0])
    shards = ShardedFeatures.write(folder / "shards", [spaces[1]], dtype="float32", shard=97)
    return [np.load(folder / "half.npy", mmap_mode="r"), shards, torch.from_numpy(spaces[2])]


def quick(**changes: Any) -> Turtle:
    return Turtle(4, **{"n_outer_steps": 40, "batch_size": 100, "dtype": "float32", "random_state": 0, **changes})


def expect_equal(turtle: Turtle, other: Turtle, atol: float = 0) -> None:
    np.testing.assert_array_equal(turtle.labels_, other.labels_)
    np.testing.assert_allclose(turtle.history_["outer_loss"], other.history_["outer_loss"], atol=atol, rtol=0)
    for mine, its in zip(turtle.restarts_, other.restarts_, strict=True):
        for array, expected in zip(mine, its, strict=True):
            np.testing.assert_allclose(array, expected, atol=atol, rtol=0)


AS_GIVEN = {"n_components": None, "whitening": 0.0, "feature_scale": None, "outer_lr": 1e-3}


@pytest.mark.parametrize("changes", [{}, AS_GIVEN, {"batch_size": None}, {"n_components": 5}, {"dtype": "float64"}])
def test_a_fit_from_disk_is_that_from_memory(changes: dict[str, Any], tmp_path: Path) -> None:
    spaces = arrays()
    stored, expected = quick(**changes).fit(on_disk(tmp_path, spaces)), quick(**changes).fit(spaces)
    expect_equal(stored, expected)
    np.testing.assert_array_equal(stored.predict_proba(spaces), expected.predict_proba(spaces))


@pytest.mark.parametrize("changes", [{}, AS_GIVEN, {"inner_start": "cold"}, {"prior": "estimated"}])
def test_a_fit_in_batches_from_disk_is_that_from_memory(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spaces, read = arrays(), []
    expected = quick(**changes).fit(spaces)
    monkeypatch.setattr(streaming, "SHARE", 0.0)
    select = streaming.transform_rows
    monkeypatch.setattr(streaming, "transform_rows", lambda *given: read.append(len(given[2])) or select(*given))
    expect_equal(quick(**changes).fit(on_disk(tmp_path, spaces)), expected, 1e-5)
    assert max(read) <= N
    assert read.count(100) >= 3 * 40 - 3  # of three spaces; what is as it was given stays


def test_predictions_read_from_disk(tmp_path: Path) -> None:
    spaces = arrays()
    turtle, stored = quick().fit(spaces), on_disk(tmp_path, spaces)
    np.testing.assert_array_equal(turtle.predict_proba(stored), turtle.predict_proba(spaces))
    np.testing.assert_array_equal(turtle.predict(stored), turtle.labels_)
    one = quick().fit(stored[1])
    np.testing.assert_array_equal(one.predict(spaces[1]), one.labels_)


def test_the_number_of_classes_is_estimated_from_disk(tmp_path: Path) -> None:
    spaces = arrays()
    found, expected = (lk.estimate_n_clusters(x, (2, 9), random_state=0) for x in (on_disk(tmp_path, spaces), spaces))
    assert found.estimate == expected.estimate
    np.testing.assert_array_equal(found.leaves, expected.leaves)


def test_a_process_alone_has_all_samples(tmp_path: Path) -> None:
    stored = on_disk(tmp_path, arrays())
    assert own_part(stored) is stored
    expect_equal(quick().fit_parts(stored), quick().fit(arrays()))
    with pytest.raises(FitError, match="n_outer_steps"):
        quick(n_outer_steps=0).fit_parts(stored)


def test_a_range_of_shards_is_read_by_its_own_numbers(tmp_path: Path) -> None:
    x = arrays()[1]
    rows = RowRange(on_disk(tmp_path, arrays())[1], 50, 350)
    assert (rows.shape, rows.dtype, len(rows)) == ((300, 6), np.float32, 300)
    np.testing.assert_array_equal(rows.read([3, 299]), x[[53, 349]])
    starts, blocks = zip(*rows.blocks(90), strict=True)
    assert starts == (0, 90, 180, 270)
    np.testing.assert_array_equal(np.concatenate(blocks), x[50:350])


class Counted:
    """Shards that say how much of them was read, and are never read as a whole."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows, self.shape, self.dtype, self.most = rows, rows.shape, rows.dtype, 0

    def read(self, rows: np.ndarray) -> np.ndarray:
        self.most = max(self.most, len(rows))
        return self.rows[rows]

    def blocks(self, size: int) -> Any:
        raise AssertionError

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise AssertionError("the whole was read")


def test_no_more_than_a_batch_and_the_sample_is_read_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).normal(size=(5000, 700)).astype(np.float16)
    monkeypatch.setattr(streaming, "SHARE", 0.0)
    monkeypatch.setattr(streaming, "SAMPLE", 300)
    source = Counted(x)
    Turtle(3, n_restarts=1, n_outer_steps=60, batch_size=200, random_state=0).fit(source)
    assert 200 <= source.most <= 2**20 // 700


def test_what_is_wrong_in_a_later_batch_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "SHARE", 0.0)
    monkeypatch.setattr(streaming, "SAMPLE", 10)
    monkeypatch.setattr(streaming, "CHECKED", 10)
    x = arrays()[0]
    x[N - 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(FitError, match="NaN or infinity"):
        quick().fit(np.load(tmp_path / "x.npy", mmap_mode="r"))


@pytest.mark.skipif(not STATUS.exists(), reason="Linux says how much of the memory is mapped from files")
def test_what_was_read_leaves_the_memory(tmp_path: Path) -> None:
    size = 2**27
    array = np.memmap(tmp_path / "x", np.float16, "w+", shape=(size // 1024, 512))
    space = StoredSpace(array)

    def mapped() -> int:
        lines = dict(line.split(":", 1) for line in STATUS.read_text("utf-8").splitlines())
        return int(lines["RssFile"].split()[0]) * 1024 + int(lines["RssShmem"].split()[0]) * 1024

    before = mapped()
    assert float(array[::2].sum()) == 0
    assert mapped() - before > size / 2  # else this measures nothing
    for part in space.split(1000):
        assert not part.any()
    assert mapped() - before < size / 10
    assert len(space[torch.randperm(len(space))]) == len(space)
    assert mapped() - before < size / 10


def test_changes_of_a_mapped_array_are_read_and_kept(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((50, 3), np.float32))
    for mode in ("c", "r+"):
        array = np.load(tmp_path / "x.npy", mmap_mode=mode)
        array[7] = 5
        space = StoredSpace(array[5:])
        for _ in range(2):
            np.testing.assert_array_equal(space[torch.tensor([3, 2, 1])].numpy(), array[[8, 7, 6]])
        assert array[7, 0] == 5


def test_rows_are_read_in_any_order(tmp_path: Path) -> None:
    x = np.arange(2000.0).reshape(1000, 2)
    np.save(tmp_path / "x.npy", x)
    space = StoredSpace(np.load(tmp_path / "x.npy", mmap_mode="r"))
    rows = torch.randint(1000, (3000,), generator=torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(space[rows].numpy(), x[rows.numpy()])
    np.testing.assert_array_equal(space[10:40:7].numpy(), x[10:40:7])
    np.testing.assert_array_equal(np.concatenate([part.numpy() for part in space.split(300)]), x)
    assert (space.shape, space.dtype, len(space), space.any()) == ((1000, 2), torch.float64, 1000, True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, s: [x, s[:50] if isinstance(s, np.ndarray) else x[:50]], r"\[400, 50\] rows"),
        (lambda x, s: Counted(np.zeros((5, 2), np.int64)), "X has shape"),
        (lambda x, s: [x, Counted(np.zeros((0, 2), np.float16))], "space 1 has shape"),
        (lambda x, s: x[None], r"X has shape \(1, 400, 12\)"),
    ],
)
def test_what_cannot_be_read_is_named(change: Any, message: str, tmp_path: Path) -> None:
    mapped, shards, _ = on_disk(tmp_path, arrays())
    with pytest.raises(FitError, match=message):
        quick().fit(change(mapped, shards))


def test_the_memory_that_is_free_is_that_of_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "CONTAINER", tmp_path / "none")
    free = streaming.free_memory(torch.device("cpu"))
    assert free > 10**6
    for text, expected in (("max\n", free), ("12345\n", 12345)):
        (tmp_path / "limit").write_text(text)
        monkeypatch.setattr(streaming, "CONTAINER", tmp_path / "limit")
        assert streaming.free_memory(torch.device("cpu")) == pytest.approx(expected, rel=0.5)
