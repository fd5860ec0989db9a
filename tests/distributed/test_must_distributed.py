"""MUST on two processes takes the steps that one process takes with the double batch."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from labkit import pocket
from labkit._saved import read_saved
from labkit.must import checkpoint, estimator
from tests import tiny
from tests.distributed import exits, fits

ROOT = Path(__file__).parents[2]
ONE_EPOCH = {"epochs": 1}  # three steps of 8 images, 4 on each of two processes
JOBS: dict[str, dict[str, Any]] = {
    "plain": ONE_EPOCH,
    "memory-and-prior": {**ONE_EPOCH, "fairness_momentum": 0.5, "prior": "estimated"},
    "only-one-process-is-confident": {**ONE_EPOCH, "threshold": 0.955},
    "nobody-is-confident": {**ONE_EPOCH, "threshold": 1 - 1e-9},
    "no-masking": {**ONE_EPOCH, "mask_ratio": 0.0},
    "no-masked-losses": {**ONE_EPOCH, "masked_image_weight": 0.0, "alignment_weight": 0.0},
    "micro-batches": {**ONE_EPOCH, "accumulate": 2, "fairness_momentum": 0.5},
    "odd-batch": {**ONE_EPOCH, "batch_size": 7},  # 6, for two equal shares
    "patience": {"epochs": 4, "patience": 1, "lr": 6e-3},
}
STOPPED = {"epochs": 2, "fairness_momentum": 0.5}


def free_port() -> str:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return str(server.getsockname()[1])


def launch(command: list[str], cache: Path) -> None:
    """Run a command to its end, with its own cache; what it says is shown when it fails."""
    environment = {**os.environ, "LABKIT_CACHE": str(cache), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    environment["XDG_CACHE_HOME"] = str(cache)  # else a user's own cache may hold the texts already
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes)  # type: ignore[call-overload]
    try:
        said, _ = process.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        process.terminate()  # not killed, so that the launcher ends the processes that it has started
        said, _ = process.communicate()
    assert process.returncode == 0, said


@pytest.fixture(scope="module")
def model_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def here(model_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """All fits in this one process."""
    folder = tmp_path_factory.mktemp("one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimator, "LOG_EVERY", estimator.LOG_EVERY)
        patch.setattr(checkpoint, "SAVE_EVERY", checkpoint.SAVE_EVERY)
        patch.setattr(pocket, "MODELS", pocket.MODELS)
        patch.setattr(pocket, "NAMES", pocket.NAMES)
        patch.setenv("LABKIT_CACHE", str(folder / "cache"))
        whole = {"micro-batches": {**JOBS["micro-batches"], "accumulate": 1}}
        alone = {**JOBS, **whole, "odd-batch": {**ONE_EPOCH, "batch_size": 6}}
        jobs = [{"folder": folder / name, "settings": settings} for name, settings in alone.items()]
        jobs.append({"folder": folder / "whole", "settings": STOPPED})
        jobs.append({"folder": folder / "stopped", "settings": STOPPED, "stop": 3})
        fits.run(model_files, jobs)
        yield folder
    pocket.register.cache_clear()


@pytest.fixture(scope="module")
def there(model_files: Path, here: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same fits on two processes, by `accelerate launch`; and one that resumes from what one process has begun."""
    folder = tmp_path_factory.mktemp("two")
    jobs: list[dict[str, Any]] = [
        {"folder": str(folder / name), "settings": settings} for name, settings in JOBS.items()
    ]
    jobs.append({"folder": str(folder / "stopped"), "settings": STOPPED, "stop": 3})
    jobs.append({"folder": str(here / "stopped"), "settings": STOPPED})
    jobs.append({"folder": str(folder / "interrupted"), "settings": STOPPED, "interrupt": 2})
    jobs.append({})
    (folder / "jobs.json").write_text(json.dumps(jobs), "utf-8")
    # --multi_gpu starts processes where there is no GPU too; --cpu would start one, or want MPI
    options = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    options += ["--dynamo_backend", "no", "--main_process_port", free_port(), "-m", "tests.distributed.fits"]
    accelerate = [sys.executable, "-m", "accelerate.commands.launch"]
    launch([*accelerate, *options, str(model_files), str(folder / "jobs.json")], folder / "cache")
    return folder


