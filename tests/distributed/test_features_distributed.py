"""Features that several processes extract are those of one, bit for bit, and a killed process loses nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import labkit as lk
from tests.distributed import shards
from tests.distributed.test_must_distributed import free_port, launch

ROOT = Path(__file__).parents[2]
N = 100  # seven shards


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images; image i begins with a pixel of value i."""
    folder = tmp_path_factory.mktemp("images")
    noise = np.random.default_rng(0).integers(0, 255, (N, 28, 28), dtype=np.uint8)
    noise[:, 0, 0] = np.arange(N)
    for i, image in enumerate(noise):
        Image.fromarray(image).save(folder / f"{i:03d}.png")
    return folder


@pytest.fixture(scope="module")
def alone(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of features that one process makes."""
    out = tmp_path_factory.mktemp("one") / "out"
    lk.extract_shards(
        lk.load_backbone("pixels", device="cpu"), shards.images(folder), out, shard=shards.SHARD, batch_size=8
    )
    return out


def assert_equal(out: Path, alone: Path) -> None:
    """The same bits, and the same header and shards with nothing beside them."""
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in alone.iterdir())
    assert (out / "features.json").read_text("utf-8") == (alone / "features.json").read_text("utf-8")
    np.testing.assert_array_equal(*(np.asarray(lk.ShardedFeatures.open(path)) for path in (out, alone)))


def encoded(path: Path) -> list[int]:
    return [int(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def start(folder: Path, out: Path, name: str, machine: str, stop: int) -> subprocess.Popen[bytes]:
    arguments = [str(folder), str(out), name, machine, str(stop)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", "tests.distributed.shards", *arguments], cwd=ROOT, env=environment)


def wait_for(happens: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Wait until something happens while a process runs."""
    end = time.monotonic() + 120
    while not happens():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("machines", ["aa", "ab"], ids=["one machine", "two machines"])
def test_a_process_that_is_killed_costs_one_shard(machines: str, folder: Path, alone: Path, tmp_path: Path) -> None:
    """The first process stands still in its second shard; the second one does all the rest, and that after the kill."""
    out = tmp_path / "out"
    stop = 36  # in the first batch of the third shard: the next one is claimed with the last
    first = start(folder, out, "first", machines[0], stop)
    second = None
    try:
        wait_for(lambda: stop in encoded(out.with_suffix(".first")), first)
        second = start(folder, out, "second", machines[1], -1)
        others = set(range(3 * shards.SHARD, N))
        wait_for(lambda: others <= set(encoded(out.with_suffix(".second"))), second)
        time.sleep(1.5 * shards.LOST)
        assert second.poll() is None  # it waits, for the first one lives
        assert set(encoded(out.with_suffix(".second"))) == others
        first.kill()
        assert second.wait(timeout=60) == 0
    finally:
        for process in (first, second):
            if process is not None:
                process.kill()
                process.wait()
    assert_equal(out, alone)
    lost = set(range(2 * shards.SHARD, 3 * shards.SHARD))
    assert sorted(encoded(out.with_suffix(".second"))) == sorted(others | lost)


def test_processes_by_accelerate_equal_one(folder: Path, alone: Path, tmp_path: Path) -> None:
    options = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    options += ["--dynamo_backend", "no", "--main_process_port", free_port(), "-m", "labkit.cli", "features"]
    options += [str(folder), "--backbone", "pixels", "--out", str(tmp_path / "out"), "--shard", str(shards.SHARD)]
    launch([sys.executable, "-m", "accelerate.commands.launch", *options], tmp_path / "cache")
    assert_equal(tmp_path / "out", alone)
