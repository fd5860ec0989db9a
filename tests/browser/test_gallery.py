"""The gallery in a real browser, from disk and without a network: keys alone, any name of a file, light and dark."""

from __future__ import annotations

import csv
import json
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labkit.cli import main
from labkit.own.clustering import Clustering, load_clustering
from labkit.own.gallery import gallery_page
from labkit.own.review import Review, read_review, reviewed
from tests.unit.own.clusterings import make_clustering, make_features, make_thumbnails
from tests.unit.own.test_gallery import HOSTILE

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install labkit[test]")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if BROWSER is None:
    pytest.skip("no Chromium or Chrome on this machine", allow_module_level=True)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
WAIT = 30_000  # milliseconds


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    flags = ["blurred", "", "near duplicate of image00.png"] * 4
    return write(make_clustering(tmp_path / "photos", flags=flags), tmp_path / "out")


def write(clustering: Clustering, out: Path) -> Path:
    out.mkdir(exist_ok=True)
    clustering.save(out)
    page = gallery_page(clustering, make_thumbnails(clustering), make_features(clustering), out)
    (out / "clusters.html").write_bytes(page)
    return out


class Opened:
    """A page from disk in a browser without a network; what goes wrong in it is remembered."""

    def __init__(self, browser: Any, **context: Any) -> None:
        self.wrong: list[str] = []
        self.context = browser.new_context(accept_downloads=True, **context)
        self.context.set_offline(True)
        self.context.route(lambda url: not url.startswith("file:"), self._refuse)
        self.page = self.context.new_page()
        self.page.set_default_timeout(WAIT)
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("console", lambda message: message.type == "error" and self.wrong.append(message.text))
        self.page.on("dialog", lambda dialog: (self.wrong.append(f"alert: {dialog.message}"), dialog.dismiss()))

    def _refuse(self, route: Any) -> None:
        self.wrong.append(f"asked for {route.request.url}")
        route.abort()

    def goto(self, out: Path) -> Any:
        self.page.goto((out / "clusters.html").as_uri())
        self.page.locator("article").first.wait_for()
        return self.page

    def keys(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def wait_for_original(self, width: int) -> None:
        """Wait until the dialog shows an image so wide. (The page's policy forbids Playwright's own way to wait.)"""
        image = self.page.locator("#original-image")
        deadline = time.monotonic() + WAIT / 1000
        while image.evaluate("image => image.naturalWidth") != width:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def save(self, place: Path) -> Path:
        with self.page.expect_download() as download:
            self.keys("Shift+S")
        assert download.value.suggested_filename == "review.json"
        download.value.save_as(place)
        return place


@pytest.fixture
def opened(browser: Any) -> Iterator[Opened]:
    page = Opened(browser)
    yield page
    page.context.close()
    assert page.wrong == []


def axe_finds(page: Any) -> list[str]:
    found = axe.Axe().run(page).response["violations"]
    return [f"{v['id']}: {v['nodes'][0]['html'][:200]}" for v in found if v["impact"] in ("serious", "critical")]


def operations(page: Any) -> list[str]:
    return page.locator("#operations li").all_inner_texts()


def visible(page: Any) -> list[str]:
    return page.locator("article:not([hidden]) h2").all_inner_texts()


# ------------------------------------------------------------------------------------------------------------- the keys


def test_keys_alone_merge_rename_save_and_apply_changes_the_table(out: Path, opened: Opened, tmp_path: Path) -> None:
    page = opened.goto(out)
    page.locator("#sort").select_option("number")
    page.locator("body").focus()
    opened.keys("j", "m", "j", "j", "m", "Shift+M")  # 0 and 2
    assert operations(page) == ["Merge clusters 0 and 2"]
    assert page.evaluate("document.activeElement.id") == "cluster-0"
    assert "6 images" in page.locator("#cluster-0 .facts").inner_text()
    assert not page.locator("#cluster-2").is_visible()
    opened.keys("j", "r")
    page.keyboard.type("=leaves <b>")
    opened.keys("Enter")
    assert operations(page)[1] == "Name cluster 1 “=leaves <b>”"
    assert page.evaluate("document.activeElement.id") == "cluster-1"
    place = opened.save(tmp_path / "Downloads" / "review.json")
    assert json.loads(place.read_text("utf-8")) == {
        "labkit": "review",
        "version": 1,
        "run": "run-1",
        "operations": [
            {"do": "merge", "clusters": [0, 2]},
            {"do": "rename", "cluster": 1, "name": "=leaves <b>"},
        ],
    }

    assert main(["apply", str(place), "--to", str(out)]) == 0
    with (out / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["cluster"] for row in rows] == ["0"] * 3 + ["1"] * 3 + ["0"] * 3 + ["3"] * 3
    assert [row["name"] for row in rows[::3]] == ["red", "'=leaves <b>", "red", "yellow"]

    page = opened.goto(out)  # made anew, it begins with what was done; nothing waits to be done again
    assert visible(page) == ["CLUSTER 0", "CLUSTER 1", "CLUSTER 3"]
    assert len(operations(page)) == 2
    assert page.locator("#n-badge").inner_text() == "0"
    opened.keys("j", "j", "j", "x")
    again = read_review(opened.save(tmp_path / "Downloads" / "review (1).json"))
    assert again.operations[2:] == [{"do": "reject", "cluster": 3}]
    assert main(["apply", str(tmp_path / "Downloads" / "review (1).json"), "--to", str(out)]) == 0
    assert load_clustering(out).labels.tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0, -1, -1, -1]


