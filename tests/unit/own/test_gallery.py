"""The gallery as a file: what is in it, how often, how large, and that nothing of a name can run."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import re
import urllib.parse
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labkit.own import gallery
from labkit.own.clustering import Clustering
from labkit.own.gallery import flag_kinds, gallery_page
from labkit.own.pages import link
from labkit.own.review import Review, reviewed
from tests.unit.own.clusterings import make_clustering, make_features, make_thumbnails

HOSTILE = [
    "<script>alert(1)</script>.png",
    '"><img src=x onerror=alert(2)>.png',
    "</script><script>alert(3)</script>.png",
    "line\nbreak.png",
    "=cmd()|'A0'!.png",
    "-leading.png",
    "quote'\"`.png",
    "{{ 7 * 7 }}.png",
    "a:b?c#d%41&amp;.png",
    "javascript:alert(4).png",
    "球 \u2028 👨‍👩‍👧.png",
    b"latin-\xe9.png",
]


class Parser(html.parser.HTMLParser):
    """Every element with its attributes, and the text of scripts, styles and titles."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.texts.setdefault(tag, []).append("")

        self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.texts[self.inside][-1] += data


def parse(page: bytes) -> Parser:
    parser = Parser()
    parser.feed(page.decode())
    return parser


def data_of(page: bytes) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(parse(page).texts["script"][0])
    return data


def make_page(clustering: Clustering, out: Path) -> bytes:
    return gallery_page(clustering, make_thumbnails(clustering), make_features(clustering), out)


@pytest.fixture
def clustering(tmp_path: Path) -> Clustering:
    labels = [0] * 40 + [1] * 20 + [2] * 5
    return make_clustering(tmp_path / "photos", labels, names=("red", "", "blue"))


# ------------------------------------------------------------------------------------------------------ which are shown


def test_every_cluster_has_three_strips_or_all_of_it(clustering: Clustering, tmp_path: Path) -> None:
    data = data_of(make_page(clustering, tmp_path))
    assert [cluster["size"] for cluster in data["clusters"]] == [40, 20, 5]
    assert [list(cluster["rows"]) for cluster in data["clusters"]] == [
        ["confident", "random", "odd"],
        ["confident", "random", "odd"],
        ["all"],
    ]
    for cluster in data["clusters"]:
        for rows in cluster["rows"].values():
            assert len(set(rows)) == len(rows) == min(gallery.PER_STRIP[0], cluster["size"])
            assert {data["images"][row]["cluster"] for row in rows} == {cluster["cluster"]}


def test_confident_images_come_by_confidence_and_odd_ones_are_far(clustering: Clustering, tmp_path: Path) -> None:
    data = data_of(make_page(clustering, tmp_path))
    rows = data["clusters"][0]["rows"]
    files = clustering.images["file"].tolist()
    assert [data["images"][row]["file"] for row in rows["confident"]] == files[:16]
    assert data["images"][rows["odd"][0]]["file"] == files[39]  # least confident, and far from the others
    assert rows["random"] != rows["confident"]


def test_odd_images_weigh_confidence_and_distance_alike(tmp_path: Path) -> None:
    n = 20
    clustering = make_clustering(tmp_path / "photos", [0] * n)
    features = np.zeros((n, 2), np.float32)
    angles = np.linspace(0, 1, n)[::-1] ** 2  # the most confident are far from the mean
    features[:] = np.stack([np.cos(angles), np.sin(angles)], 1)
    unit = features / np.sqrt((features**2).sum(1))[:, None]
    mean = sum(unit) / n
    distance = [1 - float(row @ mean) for row in unit]
    confidence = clustering.images["confidence"].tolist()
    score = [
        sum(other < distance[i] for other in distance) + sum(other > confidence[i] for other in confidence)
        for i in range(n)
    ]
    data = data_of(gallery_page(clustering, make_thumbnails(clustering), {"one": features}, tmp_path))
    shown = [data["images"][row]["file"] for row in data["clusters"][0]["rows"]["odd"]]
    ranked = [score[clustering.images["file"].tolist().index(file)] for file in shown]
    assert ranked == sorted(score, reverse=True)[: len(ranked)]


