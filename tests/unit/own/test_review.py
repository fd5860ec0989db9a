"""A review: what may be in it, what each operation does, and that it begins with what was found every time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labkit.cli import main
from labkit.errors import DataError
from labkit.own.clustering import Clustering, load_clustering
from labkit.own.review import LARGEST, Review, apply_review, read_review, reviewed
from tests.unit.own.clusterings import make_clustering, make_features


@pytest.fixture
def clustering(tmp_path: Path) -> Clustering:
    return make_clustering(tmp_path / "photos")


def after(clustering: Clustering, *operations: dict, features: dict | None = None) -> Clustering:
    return reviewed(clustering, Review("run-1", list(operations)), features or {})


def sizes(clustering: Clustering) -> dict[int, int]:
    return dict(zip(clustering.clusters["cluster"].tolist(), clustering.clusters["size"].tolist(), strict=True))


def names(clustering: Clustering) -> dict[int, str]:
    return dict(zip(clustering.clusters["cluster"].tolist(), clustering.clusters["name"].tolist(), strict=True))


# ----------------------------------------------------------------------------------------------------------- operations


def test_a_merge_keeps_the_smallest_number_and_its_name(clustering: Clustering) -> None:
    result = after(clustering, {"do": "merge", "clusters": [3, 1]})
    assert sizes(result) == {0: 3, 1: 6, 2: 3}
    assert names(result) == {0: "red", 1: "green", 2: ""}
    assert result.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [1] * 3
    assert result.images["name"].tolist()[-3:] == ["green"] * 3
    assert np.isnan(result.clusters["name_confidence"][1])
    assert result.clusters["name_confidence"][0] == 0.9


def test_a_merge_into_a_cluster_without_a_name_takes_the_first_name(clustering: Clustering) -> None:
    assert names(after(clustering, {"do": "merge", "clusters": [2, 3]}))[2] == "yellow"


def test_a_rename_is_in_every_row(clustering: Clustering) -> None:
    result = after(clustering, {"do": "rename", "cluster": 2, "name": "sky"})
    assert names(result)[2] == "sky"
    assert result.images["name"].tolist()[6:9] == ["sky"] * 3
    assert names(after(clustering, {"do": "rename", "cluster": 0, "name": ""}))[0] == ""


def test_rejected_images_and_clusters_have_no_cluster_and_no_name(clustering: Clustering) -> None:
    result = after(clustering, {"do": "reject", "cluster": 0}, {"do": "reject", "files": ["image05.png"]})
    assert result.labels.tolist() == [-1] * 3 + [1, 1, -1] + [2] * 3 + [3] * 3
    assert result.images["name"].tolist()[:3] == [""] * 3
    assert sizes(result) == {1: 2, 2: 3, 3: 3}


def test_images_move_and_come_back_from_the_rejected(clustering: Clustering) -> None:
    result = after(
        clustering,
        {"do": "reject", "cluster": 0},
        {"do": "move", "files": ["image01.png", "image11.png"], "cluster": 2},
    )
    assert result.labels.tolist() == [-1, 2, -1, 1, 1, 1, 2, 2, 2, 3, 3, 2]


def test_a_cluster_that_all_images_left_is_no_row(clustering: Clustering) -> None:
    files = ["image00.png", "image01.png", "image02.png"]
    assert sizes(after(clustering, {"do": "move", "files": files, "cluster": 1})) == {1: 6, 2: 3, 3: 3}


def test_a_split_finds_the_odd_one_and_gives_new_numbers(clustering: Clustering) -> None:
    features = make_features(clustering)
    result = after(
        clustering,
        {"do": "split", "cluster": 1, "into": 2},
        {"do": "split", "cluster": 0, "into": 3},
        features=features,
    )
    assert result.labels.tolist()[3:6] == [1, 1, 4]  # the last of each is far from the others
    assert sorted(result.labels.tolist()[:3]) == [0, 5, 6]
    assert names(result) == {0: "red", 1: "green", 2: "", 3: "yellow", 4: "", 5: "", 6: ""}


def test_a_split_does_not_see_the_length_of_features(clustering: Clustering) -> None:
    features = make_features(clustering)
    scaled = {name: rows * np.linspace(0.1, 90, len(rows))[:, None] for name, rows in features.items()}
    split = {"do": "split", "cluster": 3, "into": 2}
    assert (
        after(clustering, split, features=features).labels == after(clustering, split, features=scaled).labels
    ).all()


def test_equal_images_are_split_in_fewer_parts(clustering: Clustering) -> None:
    result = after(
        clustering, {"do": "split", "cluster": 1, "into": 3}, features={"same": np.ones((12, 4), np.float32)}
    )
    assert sizes(result)[1] == 3


def test_a_merge_after_a_split_never_gives_a_number_twice(clustering: Clustering) -> None:
    split = [{"do": "split", "cluster": k, "into": 2} for k in (0, 1)]
    result = after(
        clustering,
        split[0],
        {"do": "merge", "clusters": [3, 4]},
        split[1],
        features=make_features(clustering),
    )
    assert sizes(result) == {0: 2, 1: 2, 2: 3, 3: 4, 5: 1}


# ------------------------------------------------------------------------------------------- always from what was found

OPERATIONS = [
    {"do": "merge", "clusters": [0, 1]},
    {"do": "rename", "cluster": 0, "name": "warm"},
    {"do": "split", "cluster": 2, "into": 2},
    {"do": "reject", "files": ["image03.png"]},
]


def test_applying_twice_is_applying_once(clustering: Clustering) -> None:
    features = make_features(clustering)
    once = after(clustering, *OPERATIONS, features=features)
    twice = after(once, *OPERATIONS, features=features)
    assert once.images.equals(twice.images)
    assert once.clusters.equals(twice.clusters)
    assert once.report == twice.report
    assert once.report["review"] == OPERATIONS


def test_an_empty_review_undoes(clustering: Clustering) -> None:
    before = clustering.images.copy()
    result = after(after(clustering, *OPERATIONS, features=make_features(clustering)))
    assert result.images.equals(clustering.images)
    assert result.clusters.equals(clustering.clusters)
    assert result.report == clustering.report
    assert clustering.images.equals(before)  # and what was given is as it was


def test_confidence_and_found_stay(clustering: Clustering) -> None:
    result = after(clustering, *OPERATIONS, features=make_features(clustering))
    assert result.images[["file", "confidence", "flags", "found"]].equals(
        clustering.images[["file", "confidence", "flags", "found"]]
    )


# -------------------------------------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("operations", "words"),
    [
        ([{"do": "merge", "clusters": [0, 9]}], "cluster 9: there is none of this number"),
        ([{"do": "reject", "cluster": 1}, {"do": "rename", "cluster": 1, "name": "a"}], "operation 1 rejected it"),
        ([{"do": "merge", "clusters": [0, 1]}, {"do": "reject", "cluster": 1}], "operation 1 merged it into 0"),
        ([{"do": "move", "files": ["image00.png"], "cluster": 7}], "operation 1, move, is of cluster 7"),
        ([{"do": "reject", "files": ["image00.png", "gone.png"]}], "'gone.png', which is not among the images"),
        ([{"do": "reject", "cluster": k} for k in range(4)], "rejects all 12 images"),
        ([{"do": "split", "cluster": 0, "into": 4}], "it has 3 images"),
        ([{"do": "split", "cluster": 0, "into": 2}], "needs features"),
    ],
)
def test_what_there_is_not(clustering: Clustering, operations: list, words: str) -> None:
    with pytest.raises(DataError, match=words):
        after(clustering, *operations)


def test_a_review_of_another_run(clustering: Clustering) -> None:
    with pytest.raises(DataError, match=r"of the run 'other'.*those of 'run-1'"):
        reviewed(clustering, Review("other", []), {})


def write(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "review.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def good(*operations: object) -> dict:
    return {"labkit": "review", "version": 1, "run": "run-1", "operations": list(operations)}


def test_a_review_is_read_as_it_was_written(tmp_path: Path) -> None:
    review = read_review(write(tmp_path, good(*OPERATIONS)))
    assert review == Review("run-1", OPERATIONS)
    assert review.has_splits
    assert review.summary() == "merged 2 clusters, renamed 1 cluster, split 1 cluster, rejected 1 image"
    assert not Review("", []).has_splits
    assert "as they were found" in Review("", []).summary()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read"),
        (b"\xff\xfe{", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b"9" * 10_000, "cannot be read"),
        (b"[]", "is no review"),
        (b"NaN", "is no review"),
        ({"labkit": "clusters"}, "is no review"),
        (good() | {"version": 2}, "version 2. Expected version 1"),
        (good() | {"version": True}, "Expected version 1"),
        (good() | {"operations": {}}, "no list of operations"),
        (good() | {"run": 3}, "no run"),
        (good("merge"), "operation 1 is 'merge'"),
        (good({"do": "delete"}), "operation 1 is .* Expected"),
        (good({"do": ["merge"]}), "operation 1 is"),
        (good({"do": "merge"}), "Expected clusters"),
        (good({"do": "reject"}), "Expected cluster or files"),
        (good({"do": "reject", "cluster": 1, "files": ["a"]}), "Expected cluster or files"),
        (good({"do": "rename", "cluster": 1, "name": "a", "path": "/"}), "Expected cluster and name"),
        (good({"do": "merge", "clusters": [1]}), "at least two different"),
        (good({"do": "merge", "clusters": [1, 1]}), "at least two different"),
        (good({"do": "merge", "clusters": [1, True]}), "at least two different"),
        (good({"do": "merge", "clusters": [1, [2]]}), "at least two different"),
        (good({"do": "merge", "clusters": "12"}), "at least two different"),
        (good({"do": "rename", "cluster": -1, "name": "a"}), "cluster is -1"),
        (good({"do": "rename", "cluster": 1.0, "name": "a"}), "cluster is 1.0"),
        (good({"do": "rename", "cluster": 1, "name": "a\nb"}), "one line"),
        (good({"do": "rename", "cluster": 1, "name": "\x1b[31m"}), "one line"),
        (good({"do": "rename", "cluster": 1, "name": "\ud800"}), "one line"),
        (good({"do": "rename", "cluster": 1, "name": " a"}), "without blanks"),
        (good({"do": "rename", "cluster": 1, "name": "a" * 101}), "at most 100 characters"),
        (good({"do": "rename", "cluster": 1, "name": None}), "one line"),
        (good({"do": "split", "cluster": 1, "into": 1}), "from 2 to 20"),
        (good({"do": "split", "cluster": 1, "into": 10**30}), "from 2 to 20"),
        (good({"do": "reject", "files": []}), "list of files"),
        (good({"do": "reject", "files": [1]}), "list of files"),
        (good({"do": "reject", "files": "a.png"}), "list of files"),
    ],
)
def test_what_is_no_review(tmp_path: Path, content: object, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        read_review(write(tmp_path, content))
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_no_file_and_one_that_is_too_large(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_review(tmp_path / "none.json")
    with pytest.raises(DataError, match="cannot be read"):
        read_review(tmp_path)
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(DataError, match="larger than 50 MB"):
        read_review(tmp_path / "large.json")


def test_names_may_be_of_any_script(tmp_path: Path) -> None:
    operations = [
        {"do": "rename", "cluster": 0, "name": name} for name in ("球", "👨‍👩‍👧", "=cmd()", "<script>", "می‌خواهم")
    ]
    assert read_review(write(tmp_path, good(*operations))).operations == operations


# ------------------------------------------------------------------------------------------------------ the whole of it


@pytest.fixture
def out(clustering: Clustering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    Image.linear_gradient("L").convert("RGB").save(clustering.paths[8])  # not like the others of its cluster
    (tmp_path / "out").mkdir()
    clustering.save(tmp_path / "out")
    return tmp_path / "out"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_apply_writes_tables_and_pages_and_an_empty_review_undoes(out: Path, clustering: Clustering) -> None:
    apply_review(out, Review("run-1", []))
    before = contents(out)
    assert set(before) == {"labels.csv", "labels.parquet", "clusters.html", "map.html", "report.json"}
    once = apply_review(out, Review("run-1", OPERATIONS))
    changed = contents(out)
    assert all(changed[name] != before[name] for name in before)
    loaded = load_clustering(out)
    assert loaded.images.equals(once.images)
    assert loaded.labels.tolist() == [0, 0, 0, -1, 0, 0, 2, 2, 4, 3, 3, 3]
    assert loaded.clusters["name"].tolist() == ["warm", "", "yellow", ""]
    assert loaded.report["review"] == OPERATIONS
    apply_review(out, Review("run-1", OPERATIONS))
    assert contents(out) == changed
    apply_review(out, Review("run-1", []))
    assert contents(out) == before


def test_only_a_split_needs_features(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("labkit.spaces.backbones.load_backbone", lambda name: asked.append(name) or 1 / 0)
    apply_review(out, Review("run-1", [{"do": "rename", "cluster": 0, "name": "a"}]))
    assert asked == []
    with pytest.raises(ZeroDivisionError):
        apply_review(out, Review("run-1", OPERATIONS))
    assert asked == ["pixels"]


def test_images_that_are_gone_stop_a_split_and_nothing_else(out: Path, clustering: Clustering) -> None:
    clustering.paths[4].unlink()
    result = apply_review(out, Review("run-1", [{"do": "merge", "clusters": [0, 1]}]))
    assert result.labels.tolist() == [0] * 6 + [2] * 3 + [3] * 3
    before = contents(out)
    with pytest.raises(DataError, match="1 are gone or cannot be read"):
        apply_review(out, Review("run-1", OPERATIONS))
    assert contents(out) == before


def test_new_images_beside_the_clustered_change_nothing(out: Path, clustering: Clustering) -> None:
    expected = apply_review(out, Review("run-1", OPERATIONS))
    page = (out / "clusters.html").read_bytes()
    (clustering.root / "aa.png").write_bytes(clustering.paths[0].read_bytes())
    assert apply_review(out, Review("run-1", OPERATIONS)).images.equals(expected.images)
    assert (out / "clusters.html").read_bytes() == page


def test_the_command(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = write(tmp_path, good(*OPERATIONS))
    assert main(["apply", str(place)]) == 2
    assert f"labkit apply {place} --to OUT" in capsys.readouterr().err
    assert main(["apply", str(place), "--to", str(out)]) == 0
    said = capsys.readouterr().out
    assert "merged 2 clusters, renamed 1 cluster, split 1 cluster, rejected 1 image" in said
    assert f"11 images in 4 clusters, 1 rejected: {out / 'labels.csv'}" in said
    place.rename(out / "review.json")
    assert main(["apply", str(out / "review.json")]) == 0
    write(tmp_path, good() | {"run": "another"})
    assert main(["apply", str(place), "--to", str(out)]) == 2
    assert "of the run 'another'" in capsys.readouterr().err
