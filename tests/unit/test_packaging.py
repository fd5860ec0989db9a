"""The files around the package: one set of requirements, a quick import, a wheel that stands alone."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib")

ROOT = Path(__file__).resolve().parents[2]
CONDA_NAMES = {"torch": "pytorch", "open-clip-torch": "open-clip-torch"}


def split(requirement: str) -> tuple[str, str]:
    """Name in one spelling, and version range."""
    name, ranges = re.fullmatch(r"([A-Za-z0-9_.-]+)(.*)", requirement.replace(" ", "")).groups()
    return name.lower().replace("_", "-"), ranges


def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_environment_yml_has_the_ranges_of_pyproject() -> None:
    wanted = dict(map(split, pyproject()["dependencies"] + pyproject()["optional-dependencies"]["test"]))
    wanted = {CONDA_NAMES.get(name, name): ranges for name, ranges in wanted.items()}
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(item["pip"] for item in listed if isinstance(item, dict))
    given = dict(split(item) for item in listed if isinstance(item, str))
    given |= dict(split(item) for item in pip if not item.startswith("-"))
    assert given.pop("python") == pyproject()["requires-python"]
    given.pop("pip")
    assert given == wanted


def test_requirements_have_no_upper_pins() -> None:
    for requirement in pyproject()["dependencies"]:
        assert re.search(r"<|==|~=", requirement) is None, requirement


def test_importing_labkit_loads_neither_torch_nor_scikit_learn() -> None:
    code = "import sys, labkit; print(sorted({'torch', 'sklearn', 'pandas', 'matplotlib'} & set(sys.modules)))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_every_public_name_can_be_had() -> None:
    import labkit

    for name in labkit.__all__:
        assert getattr(labkit, name) is not None


def test_the_wheel_holds_its_data_and_works_outside_the_checkout(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="building without isolation needs hatchling")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            str(tmp_path),
            str(ROOT),
        ],
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "import labkit, labkit.course.series; assert str(labkit.__file__).startswith(r'%s'), labkit.__file__;"
        "m = labkit.load_manifest('fashion-mini'); assert len(labkit.load_dataset(m, 'test')) == 2000;"
        "assert len(labkit.load_dataset('emoji-unseen', 'test')) == 520;"
        "assert labkit.load_prompts('digits').names[7];"
        "assert labkit.course.series.find_notebooks()[0].name == '00_start_here.ipynb'; print('well')"
    ) % (tmp_path / "site")
    outcome = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert outcome.stdout.strip() == "well", outcome.stderr
