"""The map in a real browser: from disk without a network, by mouse and by keyboard, and with 20,000 images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install labkit[test]")

from labkit.own.map_page import map_page
from tests.browser.maps import BROWSER, frames_a_second, opened, until
from tests.unit.own.fake_clusters import fake_clustering, fake_large, thumbnail

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(300),
    pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on this machine"),
]

HOSTILE = "<img src=x onerror=alert(1)> '\"&.jpg"
FILES = ["red/a b.jpg", "red/ü#1?.jpg", "blue/c.jpg", f"blue/{HOSTILE}", "blue/100%.jpg", "e.jpg"]
PLACES = [(-1, -1), (-0.9, -0.9), (1, 1), (0.9, 0.9), (0.95, 1), (1, -1)]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A map of six images that exist, in two clusters."""
    root, out = tmp_path / "photos ü", tmp_path / "out"
    clustering = fake_clustering(root, FILES, [0, 0, 1, 1, 1, 0], ["shoes", "</script><script>alert(2)</script>"])
    for i, path in enumerate(clustering.paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(thumbnail(i))
    out.mkdir()
    page = map_page(clustering, [thumbnail(i) for i in range(6)], np.array(PLACES, float), out)
    (out / "map.html").write_bytes(page)
    return out / "map.html"


def point(page: Any, i: int) -> tuple[float, float]:
    """Where an image is in the window."""
    until(page, "Math.abs(view.scale / view.fit - 1) < 0.01")
    left, top = page.evaluate("i => { const r = images.getBoundingClientRect(); return [r.left, r.top] }", i)
    x, y = page.evaluate("i => [screenX(i), screenY(i)]", i)
    return left + x, top + y


def saved_review(page: Any) -> dict[str, Any]:
    with page.expect_download() as download:
        page.get_by_role("button", name="Save review.json").click()
    return dict(json.loads(Path(download.value.path()).read_text("utf-8")))


def lasso(page: Any, i: int, j: int) -> None:
    """Shift and drag around the box between two images."""
    (left, top), (right, bottom) = point(page, i), point(page, j)
    page.keyboard.down("Shift")
    page.mouse.move(left - 25, top - 25)
    page.mouse.down()
    for x, y in ((right + 25, top - 25), (right + 25, bottom + 25), (left - 25, bottom + 25)):
        page.mouse.move(x, y, steps=4)
    page.mouse.up()
    page.keyboard.up("Shift")


def test_click_lasso_move_and_reject_give_a_review(small: Path) -> None:
    with opened(small) as page:
        page.mouse.click(*point(page, 5))
        assert page.locator("#selected").inner_text() == "1 image selected"
        assert page.locator("#chosen a").get_attribute("href") == "../photos%20%C3%BC/e.jpg"
        until(page, "document.querySelector('#chosen img')?.naturalWidth > 0")  # the original, from disk

        lasso(page, 0, 1)
        assert page.locator("#chosen li").count() == 2
        page.locator("#target").select_option("1")
        page.get_by_role("button", name="Move", exact=True).click()
        assert page.locator("#operations li").all_inner_texts() == ["Move 2 images to cluster 1"]
        assert page.locator("#clusters .count").all_inner_texts() == ["5", "1"]

        lasso(page, 3, 2)
        page.get_by_role("button", name="Reject").click()
        assert saved_review(page) == {
            "labkit": "review",
            "version": 1,
            "run": "a-run",
            "operations": [
                {"do": "move", "files": FILES[:2], "cluster": 1},
                {"do": "reject", "files": FILES[2:5]},
            ],
        }
        page.get_by_role("button", name="Undo").click()
        page.get_by_role("button", name="Undo").click()
        assert page.locator("#clusters .count").all_inner_texts() == ["3", "3"]
        assert page.get_by_role("button", name="Undo").is_disabled()


def test_keyboard_alone_searches_selects_and_rejects(small: Path) -> None:
    with opened(small) as page:
        page.keyboard.press("Tab")
        page.keyboard.type("BLUE onerror")
        page.keyboard.press("Enter")
        assert page.locator("#found").inner_text() == "1 of 6"
        assert page.locator("#chosen a").inner_text() == f"blue/{HOSTILE}"

        page.locator("#clusters button").first.focus()  # Select, beside the first cluster
        page.keyboard.press("Enter")
        assert page.locator("#selected").inner_text() == "3 images selected"
        page.locator("#reject").focus()
        page.keyboard.press("Enter")
        assert page.locator("#operations li").all_inner_texts() == ["Reject 3 images"]
        assert page.evaluate("document.activeElement.id") == "images"
        page.keyboard.press("0")
        until(page, "Math.abs(view.scale / view.fit - 1) < 0.01")
        before = page.evaluate("view.scale")
        page.keyboard.press("+")
        until(page, f"view.scale > 1.4 * {before}")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("0")
        until(page, "Math.abs(view.scale / view.fit - 1) < 0.01")


def test_search_and_legend_say_what_is_shown(small: Path) -> None:
    with opened(small) as page:
        page.get_by_role("searchbox").fill("shoes")
        until(page, "document.getElementById('found').textContent === '3 of 6'")
        assert page.evaluate("[...shown.matches]") == [1, 1, 0, 0, 0, 1]
        page.get_by_role("searchbox").fill("")
        until(page, "shown.matches === null")
        page.get_by_role("checkbox", name="shoes").uncheck()
        page.mouse.click(*point(page, 5))
        assert page.locator("#selected").inner_text() == "Nothing selected"  # it is hidden
        page.get_by_role("button", name="All", exact=True).click()
        assert page.get_by_role("checkbox", name="shoes").is_checked()


def test_a_review_goes_on_after_the_page_was_closed_and_opened(small: Path, tmp_path: Path) -> None:
    review = {"labkit": "review", "version": 1, "run": "a-run"}
    operations = [{"do": "merge", "clusters": [0, 1]}, {"do": "rename", "cluster": 0, "name": "all"}]
    file = tmp_path / "review.json"
    with opened(small) as page:
        file.write_text(json.dumps({**review, "operations": operations}), "utf-8")
        page.locator("#file").set_input_files(file)
        until(page, "document.querySelectorAll('#operations li').length === 2")
        assert page.locator("#clusters .count").all_inner_texts() == ["6"]
        page.reload()
        page.locator("body[data-ready]").wait_for()
        assert page.locator("#operations li").count() == 2
        file.write_text(json.dumps({**review, "run": "another", "operations": []}), "utf-8")
        page.locator("#file").set_input_files(file)
        page.get_by_text("it is the review of another run").wait_for()
        assert saved_review(page)["operations"] == operations


def test_copying_gives_the_file_names(small: Path) -> None:
    with opened(small, permissions=["clipboard-read", "clipboard-write"]) as page:
        lasso(page, 0, 1)
        page.get_by_role("button", name="Copy file names").click()
        page.get_by_text("Copied 2 file names").wait_for()
        assert page.evaluate("navigator.clipboard.readText()") == "\n".join(FILES[:2])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(small: Path, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    with opened(small, color_scheme=scheme, bypass_csp=True) as page:
        for _ in range(2):
            found = axe.Axe().run(page).response["violations"]
            assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []
            lasso(page, 0, 1)
            page.locator("#reject").hover()


def test_twenty_thousand_images_move_smoothly(tmp_path: Path) -> None:
    clustering, thumbnails, positions = fake_large(tmp_path / "photos", 20_000, 40)
    content = map_page(clustering, thumbnails, positions, tmp_path)
    assert len(content) < 30_000_000
    (tmp_path / "map.html").write_bytes(content)
    with opened(tmp_path / "map.html") as page:
        assert page.locator("#clusters li").count() == 40
        rate = frames_a_second(page, 6)
        print({part: round(value) for part, value in rate.items()})
        if rate["all"] < 30:  # on a machine that does other things too
            page.get_by_text("below 30 frames a second").wait_for()
        page.evaluate("zoom(12)")
        until(page, "drawn.length > 20")  # thumbnails, once it stands
        page.get_by_role("button", name="Fit").click()
        until(page, "Math.abs(view.scale / view.fit - 1) < 0.01")
        lasso_all = "select(within([[0, 0], [view.width, 0], [view.width, view.height], [0, view.height]]))"
        page.evaluate(lasso_all)
        assert page.locator("#selected").inner_text() == "20,000 images selected"
        assert page.locator("#chosen li").count() == 120
