"""Tables and page: every published row, "not run" where not run, stand-ins apart, one file that needs nothing."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labkit.errors import DataError
from labkit.evaluation.metrics import adjusted_rand_index, normalized_mutual_info
from labkit.papers.page import write_report
from labkit.papers.published import must_rows, turtle_rows
from labkit.papers.report import NOT_RUN, Section, sections
from labkit.papers.results import FILE, Results, read_rows
from tests.unit.papers.test_results import row

PAPER = {"settings": {"profile": "paper"}, "spaces": ["clip-vit-l14", "dinov2-vit-g14"]}


def add(folder: Path, value: float, **changes: Any) -> None:
    given = row(**{**PAPER, **changes})
    clustered = given["method"] in ("k-means", "turtle")
    values = {"accuracy": value, **({"nmi": 0.5, "ari": 0.25} if clustered else {"mean_per_class": value / 2})}
    chosen = {"outer_lr": 1e-3, "inner_lr": 1e-2, "inner_start": "cold", "by": "generalization"}
    more = {"chosen": chosen} if given["method"] == "turtle" else {}
    Results(folder).add(given, values, seconds=60.0, device="cpu", **more)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Some rows of both papers, one of them a stand-in, one of another dataset, one of smaller models."""
    folder = tmp_path / "run"
    add(folder, 0.6, method="turtle")
    add(folder, 0.4)
    add(folder, 0.7, method="linear-probe")
    add(folder, 0.55, method="zero-shot", spaces=["clip-vit-l14"])
    add(folder, 0.95, method="turtle", dataset="digits", n_train=1437, n_test=360)
    add(folder, 0.11, method="turtle", dataset="imagenet", stand_in=True, n_train=2000, n_test=1000)
    add(folder, 0.22, method="turtle", spaces=["pixels"], settings={"profile": "pocket"})
    add(folder, 0.44, paper="must", method="zero-shot", spaces=["clip-vit-b16"])
    add(folder, 0.52, paper="must", method="must", spaces=["clip-vit-b16"])
    add(folder, 0.9, paper="must", method="must", spaces=["clip-vit-b16"], dataset="oxford-pets")
    return folder


def found(run: Path, paper: str, profile: str = "paper", *, stand_in: bool = False) -> Section:
    kind = (paper, profile, stand_in)
    [section] = [one for one in sections(read_rows(run)) if (one.paper, one.profile, one.stand_in) == kind]
    return section


def cells(section: Section, *first: str) -> dict[str, str]:
    [row] = [row for row in section.rows if tuple(row[: len(first)]) == first]
    return dict(zip(section.columns, row, strict=True))


def test_every_published_row_is_there(run: Path) -> None:
    turtle, must = found(run, "turtle"), found(run, "must")
    names = [row[0] for row in turtle.rows]
    assert names[:2] == ["dtd", "digits"]  # what was run
    assert sorted(names) == sorted([*turtle_rows()["dataset"], "digits"])
    assert {tuple(row[:2]) for row in must.rows} >= {(row.dataset, row.model) for row in must_rows().itertuples()}
    for given in turtle_rows().itertuples():
        assert cells(turtle, given.dataset)["TURTLE, published"] == f"{100 * given.accuracy:.1f}"
    for given in must_rows().itertuples():
        shown = cells(must, given.dataset, given.model)
        assert shown["zero-shot, published"] == f"{100 * given.zero_shot:.1f}"
        assert shown["MUST, published"] == f"{100 * given.must:.1f}"


def test_ours_beside_theirs(run: Path) -> None:
    shown = cells(found(run, "turtle"), "dtd")
    ours = {name: shown[f"{name}, ours"] for name in ("zero-shot", "K-means", "linear probe", "TURTLE")}
    assert ours == {"zero-shot": "55.0", "K-means": "40.0", "linear probe": "70.0", "TURTLE": "60.0"}
    assert (shown["TURTLE, published"], shown["difference"]) == ("57.3", "+2.7")
    assert (shown["NMI"], shown["ARI"], shown["chosen without labels"]) == (
        "50.0",
        "25.0",
        "outer 0.001, inner 0.01, cold",
    )
    shown = cells(found(run, "must"), "dtd", "clip-vit-b16")
    assert (shown["zero-shot, ours"], shown["MUST, ours"], shown["difference"]) == ("44.0", "52.0", "−2.1")
    assert cells(found(run, "must"), "oxford-pets", "clip-vit-b16")["MUST, ours"] == "45.0"  # mean per class