def test_distances_are_cosine_and_can_be_kept(clustering: Clustering, tmp_path: Path) -> None:
    features = make_features(clustering)
    distance = gallery.center_distances(clustering.labels, features)
    for i in (0, 39, 47, 64):
        expected = 0.0
        for space in features.values():
            unit = [row / np.sqrt((row**2).sum()) for row in space[clustering.labels == clustering.labels[i]]]
            center = sum(unit) / len(unit)
            row = space[i] / np.sqrt((space[i] ** 2).sum())
            expected += (1 - row @ center / np.sqrt((center**2).sum())) / 2
        assert distance[i] == pytest.approx(expected, abs=1e-6)
    kept = Clustering(
        clustering.root,
        clustering.paths,
        clustering.images.assign(distance=distance),
        clustering.clusters,
        clustering.report,
    )
    thumbnails = make_thumbnails(clustering)
    assert gallery_page(kept, thumbnails, {}, tmp_path) == gallery_page(clustering, thumbnails, features, tmp_path)
    assert not gallery.center_distances(clustering.labels, {}).any()


def test_the_same_clusters_make_the_same_page(clustering: Clustering, tmp_path: Path) -> None:
    assert make_page(clustering, tmp_path) == make_page(clustering, tmp_path)


def test_a_thumbnail_is_embedded_once(clustering: Clustering, tmp_path: Path) -> None:
    thumbnails = make_thumbnails(clustering)
    page = gallery_page(clustering, thumbnails, {}, tmp_path)
    rows = [row for cluster in data_of(page)["clusters"] for strip in cluster["rows"].values() for row in strip]
    assert len(rows) > len(set(rows))  # some are in two strips
    assert len(data_of(page)["elsewhere"]["files"]) == len(clustering.paths) - len(set(rows))
    for image in data_of(page)["images"]:
        row = clustering.images["file"].tolist().index(image["file"])
        assert base64.b64decode(image["thumbnail"]) == thumbnails[row]
    embedded = [image["file"] for image in data_of(page)["images"]]
    assert len(embedded) == len(set(embedded)) == len(set(rows))


def test_many_clusters_show_fewer_images(tmp_path: Path) -> None:
    labels = np.repeat(np.arange(50), 60).tolist()
    clustering = make_clustering(tmp_path / "photos", labels[:1])
    images = clustering.images.loc[[0] * len(labels)].reset_index(drop=True)
    images = images.assign(cluster=labels, found=labels, file=[f"{i}.png" for i in range(len(labels))])
    table = clustering.clusters.loc[[0] * 50].reset_index(drop=True).assign(cluster=range(50), size=60)
    many = Clustering(clustering.root, clustering.paths * len(labels), images, table, clustering.report)
    page = gallery_page(many, [bytes(15_000)] * len(labels), {}, tmp_path)
    assert len(page) < 25_000_000
    strips = {len(rows) for cluster in data_of(page)["clusters"] for rows in cluster["rows"].values()}
    assert strips == {max(n for n in gallery.PER_STRIP if n in strips)}
    assert f"at most {strips.pop()} images".encode() in page


def test_a_missing_thumbnail_is_a_blank_tile(clustering: Clustering, tmp_path: Path) -> None:
    page = gallery_page(clustering, [b""] * len(clustering.paths), {}, tmp_path)
    assert {image["thumbnail"] for image in data_of(page)["images"]} == {""}


# ------------------------------------------------------------------------------------------------------------- a review


def test_a_page_after_a_review_begins_with_it(clustering: Clustering, tmp_path: Path) -> None:
    operations = [{"do": "merge", "clusters": [0, 1]}, {"do": "reject", "cluster": 2}]
    result = reviewed(clustering, Review("run-1", operations), {})
    data = data_of(make_page(result, tmp_path))
    assert data["applied"] == operations
    assert data["run"] == "run-1"
    assert [(cluster["cluster"], cluster["size"], cluster["nameConfidence"]) for cluster in data["clusters"]] == [
        (0, 60, None)
    ]
    assert data["rejected"] == 5
    assert [data["images"][row]["cluster"] for row in data["rejectedRows"]["all"]] == [-1] * 5


