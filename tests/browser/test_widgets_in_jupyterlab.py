"""A learner moves a slider: a real JupyterLab in a real browser, from an empty folder to a redrawn image."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install labkit[test]")
pytest.importorskip("jupyterlab", reason="jupyterlab is not installed")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
WAIT = 60_000  # milliseconds; a busy machine needs them, an idle one a few seconds

NOTEBOOK = """\
from labkit import plots
from labkit.course import widgets

def draw(width):
    fig, axes = plots.figure(width=width, height=2)
    axes[0, 0].plot([0, width])
    return fig

widgets.explore(draw, alt="A line that grows with the slider.", width=[3, 5, 7])
"""


@pytest.fixture
def lab_url(tmp_path: Path) -> Iterator[str]:
    """Address of a notebook in a JupyterLab that serves an empty folder."""
    root = tmp_path / "root"
    root.mkdir()
    kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [nbformat.v4.new_code_cell(NOTEBOOK)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernelspec}), root / "slider.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    environment = {name: value for name, value in os.environ.items() if name != "LABKIT_HEADLESS"}
    for name in ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR"):  # the user's own settings play no part
        environment[f"JUPYTER_{name}"] = str(tmp_path / name)
    environment["JUPYTERLAB_SETTINGS_DIR"] = environment["JUPYTERLAB_WORKSPACES_DIR"] = str(tmp_path / "lab")
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    command += ["--ServerApp.port_retries=0", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={root}"]
    quiet = tmp_path / "lab" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    quiet.parent.mkdir(parents=True)
    quiet.write_text('{"fetchNews": "false", "checkForUpdates": false}', encoding="utf-8")
    log = tmp_path / "jupyterlab.log"
    with log.open("wb") as file:
        server = subprocess.Popen(command, env=environment, cwd=root, stdout=file, stderr=subprocess.STDOUT)
    try:
        _wait_for(f"http://127.0.0.1:{port}/api?token={token}", server, log)
        yield f"http://127.0.0.1:{port}/lab/tree/slider.ipynb?token={token}"
    finally:
        server.terminate()  # shuts the kernel down too
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            server.kill()


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + WAIT / 1000
    while time.monotonic() < deadline and server.poll() is None:
        try:
            opener.open(url, timeout=2).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on this machine")
def test_moving_the_slider_redraws_the_picture(lab_url: str) -> None:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        try:
            page = browser.new_page(viewport={"width": 1200, "height": 900})
            page.set_default_timeout(WAIT)
            page.goto(lab_url)
            page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
            page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()  # before that, running cells is silently ignored
            page.get_by_role("menuitem", name="Run", exact=True).click()
            page.get_by_role("menuitem", name="Run All Cells", exact=True).click()

            picture = page.locator("img.labkit-figure")
            picture.wait_for()
            page.wait_for_function("document.querySelector('img.labkit-figure').naturalWidth > 100")
            source, width = picture.get_attribute("src"), picture.evaluate("image => image.naturalWidth")

            slider = page.locator(".widget-slider [role=slider]").first
            slider.focus()
            slider.press("ArrowRight")
            page.wait_for_function(
                "before => document.querySelector('img.labkit-figure').naturalWidth > before + 150", arg=width
            )
            assert picture.get_attribute("src") != source
            assert picture.evaluate("image => image.width <= image.naturalWidth")  # not blown up to the page's width
            assert page.locator(".widget-slider .widget-readout").first.inner_text() == "5"
            assert page.get_by_text("A line that grows with the slider.", exact=True).is_visible()
            assert page.locator("[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
        finally:
            browser.close()