def assert_close(ours: Path, theirs: Path) -> None:
    """Checkpoints and metrics of two folders tell of the same run."""
    tensors, others = map(read, (ours, theirs))
    assert tensors.keys() == others.keys()
    assert {name.split("/")[0] for name in tensors} >= {"student", "teacher", "optimizer", "moving_mean", "epochs"}
    for name, tensor in tensors.items():
        if name.startswith(("student", "teacher", "best", "moving_mean", "sums")):
            torch.testing.assert_close(tensor, others[name], atol=1e-5, rtol=0, msg=lambda m, n=name: f"{n}: {m}")
        elif name.endswith("exp_avg"):  # the gradients; sharper than weights, which small steps hardly move
            torch.testing.assert_close(tensor, others[name], atol=1e-6, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
        elif name.startswith(("epochs", "labels")):
            assert torch.equal(tensor, others[name]), name
    for key in ("history", "best_epoch", "step"):
        found, expected = (settings(folder)[key] for folder in (ours, theirs))
        if key == "history":
            assert len(found) == len(expected) > 0
            for entry, other in zip(found, expected, strict=True):
                assert entry == pytest.approx(other, abs=1e-5)
        else:
            assert found == expected
    records, expected = (lines(folder) for folder in (ours, theirs))
    assert len(records) == len(expected) >= 3
    for record, other in zip(records, expected, strict=True):
        assert record == pytest.approx(other, abs=2e-5)


def read(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint without the biases of keys.

    A softmax over keys does not see what is added to all of them, so their true gradient is 0. Adam divides what
    rounding leaves of it by its own size, and walks at random.
    """
    tensors, width = load_file(folder / "checkpoint.safetensors"), tiny.VISION["width"]
    for tensor in tensors.values():
        if tensor.shape == (3 * width,):  # of queries, keys and values
            tensor[width : 2 * width] = 0
    return tensors


def settings(folder: Path) -> dict[str, Any]:
    return read_saved(folder / "checkpoint.safetensors", checkpoint.KIND, "")[0]


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("name", JOBS)
def test_two_processes_equal_one_with_the_double_batch(name: str, here: Path, there: Path) -> None:
    assert_close(there / name, here / name)


def test_the_shares_of_pictures_are_not_alike(here: Path, there: Path) -> None:
    """Else the tests above could not tell a mean over a process from one over all."""
    kept = [line["kept"] for line in lines(there / "only-one-process-is-confident")]
    assert kept == [0, 1 / 8, 1 / 8]  # one image of eight, so one process has it and the other none
    assert {line["kept"] for line in lines(there / "nobody-is-confident")} == {0}


@pytest.mark.parametrize("name", JOBS)
def test_both_processes_end_with_the_same(name: str, there: Path) -> None:
    first, second = (dict(np.load(there / name / f"process-{rank}.npz")) for rank in (0, 1))
    assert sorted(first) == sorted(second) == ["encoded", "heads", "labels", "probs"]
    for key in ("labels", "probs"):
        np.testing.assert_array_equal(first[key], second[key])


def test_the_start_is_computed_once_and_not_once_a_process(there: Path) -> None:
    first, second = (dict(np.load(there / "memory-and-prior" / f"process-{rank}.npz")) for rank in (0, 1))
    assert (first["encoded"].item(), second["encoded"].item()) == (12, 12)  # of 24 images, each encodes its share
    assert (first["heads"].item(), second["heads"].item()) == (1, 0)


def test_ctrl_c_on_one_process_stops_all_after_the_same_step(there: Path, here: Path) -> None:
    folder = there / "interrupted"
    assert [(folder / f"interrupted-{rank}.txt").read_text("utf-8") for rank in (0, 1)] == ["2", "2"]
    assert settings(folder)["step"] == 2
    fits.fit(folder, STOPPED)
    assert_close(folder, here / "whole")


def test_one_process_goes_on_from_what_two_have_begun(here: Path, there: Path) -> None:
    assert settings(there / "stopped")["step"] == 2
    fits.fit(there / "stopped", STOPPED)
    assert_close(there / "stopped", here / "whole")


def test_two_processes_go_on_from_what_one_has_begun(here: Path, there: Path) -> None:
    assert (here / "stopped" / "process-1.npz").exists()
    assert_close(here / "stopped", here / "whole")


def test_processes_share_the_cache_of_texts(there: Path) -> None:
    files = [path for path in (there / "cache" / "features" / "texts").rglob("*") if path.is_file()]
    assert len(files) == 31  # one for the fits, 30 asked for
    assert {file.suffix for file in files} == {".safetensors"}


def test_a_notebook_can_launch_processes_after_it_has_fitted(model_files: Path, here: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.distributed.notebook", str(model_files), str(tmp_path), free_port()]
    launch(command, tmp_path / "cache")
    assert (tmp_path / "launched" / "process-1.npz").exists()
    assert_close(tmp_path / "alone", here / "plain")
    assert_close(tmp_path / "launched", here / "plain")


def test_each_process_closes_its_group(there: Path) -> None:
    assert exits.groups(there) == ["closed", "closed"]