# ----------------------------------------------------------------------------------------------------- counts and flags


def test_the_head_counts(tmp_path: Path) -> None:
    flags = ["blurred", "blurred; near duplicate of image00.png", "", "", "tiny", ""] * 2
    clustering = make_clustering(tmp_path / "photos", flags=flags)
    root = clustering.root
    left_out = {f"{root}/broken<b>.jpg": "it is damaged", f"{root}/sub/none.jpg": "it is empty"}
    clustering.report.update(left_out=left_out | {f"{root}/no.jpg": "it is empty"}, other_endings={".txt": 3, "": 1})
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", make_page(clustering, tmp_path).decode().split("<div")[0]))
    for words in ("12 images", "4 clusters", "8 flags", "blurred 4, near duplicate 2, tiny 2", "3 files left out"):
        assert words in text
    assert "it is empty (2) no.jpg · sub/none.jpg it is damaged (1) broken&lt;b&gt;.jpg" in text
    assert "no ending: 1 · .txt: 3" in text


def test_kinds_of_flags() -> None:
    assert flag_kinds("") == []
    assert flag_kinds("blurred; near duplicate of one of a; blank.png") == ["blurred", "near duplicate"]
    assert flag_kinds("blank; tiny") == ["blank", "tiny"]


# --------------------------------------------------------------------------------------------------------- nothing runs


def test_nothing_of_a_name_is_markup(tmp_path: Path) -> None:
    words = ("<script>alert(5)</script>", '"><img src=x onerror=alert(6)>', "=cmd()", "</script>")
    clustering = make_clustering(
        tmp_path / "<b>photos", files=HOSTILE, names=words, flags=[f"odd of {HOSTILE[0]}"] * 12
    )
    clustering.report["left_out"] = {"<img src=x onerror=alert(7)>": "<script>alert(8)</script>"}
    clustering.report["review"] = [{"do": "rename", "cluster": 0, "name": words[0]}]
    page = make_page(clustering, tmp_path / "<i>out</i>")
    harmless = make_clustering(tmp_path / "plain", flags=["odd of a"] * 12)
    harmless.report["left_out"] = {"a": "b"}
    plain = parse(make_page(harmless, tmp_path))
    found = parse(page)
    assert [tag for tag, _ in found.elements if tag in ("script", "style")] == ["style", "script", "script"]
    assert [e for e in found.elements if e[0] in ("script", "style", "img", "b", "i", "input", "iframe")] == [
        e for e in plain.elements if e[0] in ("script", "style", "img", "b", "i", "input", "iframe")
    ]
    assert all(not name.startswith("on") for _, attributes in found.elements for name in attributes)
    data = data_of(page)
    assert sorted(image["file"] for image in data["images"]) == sorted(clustering.images["file"])
    assert data["clusters"][0]["name"] == words[0]


def test_only_its_own_script_and_style_may_run(clustering: Clustering, tmp_path: Path) -> None:
    found = parse(make_page(clustering, tmp_path))
    policy = next(a["content"] for tag, a in found.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    for kind, text in (("script", found.texts["script"][1]), ("style", found.texts["style"][0])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_the_page_names_no_address_in_a_network(clustering: Clustering, tmp_path: Path) -> None:
    page = make_page(clustering, tmp_path)
    assert not re.search(rb"https?:|//[a-z]+\.[a-z]", page)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_link_leads_to_the_file_whatever_its_name(tmp_path: Path, name: str | bytes) -> None:
    clustering = make_clustering(tmp_path / "pho tos", [0], files=[name])
    href = link(clustering.paths[0], tmp_path / "results" / "out")
    assert re.fullmatch(r"[\w./%~-]+", href)
    assert href.startswith("../../pho%20tos/")
    address = urllib.parse.urljoin(f"file://{tmp_path}/results/out/clusters.html", href)
    place = urllib.parse.unquote_to_bytes(urllib.parse.urlsplit(address).path)
    assert Path(place.decode("utf-8", "surrogateescape")).is_file()


def test_a_link_to_a_file_below_the_page(tmp_path: Path) -> None:
    assert link(tmp_path / "a:b.png", tmp_path) == "a%3Ab.png"
