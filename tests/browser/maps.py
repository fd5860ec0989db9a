"""The map in Chromium: opened from disk without a network, and moved while its frames are counted."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
WAIT = 90_000  # milliseconds; a busy machine needs them, an idle one a few seconds

MOVE = (Path(__file__).parent / "move_map.js").read_text("utf-8")


@contextlib.contextmanager
def opened(path: Path, **options: Any) -> Iterator[Any]:
    """A page from disk in a browser without a network; an error that it logs, or an address it asks for, is raised."""
    from playwright.sync_api import sync_playwright

    wrong: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        try:
            context = browser.new_context(
                offline=True, viewport={"width": 1280, "height": 800}, accept_downloads=True, **options
            )
            page = context.new_page()
            page.set_default_timeout(WAIT)
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
            page.on("request", lambda request: wrong.append(request.url) if request.url.startswith("http") else None)
            page.on("dialog", lambda dialog: wrong.append(f"dialog {dialog.message}"))
            page.goto(path.as_uri())
            page.locator("body[data-ready]").wait_for()
            yield page
        finally:
            browser.close()
    if wrong:
        raise AssertionError(f"the page said {wrong}")


def until(page: Any, condition: str) -> None:
    """Wait until JavaScript is true. The page's policy forbids what Playwright's own function for it does."""
    deadline = time.monotonic() + WAIT / 1000
    while not page.evaluate(condition):
        if time.monotonic() > deadline:
            raise AssertionError(f"it did not become true that {condition}")
        time.sleep(0.03)


def frames_a_second(page: Any, seconds: float) -> dict[str, float]:
    """How many frames a second the map draws while it is moved: all in all, and in each part."""
    return dict(page.evaluate(MOVE, seconds))