def test_what_was_not_run_is_said(run: Path) -> None:
    section = found(run, "turtle")
    shown = cells(section, "birdsnap")
    assert [shown[name] for name in section.columns if name.endswith(", ours")] == [NOT_RUN] * 4
    assert shown["difference"] == ""
    assert cells(section, "digits")["TURTLE, published"] == "–"
    assert (section.frame.set_index("dataset").loc["birdsnap", ["turtle", "difference"]].isna()).all()


def test_a_difference_is_between_the_same_models(run: Path) -> None:
    shown = cells(found(run, "turtle", "pocket"), "dtd")
    assert (shown["TURTLE, ours"], shown["TURTLE, published"], shown["difference"]) == ("22.0", "57.3", "")


def test_stand_ins_stand_apart(run: Path) -> None:
    section = found(run, "turtle", stand_in=True)
    assert [row[0] for row in section.rows] == ["imagenet (stand-in)"]
    assert not any("published" in name or name == "difference" for name in section.columns)
    assert "72.9" not in "\n".join(section.lines()) + section.markdown()
    assert "a few invented images a dataset, 1,000 in the test split" in section.note
    assert "random clusters have an NMI of 80 to 96" in section.note
    assert section.lines()[1] == section.note  # also in a terminal
    assert "11.0" in "\n".join(section.lines())
    assert cells(found(run, "turtle"), "imagenet")["TURTLE, ours"] == NOT_RUN  # the stand-in is no result of it
    assert section.frame["turtle_published"].isna().all()


def test_the_note_of_stand_ins_tells_their_sizes_and_of_nmi_only_where_it_is(run: Path) -> None:
    add(run, 0.2, method="turtle", dataset="mnist", stand_in=True, n_train=20, n_test=10)
    add(run, 0.2, paper="must", method="must", spaces=["clip-vit-b16"], stand_in=True, n_train=94, n_test=47)
    assert "10 to 1,000 in the test split" in found(run, "turtle", stand_in=True).note
    must = found(run, "must", stand_in=True).note
    assert "47 in the test split" in must
    assert "NMI" not in must


@pytest.mark.parametrize("n_classes", [5, 10, 102, 1000])
def test_random_clusters_of_one_image_a_class_score_as_the_note_says(n_classes: int) -> None:
    draws = np.random.default_rng(0).integers(0, n_classes, (20, n_classes))
    scores = [normalized_mutual_info(np.arange(n_classes), drawn) for drawn in draws]
    assert 0.80 <= np.mean(scores) <= 0.96
    assert {adjusted_rand_index(np.arange(n_classes), drawn) for drawn in draws} == {0.0}


def test_two_machines_on_one_page(run: Path, tmp_path: Path) -> None:
    add(tmp_path / "other", 0.8, method="turtle", dataset="sun397")
    add(tmp_path / "other", 0.61, method="turtle")  # the same key: the later file counts
    merged = write_report([run, tmp_path / "other" / FILE], tmp_path / "page.html")
    [section] = [one for one in merged if (one.paper, one.profile, one.stand_in) == ("turtle", "paper", False)]
    assert cells(section, "sun397")["TURTLE, ours"] == "80.0"
    assert cells(section, "dtd")["TURTLE, ours"] == "61.0"
    assert cells(section, "dtd")["K-means, ours"] == "40.0"


def test_of_other_settings_the_last_count_and_of_seeds_the_mean(run: Path) -> None:
    """A profile of an older labkit had other settings, under which its results stay in the file."""
    add(run, 0.8, method="turtle", settings={"profile": "paper", "n_scored": 10_000})
    assert cells(found(run, "turtle"), "dtd")["TURTLE, ours"] == "80.0"
    add(run, 0.9, method="turtle", settings={"profile": "paper", "n_scored": 10_000}, seed=43)
    assert cells(found(run, "turtle"), "dtd")["TURTLE, ours"] == "85.0"
    assert found(run, "turtle", "pocket").rows  # of another profile nothing is lost


def test_markdown_and_csv_hold_the_same_table(run: Path, tmp_path: Path) -> None:
    write_report([run], tmp_path / "page.html", tables=tmp_path)
    text = (tmp_path / "table.md").read_text("utf-8")
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    assert next(row[:4] for row in lines if row[0] == "dtd") == ["dtd", "3,760", "1,880", "55.0"]
    assert sum(row[0] == "dataset" for row in lines) == 4
    table = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text("utf-8"))))
    [dtd] = [
        line for line in table if line["dataset"] == "dtd" and line["paper"] == "turtle" and line["profile"] == "paper"
    ]
    assert (dtd["turtle"], dtd["turtle_published"], dtd["stand_in"]) == ("0.6", "0.573", "False")
    assert float(dtd["difference"]) == pytest.approx(0.027)
    [must] = [line for line in table if line["dataset"] == "dtd" and line["model"] == "clip-vit-b16"]
    assert (must["must"], must["must_published"]) == ("0.52", "0.541")


