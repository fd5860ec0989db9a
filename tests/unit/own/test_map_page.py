"""The page of the map: what is in it, that nothing of a name runs, and which thumbnails fit beside one another."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import urllib.parse
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from labkit.errors import DataError
from labkit.own.map_page import map_page, reach
from tests.unit.own.fake_clusters import fake_clustering, fake_large, thumbnail

HOSTILE = (
    "</script><script>alert(1)</script>.jpg",
    "<!--<script>.jpg",
    '" onerror="alert(1)".jpg',
    "=cmd().jpg",
    "line\nbreak.jpg",
    "50% of #1?.jpg",
    "javascript:alert(1).jpg",
    "🦊 \u2028.jpg",
)


class Page(HTMLParser):
    """The elements of a page, and the text of its scripts."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.parts: list[tuple[dict[str, str | None], list[str]]] = []
        self.text = content.decode()
        self.feed(self.text)
        self.scripts = [(attrs, "".join(parts)) for attrs, parts in self.parts]
        self.data: dict[str, Any] = next(json.loads(text) for a, text in self.scripts if a.get("id") == "data")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.parts.append((dict(attrs), []))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.parts[-1][1].append(data)

    @property
    def sheets(self) -> list[Image.Image]:
        encoded = [text for a, text in self.scripts if a.get("class") == "sheet"]
        return [Image.open(io.BytesIO(base64.b64decode(text))) for text in encoded]


def small(folder: Path, files: tuple[str, ...] = ("a.jpg", "b/c.jpg", "d.jpg")) -> Page:
    n = len(files)
    clustering = fake_clustering(folder / "photos", files, [i % 2 for i in range(n)], ["shoes", ""])
    positions = np.linspace(-1, 1, 2 * n).reshape(n, 2)
    return Page(map_page(clustering, [thumbnail(i) for i in range(n)], positions, folder / "out"))


def test_the_page_knows_images_clusters_and_places(tmp_path: Path) -> None:
    data = small(tmp_path).data
    assert data["files"] == ["a.jpg", "b/c.jpg", "d.jpg"]
    assert data["cluster"] == [0, 1, 0]
    assert data["confidence"] == [50, 75, 100]
    assert [(c["cluster"], c["size"], c["name"]) for c in data["clusters"]] == [(0, 2, "shoes"), (1, 1, "")]
    assert data["links"] == ["../photos/a.jpg", "../photos/b/c.jpg", "../photos/d.jpg"]
    assert data["run"] == "a-run"
    np.testing.assert_allclose(np.array(data["x"]) / data["fine"] * 2 - 1, [-1, -0.2, 0.6], atol=1e-5)
    np.testing.assert_allclose(np.array(data["y"]) / data["fine"] * 2 - 1, [-0.6, 0.2, 1], atol=1e-5)


def test_the_page_says_how_the_places_were_found(tmp_path: Path) -> None:
    assert "Positions: UMAP of the features." in small(tmp_path).text


def test_the_same_clustering_gives_the_same_bytes(tmp_path: Path) -> None:
    assert small(tmp_path).text == small(tmp_path).text


def test_nothing_of_a_name_is_an_element_or_ends_one(tmp_path: Path) -> None:
    plain, hostile = small(tmp_path, tuple(f"{i}.jpg" for i in range(8))), small(tmp_path, HOSTILE)
    assert hostile.tags == plain.tags
    assert hostile.data["files"] == list(HOSTILE)
    for file, href in zip(HOSTILE, hostile.data["links"], strict=True):
        assert re.fullmatch(r"\.\./photos/[\w%./~-]+", href, re.ASCII)
        assert urllib.parse.unquote(href) == f"../photos/{file}"


def test_a_name_of_a_cluster_and_a_folder_are_text(tmp_path: Path) -> None:
    root = tmp_path / "<img src=x>"
    clustering = fake_clustering(root, ["a.jpg"], [0], ["</script><b>"])
    page = Page(map_page(clustering, [thumbnail(0)], np.zeros((1, 2)), tmp_path))
    assert page.data["clusters"][0]["name"] == "</script><b>"
    assert not {"b", "img"} & {tag for tag, _ in page.tags}
    assert "Map of &lt;img src=x&gt;" in page.text


