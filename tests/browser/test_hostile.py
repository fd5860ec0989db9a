"""The pages that `labkit cluster` makes of a hostile folder: in a real browser, no name of a file runs."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from labkit.cli import main
from labkit.own import layout
from labkit.own.clustering import MAP, load_clustering
from tests.browser.test_gallery import Opened, browser, opened
from tests.unit.own.hostile import make_hostile

__all__ = ["browser", "opened"]  # fixtures
pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
FOREIGN = "[...document.querySelectorAll('*')].filter(e => [...e.attributes].some(a => /^on/i.test(a.name))).length"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    make_hostile(folder / "photos <script>alert(9)<", 40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_CACHE", str(folder / "cache"))
        patch.setattr(layout, "FEWEST", 1000)  # two principal components: compiling UMAP takes 20 seconds
        command = ["cluster", str(folder / "photos <script>alert(9)<"), "--out", str(folder / "out")]
        assert main([*command, "--backbone", "pixels", "--classes", "4", "--restarts", "2"]) == 0
    return folder / "out"


def scripts(page: Any) -> int:
    return int(page.evaluate("document.scripts.length"))


def test_gallery(out: Path, opened: Opened) -> None:
    page = opened.goto(out)
    n_scripts = scripts(page)
    odd = load_clustering(out).images["file"]
    seen = set()
    opened.keys("j", "ArrowRight", "Enter")
    for _ in range(4):
        for _ in range(25):
            seen.add(page.locator("#original-name").text_content())
            opened.keys("ArrowRight")
        opened.keys("Escape", "j", "ArrowRight", "Enter")
    assert seen <= set(odd)
    assert len(seen) > 25
    assert any("alert" in name for name in odd)
    assert scripts(page) == n_scripts
    assert page.evaluate(FOREIGN) == 0


def test_map(out: Path, opened: Opened) -> None:
    page = opened.page
    page.goto((out / MAP).as_uri())
    page.locator("body[data-ready]").wait_for()
    n_scripts = scripts(page)
    page.keyboard.press("Tab")
    page.keyboard.type("alert")
    page.keyboard.press("Enter")
    expected = [name for name in load_clustering(out).images["file"] if "alert" in name]
    assert page.locator("#found").inner_text().startswith(f"{len(expected)} of ")
    assert sorted(page.locator("#chosen a").all_text_contents()) == sorted(
        PurePosixPath(name).name for name in expected
    )
    assert scripts(page) == n_scripts
    assert page.evaluate(FOREIGN) == 0
