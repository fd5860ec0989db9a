"""`make gpu` without a GPU: it says so; on the CPU all of its code runs; a part that fails costs no other."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.unit.test_benchmarks import BENCHMARKS, load

SCRIPT = [sys.executable, str(BENCHMARKS / "gpu.py")]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load("gpu", monkeypatch)


def numbers_in(measured: Any) -> list[float]:
    if isinstance(measured, dict):
        return [number for value in measured.values() for number in numbers_in(value)]
    return [measured] if isinstance(measured, int | float) else []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run([*SCRIPT, "--out", str(tmp_path / "gpu.json")], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("no CUDA device here")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "gpu.json").exists()


def test_on_the_cpu_all_parts_run(tmp_path: Path) -> None:
    out = tmp_path / "runs" / "gpu.json"
    command = [*SCRIPT, "--device", "cpu", "--quick", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text("utf-8"))
    assert set(report) == {"device", "quick", "tests", "turtle", "must", "features"}
    assert {"name", "torch", "bfloat16"} <= set(report["device"])
    assert report["tests"]["passed"] >= 17
    assert report["tests"]["failed"] == report["tests"]["skipped"] == 0
    for part in ("turtle", "must", "features"):
        found = numbers_in(report[part])
        assert len(found) > 2
        assert min(found) > 0
    assert list(tmp_path.iterdir()) == [out.parent]


def test_a_part_that_fails_is_recorded_and_the_others_go_on(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parts: dict[str, Any] = {
        "tests": {"passed": 3, "failed": 0},
        "turtle": {"error": "Traceback …\nRuntimeError: illegal address"},
        "must": {"bfloat16": {"error": "OutOfMemoryError: 2 GiB"}, "float16": {"images a second": 9.0}},
        "features": {"images a second": 7.0},
    }
    out = tmp_path / "gpu.json"
    monkeypatch.setattr(script, "run_part", lambda name, given: parts[name])
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", "--out", str(out)])
    assert script.main() == 1
    report = json.loads(out.read_text("utf-8"))
    assert {name: report[name] for name in parts} == parts
    said = capsys.readouterr().err
    assert "failed: RuntimeError: illegal address" in said
    assert "failed: OutOfMemoryError: 2 GiB" in said


@pytest.mark.parametrize(("failed", "code"), [(0, 0), (1, 1)])
def test_failed_tests_are_in_the_exit_code(
    failed: int, code: int, script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "run_part", lambda name, given: {"passed": 3, "failed": failed})
    arguments = ["gpu.py", "--device", "cpu", "--only", "tests", "--out", str(tmp_path / "gpu.json")]
    monkeypatch.setattr(sys, "argv", arguments)
    assert script.main() == code


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_what_a_part_said_before_it_ended_is_kept(script: ModuleType, tmp_path: Path) -> None:
    given = argparse.Namespace(device="cuda", quick=True, out=tmp_path / "gpu.json")
    assert "no CUDA device here" in script.run_part("turtle", given)["error"]