def test_images_are_selected_rejected_and_moved_by_keys(out: Path, opened: Opened, tmp_path: Path) -> None:
    page = opened.goto(out)
    page.locator("#sort").select_option("number")
    page.locator("body").focus()
    opened.keys("j", "ArrowRight", "Space", "ArrowRight", "ArrowRight", "Space")
    assert page.locator("#selected-text").inner_text() == "2 images selected"
    opened.keys("x")
    assert page.locator("#cluster-rejected").is_visible()
    assert "1 image" in page.locator("#cluster-0 .facts").inner_text()
    opened.keys("ArrowRight", "Space", "v")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    opened.keys("Enter")
    review = read_review(opened.save(tmp_path / "review.json"))
    assert review.operations == [
        {"do": "reject", "files": ["image00.png", "image02.png"]},
        {"do": "move", "files": ["image01.png"], "cluster": 1},
    ]
    opened.keys("u", "u")
    assert operations(page) == []
    assert page.locator("#cluster-0 .tile").count() == 3
    assert not page.locator("#cluster-rejected").is_visible()


def test_split_undo_escape_and_help(out: Path, opened: Opened) -> None:
    page = opened.goto(out)
    opened.keys("j", "s")
    page.keyboard.type("3")
    opened.keys("Enter")
    assert operations(page) == ["Split cluster 0 into 3"]
    assert "will be split into 3" in page.locator("#cluster-0 .facts").inner_text()
    opened.keys("m")
    assert "will be split" in page.locator("#message").inner_text()
    opened.keys("u", "m", "Escape", "?")
    assert page.locator("#tray").is_hidden()
    assert page.locator("#help").is_visible()
    opened.keys("Escape")
    assert page.locator("#help").is_hidden()
    opened.keys("x", "x", "x", "x")
    assert len(operations(page)) == 3
    assert "last cluster" in page.locator("#message").inner_text()


def test_buttons_do_what_keys_do(out: Path, opened: Opened) -> None:
    page = opened.goto(out)
    for cluster in (0, 3):
        page.get_by_role("button", name=f"Mark to merge cluster {cluster}").click()
    page.locator("#merge").click()
    page.get_by_role("button", name="Name cluster 0 crimson").click()
    page.get_by_role("button", name="Split cluster 1").click()
    page.get_by_role("button", name="Split", exact=True).click()
    page.get_by_role("button", name="Reject cluster 2").click()
    tile = page.locator("#cluster-1 .tile").first
    tile.hover()
    tile.locator(".corner").click()
    page.locator("#move-to").select_option("0")
    page.locator("#move").click()
    assert operations(page) == [
        "Merge clusters 0 and 3",
        "Name cluster 0 “crimson”",
        "Split cluster 1 into 2",
        "Reject cluster 2",
        "Move 1 image to cluster 0",
    ]
    page.locator("#undo").click()
    assert len(operations(page)) == 4


def test_filters_and_sorting(out: Path, opened: Opened) -> None:
    page = opened.goto(out)
    page.locator("#filter").fill("GREEN")
    assert visible(page) == ["CLUSTER 1"]
    assert page.locator(".tile:visible").count() == 3
    page.locator("#filter").fill("image07")
    assert visible(page) == ["CLUSTER 2"]
    assert page.locator(".tile:visible").count() == 1
    page.locator("#filter").fill("")
    page.locator("#flags").select_option("near duplicate")
    assert page.locator(".tile:visible").count() == 4
    page.locator("#flags").select_option("")
    page.locator("#sort").select_option("doubtful")
    assert visible(page) == ["CLUSTER 3", "CLUSTER 2", "CLUSTER 1", "CLUSTER 0"]


# --------------------------------------------------------------------------------------------------------- what is kept


def test_a_review_survives_a_reload_and_other_storage_does_no_harm(out: Path, opened: Opened) -> None:
    page = opened.goto(out)
    opened.keys("j", "m", "j", "m", "Shift+M")
    page = opened.goto(out)
    assert operations(page) == ["Merge clusters 0 and 1"]
    for kept in ("{", "3", "[{}]", '[{"do": "reject", "cluster": 99}]', '[{"do": "merge", "clusters": ["a", {}]}]'):
        page.evaluate("kept => localStorage.setItem('labkit-review:run-1', kept)", kept)
        page = opened.goto(out)
        assert operations(page) == []