@pytest.mark.skipif(os.name == "nt", reason="names are not bytes there")
def test_a_name_that_is_not_utf8_has_its_own_bytes_in_the_link(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    data = small(tmp_path, (name,)).data
    assert data["files"] == ["caf\\xe9.jpg"]
    assert data["links"] == ["../photos/caf%E9.jpg"]


def test_only_the_pages_own_script_may_run_and_nothing_is_fetched(tmp_path: Path) -> None:
    page = small(tmp_path)
    policy = next(a["content"] or "" for tag, a in page.tags if tag == "meta" and "http-equiv" in a)
    script = page.scripts[-1][1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert not [a for tag, a in page.tags if "style" in a or any(name.startswith("on") for name in a)]
    assert not [a["src"] for _, a in page.tags if "src" in a]


def test_thumbnails_lie_in_their_cells(tmp_path: Path) -> None:
    n = 1025  # one more than a sheet holds
    clustering = fake_clustering(tmp_path, [f"{i}.jpg" for i in range(n)], [0] * n, [""])
    colors = [(i % 5 * 60, i % 3 * 120, i % 2 * 200) for i in range(n)]
    jpegs = {}
    for color in set(colors):
        jpeg = io.BytesIO()
        Image.new("RGB", (60, 120), color).save(jpeg, "JPEG", quality=95)
        jpegs[color] = jpeg.getvalue()
    page = Page(map_page(clustering, [jpegs[color] for color in colors], np.zeros((n, 2)), tmp_path))
    side, per_sheet = page.data["side"], page.data["perSheet"]
    assert len(page.sheets) == 2
    for i in (0, 1, 31, 32, 500, 1023, 1024):
        w, h = page.data["boxes"][i]
        assert (w, h) == (side // 2, side)
        sheet, place = page.sheets[i // per_sheet**2], i % per_sheet**2
        center = (place % per_sheet * side + w // 2, place // per_sheet * side + h // 2)
        np.testing.assert_allclose(sheet.getpixel(center), colors[i], atol=12)


@pytest.mark.parametrize("kind", ["random", "equal", "line"])
def test_images_of_a_reach_are_that_far_apart_and_leave_none_far_from_all(kind: str) -> None:
    rng = np.random.default_rng(0)
    places = {
        "random": rng.integers(0, 1_000_000, (60, 2)),
        "equal": np.full((60, 2), 5),
        "line": np.stack([np.arange(60) ** 3, np.zeros(60, int)], 1),
    }[kind]
    reached = reach(places)
    gaps = np.abs(places[:, None] - places[None]).max(2)
    for least in (1, 1000, 50_000, 200_000):
        kept = np.flatnonzero(reached >= least)
        between = gaps[np.ix_(kept, kept)] + np.eye(len(kept), dtype=int) * 10**9
        assert between.min() >= least
        assert gaps[:, kept].min(1).max() < least


def test_rejected_images_and_odd_numbers_of_clusters_have_a_place(tmp_path: Path) -> None:
    clustering = fake_clustering(tmp_path, ["a.jpg", "b.jpg"], [0, 1], ["", ""])
    clustering.images.loc[0, "cluster"] = -1
    data = Page(map_page(clustering, [thumbnail(0)] * 2, np.zeros((2, 2)), tmp_path)).data
    assert data["cluster"] == [-1, 1]


def test_a_page_of_many_images_stays_small(tmp_path: Path) -> None:
    clustering, thumbnails, positions = fake_large(tmp_path, 3000, 30)
    page = map_page(clustering, thumbnails, positions, tmp_path)
    assert len(page) < 30_000_000 * 3000 / 20_000 * (64 / 48) ** 2 + 500_000
    assert Page(page).data["side"] == 96 or Page(page).data["side"] == 64


def test_one_thumbnail_and_one_place_for_each_image(tmp_path: Path) -> None:
    clustering = fake_clustering(tmp_path, ["a.jpg", "b.jpg"], [0, 0], [""])
    for thumbnails, positions in (
        ([thumbnail(0)], np.zeros((2, 2))),
        ([thumbnail(0)] * 2, np.zeros((3, 2))),
        ([thumbnail(0)] * 2, np.full((2, 2), np.nan)),
    ):
        with pytest.raises(DataError, match="for 2 images"):
            map_page(clustering, thumbnails, positions, tmp_path)
