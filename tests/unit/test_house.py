"""The house: which wing may import which, no circles, no large modules, nobody reaches for another's private names."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "labkit"
# From the ground up. What stands on a floor imports only from floors below it, and from its own wing.
FLOORS = (
    ("errors", "_files", "_inputs", "_pages", "_processes", "_saved", "_scales", "_stored"),  # these make one wing
    ("devices", "pocket"),
    ("data", "evaluation"),
    ("spaces", "turtle", "plots"),
    ("zeroshot",),
    ("must",),
    ("own", "papers"),
    ("course",),
    ("cli",),
    ("pocket.recipe",),  # how the pocket models were made: may use everything
)
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
    if path.parent != PACKAGE or path.name != "__init__.py"
}
LARGEST = 350  # lines


def imports_of(module: str, *, types: bool) -> Iterator[tuple[str, str]]:
    """The modules of labkit that a module imports anywhere in it, each with the name that is taken from it or ""."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if not types and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for inner in ast.walk(node):
                inner.skipped = True  # type: ignore[attr-defined]
    for node in ast.walk(tree):
        if getattr(node, "skipped", False):
            continue
        if isinstance(node, ast.Import):
            found = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found = [(node.module or "", alias.name) for alias in node.names]
        else:
            continue
        for source, name in found:
            if source == "labkit" and name in MODULES:
                yield name, ""
            elif source.startswith("labkit."):
                source = source.removeprefix("labkit.")
                inner = f"{source}.{name}"
                yield (inner, "") if inner in MODULES else (source, name)


def floor_and_wing(module: str) -> tuple[int, str]:
    for i in reversed(range(len(FLOORS))):
        for wing in FLOORS[i]:
            if module == wing or module.startswith(f"{wing}."):
                return i, ("ground" if i == 0 else wing)
    raise AssertionError(f"labkit/{module.replace('.', '/')}.py stands on no floor: give it one in FLOORS")


def test_imports_go_down() -> None:
    wrong = [
        f"{module} imports {other}"
        for module in MODULES
        for other, _ in imports_of(module, types=True)
        if floor_and_wing(module)[1] != floor_and_wing(other)[1]
        and floor_and_wing(module)[0] <= floor_and_wing(other)[0]
    ]
    assert not wrong, "imports that do not go down:\n" + "\n".join(wrong)


def test_there_is_no_circle() -> None:
    below = {module: {other for other, _ in imports_of(module, types=False)} - {module} for module in MODULES}
    while True:
        done = {module for module, others in below.items() if not others}
        if not done:
            break
        below = {module: others - done for module, others in below.items() if module not in done}
    assert not below, f"a circle goes through {sorted(below)}"


def test_nobody_takes_anothers_private_names() -> None:
    taken = [
        f"{module} takes {name} from {other}"
        for module in MODULES
        for other, name in imports_of(module, types=True)
        if name.startswith("_")
    ]
    assert not taken


@pytest.mark.parametrize("module", MODULES)
def test_modules_are_small(module: str) -> None:
    n_lines = len(MODULES[module].read_text(encoding="utf-8").splitlines())
    assert n_lines < (200 if module == "cli" else LARGEST)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_says_first_what_it_is(module: str) -> None:
    docstring = ast.get_docstring(ast.parse(MODULES[module].read_text(encoding="utf-8")))
    assert docstring is not None
    assert docstring.splitlines()[0].strip()


def test_tests_mirror_the_wings() -> None:
    wings = {floor_and_wing(module)[1] for module in MODULES if "." in module} - {"pocket.recipe"}
    assert wings <= {path.name for path in Path(__file__).parent.iterdir() if path.is_dir()} | {"plots"}
