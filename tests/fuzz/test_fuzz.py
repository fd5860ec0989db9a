"""A short run of the fuzzer, and that it sees what it looks for; `make fuzz` is the long one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from labkit.errors import DataError
from tests.fuzz import fuzz
from tests.fuzz.targets import TARGETS, Target

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the fuzzer says of each target after a short run, in a process that has done nothing else."""
    command = [sys.executable, "-m", "tests.fuzz.fuzz", "--files", "400", "--seconds", "180", "--seed", "1"]
    outcome = subprocess.run(
        [*command, "--keep", str(tmp_path_factory.mktemp("fuzz"))], cwd=ROOT, capture_output=True, text=True
    )
    return {line.split(":")[0]: line for line in outcome.stdout.splitlines()}


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files_are_read_or_refused(name: str, said: dict[str, str]) -> None:
    done, failed, memory = map(int, re.findall(r"\d+", said[name].removeprefix(name)))
    assert failed == 0, said
    assert done == 400 or name == "settings", said  # each of which is a fit
    assert done >= 100
    assert memory <= fuzz.MEMORY


def bad(path: Path) -> None:
    if b"x" in path.read_bytes():
        raise KeyError("x")


def slow(path: Path) -> None:
    time.sleep(60)


def crash(path: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hungry(path: Path) -> None:
    bytearray(300_000_000)


def fine(path: Path) -> None:
    raise DataError("it is damaged")


def wordy(path: Path) -> None:
    raise DataError("it is damaged " * 1000)


@pytest.mark.parametrize(
    ("read", "is_well"), [(fine, True), (bad, False), (slow, False), (crash, False), (hungry, False), (wordy, False)]
)
def test_the_fuzzer_sees_what_goes_wrong(
    read: Any, is_well: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def after_the_first(path: Path) -> None:
        nonlocal calls
        calls += 1
        if calls > 1:
            read(path)

    monkeypatch.setitem(TARGETS, "planted", Target(".txt", lambda: [b"x", b"y"], after_the_first))
    if read is slow:  # the others are done at once, on a busy machine too
        monkeypatch.setattr(fuzz, "LONGEST", 0.2)
    monkeypatch.setattr(fuzz, "MEMORY", 100)
    assert fuzz.in_a_process("planted", files=3, seconds=20, seed=0, keep=tmp_path) == is_well
    assert bool(list(tmp_path.glob("planted/*.txt"))) == (read in (bad, slow, wordy))


def test_the_same_seed_gives_the_same_files() -> None:
    first, again, other = (
        [next(source) for _ in range(60)] for source in map(fuzz.inputs, ["manifest"] * 3, [0, 0, 1])
    )
    assert first == again
    assert first != other
