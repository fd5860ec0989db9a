"""Chains of work that are killed end as if they had not been; `python -m tests.faults.kill` tries more of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
ROOT = Path(__file__).parents[2]


def kill(*arguments: str) -> tuple[int, str]:
    """The harness in a process of its own, since it forks: its exit status, and what it said."""
    outcome = subprocess.run(
        [sys.executable, "-m", "tests.faults.kill", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    return outcome.returncode, outcome.stdout + outcome.stderr


@pytest.mark.parametrize(
    ("chain", "every", "least"), [("extraction", 5, 15), ("read", 5, 10), ("cluster", 7, 15), ("must", 11, 4)]
)
def test_killed_at_a_write_it_ends_as_undisturbed(chain: str, every: int, least: int) -> None:
    status, said = kill("--points", "--every", str(every), "--only", chain)
    assert status == 0, said
    assert said.count("as undisturbed\n") > least, said


def test_killed_at_random_moments_it_ends_as_undisturbed() -> None:
    status, said = kill("--random", "6", "--only", "extraction", "read", "cluster", "must", "chain", "series")
    assert status == 0, said
    assert "6 of 6 as undisturbed" in said


def test_a_reproduction_killed_at_random_moments_ends_with_the_same_table() -> None:
    status, said = kill("--random", "5", "--seed", "1", "--only", "papers")
    assert status == 0, said
    assert "5 of 5 as undisturbed" in said


FORGETFUL = """
import sys
from labkit import _files
_files._sweep = lambda parent, prefix: None  # nothing is taken away
from tests.faults import kill
sys.exit(kill.main(["--points", "--every", "4", "--only", "extraction"]))
"""


def test_what_is_left_behind_is_seen() -> None:
    outcome = subprocess.run([sys.executable, "-c", FORGETFUL], cwd=ROOT, capture_output=True, text=True)
    assert outcome.returncode == 1, outcome.stdout
    assert "not as undisturbed: cache/" in outcome.stdout