def test_images_that_are_not_shown_are_counted(tmp_path: Path, opened: Opened) -> None:
    clustering = make_clustering(tmp_path / "photos", [0] * 60 + [1] * 9)
    page = opened.goto(write(clustering, tmp_path / "out"))
    hidden = page.evaluate("elsewhere.map(image => image.file)")
    operation = {"do": "move", "files": hidden[:2], "cluster": 1}  # as the map may
    page.evaluate("kept => localStorage.setItem('labkit-review:run-1', kept)", json.dumps([operation]))
    page = opened.goto(tmp_path / "out")
    assert operations(page) == ["Move 2 images to cluster 1"]
    assert "58 images" in page.locator("#cluster-0 .facts").inner_text()
    assert "11 images" in page.locator("#cluster-1 .facts").inner_text()


def test_without_storage(out: Path, opened: Opened) -> None:
    opened.context.add_init_script(
        "Object.defineProperty(window, 'localStorage', {get() { throw new Error('no storage'); }})"
    )
    page = opened.goto(out)
    opened.keys("j", "x")
    assert operations(page) == ["Reject cluster 0"]


# -------------------------------------------------------------------------------------------------- names and originals


def test_no_name_runs_and_every_original_opens(tmp_path: Path, opened: Opened) -> None:
    words = ("<script>alert(5)</script>", '"><img src=x onerror=alert(6)>', "</script>", "=cmd()")
    clustering = make_clustering(tmp_path / "pho#tos %41", files=HOSTILE, names=words)
    clustering.report["left_out"] = {"<img src=x onerror=alert(7)>": "<script>alert(8)</script>"}
    page = opened.goto(write(clustering, tmp_path / "<i>o?ut"))
    titles = page.locator("article:not([hidden]) .name").evaluate_all("inputs => inputs.map(input => input.value)")
    assert titles == list(words)
    opened.keys("j", "ArrowRight", "Enter")
    seen = []
    for _ in range(12):
        opened.wait_for_original(40)  # thumbnails have 32
        seen.append(page.locator("#original-name").text_content())
        if len(seen) % 3 == 0:
            opened.keys("Escape", "j", "ArrowRight", "Enter")
        else:
            opened.keys("ArrowRight")
    assert sorted(seen) == sorted(clustering.images["file"])


def test_an_original_that_is_gone_is_said(out: Path, tmp_path: Path, browser: Any) -> None:
    opened = Opened(browser)
    (tmp_path / "photos" / "image00.png").unlink()
    page = opened.goto(out)
    page.locator(".tile").first.click()
    page.locator("#original-note").wait_for()
    opened.wait_for_original(32)
    page.locator("#select").click()
    page.locator("#close").click()
    assert page.locator("#selected-text").inner_text() == "1 image selected"
    opened.context.close()


# --------------------------------------------------------------------------------------------------------- for everyone


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_serious(out: Path, browser: Any, scheme: str, width: int) -> None:
    opened = Opened(browser, color_scheme=scheme, viewport={"width": width, "height": 800})
    page = opened.goto(out)
    assert axe_finds(page) == []
    opened.keys("j", "m", "j", "m", "ArrowRight", "Space")  # the tray is shown
    assert axe_finds(page) == []
    opened.keys("Enter")
    opened.wait_for_original(40)
    assert axe_finds(page) == []
    opened.keys("Escape", "Shift+M", "x", "j", "s")
    assert axe_finds(page) == []
    opened.keys("Escape", "?")
    assert axe_finds(page) == []
    opened.keys("Escape")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background[4:-1].split(","))) < 300) == (scheme == "dark")
    opened.context.close()
    assert opened.wrong == []


# -------------------------------------------------------------------------------------- the page and labkit apply agree


def test_the_page_and_python_do_the_same(tmp_path: Path, opened: Opened) -> None:
    clustering = make_clustering(tmp_path / "photos")
    page = opened.goto(write(clustering, tmp_path / "out"))
    rng = random.Random(0)
    for _ in range(30):
        chosen: list[dict[str, Any]] = []
        for _ in range(8):
            clusters, files = rng.sample(range(4), 2), rng.sample(clustering.images["file"].tolist(), 2)
            operation = rng.choice(
                [
                    {"do": "merge", "clusters": clusters},
                    {"do": "rename", "cluster": clusters[0], "name": rng.choice(["", "a", "b"])},
                    {"do": "reject", "cluster": clusters[0]},
                    {"do": "reject", "files": files},
                    {"do": "move", "files": files, "cluster": clusters[0]},
                ]
            )
            if not page.evaluate("([done, next]) => problem(derive(base, done), next)", [chosen, operation]):
                chosen.append(operation)
        state = page.evaluate(
            "done => { const s = derive(base, done); return {labels: s.clusterOf, rejected: s.rejected, clusters: "
            "[...s.clusters.values()].filter(c => c.size).map(c => [c.number, c.size, c.name, c.nameConfidence])} }",
            chosen,
        )
        if -1 in state["labels"] and len(set(state["labels"])) == 1:
            continue  # Python refuses a review that keeps nothing
        result = reviewed(clustering, Review("run-1", chosen), {})
        table = result.clusters.astype(object).where(result.clusters.notna(), None)
        assert state["labels"] == result.labels.tolist()
        assert state["rejected"] == (result.labels == -1).sum()
        assert state["clusters"] == table[["cluster", "size", "name", "name_confidence"]].to_numpy().tolist()