def test_a_terminal_gets_columns_and_only_the_rows_that_are_asked_for(run: Path) -> None:
    section = found(run, "turtle")
    title, head, *rows = section.lines(["dtd", "digits"])
    assert title == "TURTLE, profile paper, datasets"
    assert [line.split()[0] for line in rows] == ["dtd", "digits"]
    at = head.index("TURTLE, ours") + len("TURTLE, ours")
    assert [line[at - 4 : at] for line in rows] == ["60.0", "95.0"]
    assert len(section.lines()) == 2 + 27


# ---------------------------------------------------------------------------------------------------------------- page


class Page(HTMLParser):
    """Collects what a page is made of, and that its elements are closed in order."""

    VOID = ("meta", "img", "br", "link", "input", "hr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def test_the_page_is_one_file_that_can_be_read_by_all(run: Path, tmp_path: Path) -> None:
    write_report([run], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text("utf-8")
    page = Page(text)
    assert text.startswith("<!doctype html>")
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("title")) == len(page.all("h1")) == len(page.all("main")) == 1
    assert not page.all("script")
    assert not page.all("link")
    assert not re.search(r"https?://|url\(|@import", text)
    assert [meta["content"] for meta in page.all("meta") if meta.get("name") == "color-scheme"] == ["light dark"]
    assert "prefers-color-scheme: dark" in text
    images = page.all("img")
    assert len(images) == 6  # bars of four tables, and ours against published where there is both
    assert all(image["src"].startswith("data:image/png;base64,") and image["alt"] for image in images)  # type: ignore[union-attr]
    ids = [attributes["id"] for _, attributes in page.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [link["href"] for link in page.all("a")]
    assert {f"#{name}" for name in ids} >= set(targets)
    assert len(targets) == 4
    assert all(head.get("scope") in ("col", "row") for head in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table")) == 4
    for said in ("not run", "dtd", "60.0", "Stand-ins:", "What differs from the papers"):
        assert said in page.text


def test_names_from_a_file_are_text_on_the_page(tmp_path: Path) -> None:
    odd = "<script>alert(1)</script> | \x1b[31m"
    add(tmp_path, 0.5, settings={"profile": odd}, method="turtle")
    add(tmp_path, 0.5, paper="must", method="must", spaces=["<b>"])
    write_report([tmp_path], tmp_path / "page.html", tables=tmp_path)
    page = Page((tmp_path / "page.html").read_text("utf-8"))
    assert not page.all("script")
    assert not page.all("b")
    assert "<script>alert(1)</script>" in page.text
    assert "<b>" in page.text


@pytest.mark.parametrize("chosen", [{"outer_lr": "x" * 9, "n_found": []}, {"inner_start": None}, {"n_clusters": 1e300}])
def test_an_odd_choice_from_a_file_is_shown_as_it_is(chosen: dict[str, Any], tmp_path: Path) -> None:
    given = row(**PAPER, method="turtle")
    Results(tmp_path).add(given, {"accuracy": 0.5}, chosen=chosen, seconds=1.0, device="cpu")
    assert cells(found(tmp_path, "turtle"), "dtd")["TURTLE, ours"] == "50.0"


def test_a_place_that_cannot_be_written_is_said(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        write_report([run], tmp_path / "file" / "page.html")
    with pytest.raises(DataError, match="cannot be read"):
        write_report([tmp_path / "nothing"], tmp_path / "page.html")


def test_of_results_that_differ_in_settings_alone_the_newest_counts(tmp_path: Path) -> None:
    """In whatever order the folders are given."""
    add(tmp_path / "new", 0.6, method="turtle", settings={"profile": "paper", "n_outer_steps": 6000})
    add(tmp_path / "old", 0.1, method="turtle", settings={"profile": "paper", "n_outer_steps": 100})
    path = tmp_path / "old" / FILE
    path.write_text(re.sub(r'"date": "\d{4}', '"date": "2020', path.read_text("utf-8")), "utf-8")
    dataset = row()["dataset"]
    for folders in (["new", "old"], ["old", "new"]):
        [section] = sections(read_rows([tmp_path / name for name in folders]))
        assert cells(section, dataset)["TURTLE, ours"] == "60.0"
