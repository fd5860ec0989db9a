"""The page of reproductions in a real browser, from disk and without a network: axe, light and dark, small screens."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labkit.papers.page import write_report
from tests.unit.papers.test_report import add

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install labkit[test]")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if BROWSER is None:
    pytest.skip("no Chromium or Chrome on this machine", allow_module_level=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield running
        running.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_can_be_read_by_all(scheme: str, browser: Any, tmp_path: Path) -> None:
    add(tmp_path, 0.6, method="turtle")
    add(tmp_path, 0.1, method="turtle", dataset="imagenet", stand_in=True)
    add(tmp_path, 0.52, paper="must", method="must", spaces=["clip-vit-b16"])
    write_report([tmp_path], tmp_path / "page.html")
    page = browser.new_page(viewport={"width": 400, "height": 800}, color_scheme=scheme)
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.goto((tmp_path / "page.html").as_uri())
    found = axe.Axe().run(page).response["violations"]
    assert not found, [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found]
    wide = page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert wide  # tables scroll in boxes of their own
    shown = page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert shown
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert said == []
    page.close()
