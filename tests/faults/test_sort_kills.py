"""A sort that is killed loses no image, and is finished or put back by the next command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
ROOT = Path(__file__).parents[2]


def sorts(*arguments: str, before: str = "") -> tuple[int, str]:
    """The harness in a process of its own, since it forks: its exit status, and what it said."""
    program = f"import sys\n{before}\nfrom tests.faults import sorts\nsys.exit(sorts.main({list(arguments)!r}))"
    outcome = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    return outcome.returncode, outcome.stdout + outcome.stderr


def test_killed_at_a_step_all_is_whole() -> None:
    status, said = sorts("--points", "--every", "5")
    assert status == 0, said
    assert said.count(": whole\n") > 60, said


def test_killed_at_random_moments_all_is_whole() -> None:
    status, said = sorts("--random", "3")
    assert status == 0, said


CARELESS = """
from labkit.own import placing
def place(made, target):  # takes the image away before it is anywhere else
    content = made.read_bytes()
    made.unlink()
    target.symlink_to("nothing")
    target.unlink()
    target.write_bytes(content)
placing._place = place
"""


def test_a_lost_image_is_seen() -> None:
    status, said = sorts("--points", "--only", "move beside", before=CARELESS)
    assert status == 1, said
    assert "1 images are lost" in said
