"""Fixtures of the papers' tests: two small datasets, a small profile, no other dataset known."""

from __future__ import annotations

from pathlib import Path

import pytest

from labkit.data import manifests
from labkit.papers import protocol, reproduce
from tests.unit.papers import small


@pytest.fixture
def datasets(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the small datasets, which are all that there are; the profile pocket is small; no page is drawn."""
    monkeypatch.setattr(manifests, "manifests_dir", manifests.manifests_dir)
    monkeypatch.setattr(protocol, "SCALES", protocol.SCALES)  # both are put back afterwards
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    folder = tmp_path / "datasets"
    small.write_datasets(folder)
    small.use(folder)
    monkeypatch.setattr(reproduce, "write_report", lambda *_, **__: [])
    return folder
