"""`labkit sort`: names of folders that hold everywhere, nothing replaced, all put back."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from labkit.cli import main
from labkit.errors import DataError
from labkit.own.arrangement import arrange, cluster_folders, folder_name
from labkit.own.clustering import Clustering
from labkit.own.exports import export
from labkit.own.sorting import carry_out, plan_sort, undo_sort
from labkit.own.undo_file import UNDO
from tests.unit.own.results import make_result

FILES = ("a.jpg", "b.jpg", "deep/a.jpg", "deep/er/A.JPG", "deep/c.jpg", "z.jpg")
LABELS = (0, 0, 0, 0, 2, -1)
NAMES = {0: "shoes", 2: "shoes"}
SORTED = {
    "shoes/a.jpg": "a.jpg",
    "shoes/b.jpg": "b.jpg",
    "shoes/a (2).jpg": "deep/a.jpg",
    "shoes/A (3).JPG": "deep/er/A.JPG",
    "shoes 2/c.jpg": "deep/c.jpg",
    "rejected/z.jpg": "z.jpg",
}


@pytest.fixture
def result(tmp_path: Path) -> Clustering:
    return make_result(tmp_path / "photos", FILES, LABELS, NAMES)


def tree(root: Path) -> dict[str, str]:
    """Every file and folder below a folder, hidden ones as well, with what it holds."""
    found = {}
    for path in sorted(root.rglob("*")):
        kind = f"link {path.readlink()}" if path.is_symlink() else "folder" if path.is_dir() else ""
        found[os.fsdecode(path.relative_to(root))] = kind or hashlib.sha256(path.read_bytes()).hexdigest()
    return found


# ---------------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("shoes", "shoes"),
        ("t-shirt", "t-shirt"),
        ("a/b\\c", "a_b_c"),
        ("..", ""),
        (".hidden", "hidden"),
        ("-rf", "rf"),
        ("~", ""),
        ("cats.", "cats"),
        ("con", "_con"),
        ("Aux.txt", "_Aux.txt"),
        ("lpt¹", "_lpt¹"),
        ("console", "console"),
        ('what? <"it">|:*', "what_ __it_____"),
        ("two\nlines\tof  it", "two lines of it"),
        ("\u202egpj.evil", "gpj.evil"),
        ("e\u0301te\u0301", "\u00e9t\u00e9"),
        ("球", "球"),
        ("\x00\x07", ""),
        ("x" * 300, "x" * 100),
        ("球" * 60, "球" * 33),
    ],
)
def test_a_folder_has_a_name_that_every_system_can_hold(name: str, folder: str) -> None:
    assert folder_name(name) == folder


def test_no_two_clusters_share_a_folder(tmp_path: Path) -> None:
    names = {0: "Shoes", 1: "shoes", 2: "shoes 2", 3: "", 4: "rejected", 5: "undo.json", 6: "shoes"}
    result = make_result(tmp_path, [f"{i}.jpg" for i in range(8)], [0, 1, 2, 3, 4, 5, 6, -1], names)
    assert cluster_folders(result) == {
        -1: "rejected",
        0: "Shoes",
        1: "shoes 2",
        2: "shoes 2 2",
        3: "cluster 3",
        4: "rejected 2",
        5: "undo.json 2",
        6: "shoes 3",
    }


def test_files_keep_their_names_where_no_other_has_it(result: Clustering) -> None:
    places = arrange(result, rejected=True)
    assert {str(place): path.relative_to(result.root).as_posix() for path, place in places} == SORTED
    assert [str(place) for _, place in arrange(result, rejected=False)] == [str(place) for _, place in places[:-1]]


def test_a_number_fits_into_the_longest_name(tmp_path: Path) -> None:
    long = "ü" * 125 + ".jpg"  # 254 bytes
    result = make_result(tmp_path, [long, f"d/{long}"], [0, 0], {0: "x"})
    first, second = (place.name for _, place in arrange(result, rejected=True))
    assert first == long
    assert second.endswith("ü (2).jpg")
    assert len(os.fsencode(second)) <= 255


# ------------------------------------------------------------------------------------------------------- there and back


@pytest.mark.parametrize("how", ["copy", "link", "move"])
def test_sorted_and_put_back(result: Clustering, tmp_path: Path, how: str) -> None:
    before, new = tree(result.root), tmp_path / "new"
    contents = {target: (result.root / source).read_bytes() for target, source in SORTED.items()}
    times = {target: (result.root / source).stat().st_mtime_ns for target, source in SORTED.items()}
    plan = plan_sort(result, new, how)
    assert not new.exists()
    assert plan.todo == len(FILES)
    done = carry_out(plan)
    assert done.left == {}
    assert {target: (new / target).read_bytes() for target in SORTED} == contents
    assert {target: (new / target).stat().st_mtime_ns for target in SORTED} == times
    assert set(tree(new)) == {*SORTED, "shoes", "shoes 2", "rejected", UNDO}
    assert all((new / target).is_symlink() == (how == "link") for target in SORTED)
    assert tree(result.root) == ({"deep": "folder", "deep/er": "folder"} if how == "move" else before)

    again = plan_sort(result, new, how)
    assert again.todo == 0
    assert carry_out(again).left == {}
    undone = undo_sort(new)
    assert (undone.done, undone.left) == (len(FILES), {})
    assert tree(result.root) == before
    assert not new.exists()


def test_a_result_of_a_folder_beside_where_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = make_result(Path("photos"), FILES, LABELS, NAMES)
    for how in ("copy", "link", "move"):
        before = tree(Path("photos"))
        assert carry_out(plan_sort(result, Path("new"), how)).left == {}
        assert all(Path("new", target).read_bytes() for target in SORTED)
        if how == "move":
            with pytest.raises(DataError, match=r"none of the 5 images is where it was"):
                export(result, Path("new export"), "fiftyone")
        else:
            assert export(result, Path(f"new {how}"), "fiftyone") == {}
        monkeypatch.chdir(tmp_path / "new")
        assert undo_sort(Path("../new")).left == {}
        monkeypatch.chdir(tmp_path)
        assert tree(Path("photos")) == before


def test_links_are_relative_and_survive_a_move_of_both(result: Clustering, tmp_path: Path) -> None:
    carry_out(plan_sort(result, tmp_path / "new", "link"))
    assert str((tmp_path / "new" / "shoes" / "b.jpg").readlink()) == "../../photos/b.jpg"


def test_an_image_that_is_a_link_stays_one(tmp_path: Path) -> None:
    result = make_result(tmp_path / "photos", ["a.jpg", "d/b.jpg"], [0, 0], {0: "x"})
    (tmp_path / "photos" / "a.jpg").rename(tmp_path / "kept.jpg")
    (tmp_path / "photos" / "a.jpg").symlink_to("../kept.jpg")
    before, content = tree(result.root), (tmp_path / "kept.jpg").read_bytes()
    carry_out(plan_sort(result, tmp_path / "new", "move"))
    assert (tmp_path / "new" / "x" / "a.jpg").is_symlink()
    assert (tmp_path / "new" / "x" / "a.jpg").read_bytes() == content
    assert undo_sort(tmp_path / "new").left == {}
    assert tree(result.root) == before
    carry_out(plan_sort(result, tmp_path / "copies", "copy"))
    assert not (tmp_path / "copies" / "x" / "a.jpg").is_symlink()


@pytest.mark.skipif(os.name == "nt", reason="names of Windows")
def test_names_of_any_bytes_go_there_and_back(tmp_path: Path) -> None:
    odd = [
        "new\nline.jpg",
        "quo\"te'.jpg",
        "-rf.jpg",
        "=cmd().jpg",
        "<script>.jpg",
        os.fsdecode(b"\xff\xe9.jpg"),
        "~",
        "😀",
    ]
    result = make_result(tmp_path / "photos", odd, [0] * len(odd), {0: "=x\n"})
    before = tree(result.root)
    for how in ("copy", "link", "move"):
        assert carry_out(plan_sort(result, tmp_path / "new", how)).left == {}
        assert sorted(path.name for path in (tmp_path / "new" / "x").iterdir()) == sorted(odd)
        assert undo_sort(tmp_path / "new").left == {}
        assert tree(result.root) == before


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs another file system")
def test_moved_to_another_file_system(result: Clustering, tmp_path: Path) -> None:
    import tempfile

    before = tree(result.root)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        if Path(place).stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("one file system")
        plan = plan_sort(result, Path(place, "new"), "move")
        assert plan.space == sum(path.stat().st_size for path in result.paths)
        assert carry_out(plan).left == {}
        assert not any(path.exists() for path in result.paths)
        assert undo_sort(Path(place, "new")).left == {}
        assert list(Path(place).iterdir()) == []
    assert tree(result.root) == before


# -------------------------------------------------------------------------------------------------- nothing is replaced


def test_a_folder_that_holds_something_is_refused(result: Clustering, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "mine").touch()
    with pytest.raises(DataError, match="holds files already, such as mine"):
        plan_sort(result, tmp_path / "new", "copy")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is not a folder"):
        plan_sort(result, tmp_path / "file", "copy")


@pytest.mark.parametrize("how", ["copy", "link", "move"])
def test_a_folder_among_the_images_is_refused(result: Clustering, tmp_path: Path, how: str) -> None:
    with pytest.raises(DataError, match="lies in the folder of the images"):
        plan_sort(result, tmp_path / "photos", how)
    if how != "move":
        with pytest.raises(DataError, match="would find each image twice"):
            plan_sort(result, tmp_path / "photos" / "new", how)


def test_another_sort_there_is_refused(result: Clustering, tmp_path: Path) -> None:
    carry_out(plan_sort(result, tmp_path / "new", "copy"))
    with pytest.raises(DataError, match="one that was to copy"):
        plan_sort(result, tmp_path / "new", "move")
    result.images.loc[0, "cluster"] = 2
    with pytest.raises(DataError, match="another result"):
        plan_sort(result, tmp_path / "new", "copy")


def test_an_edited_copy_and_the_last_copy_are_kept(result: Clustering, tmp_path: Path) -> None:
    new = tmp_path / "new"
    carry_out(plan_sort(result, new, "copy"))
    (new / "shoes" / "b.jpg").write_bytes(b"edited")
    (new / "shoes" / "notes.txt").write_text("mine")
    (result.root / "a.jpg").unlink()
    left = undo_sort(new).left
    assert {path.name for path in left} == {"a.jpg", "b.jpg"}
    assert set(tree(new)) == {"shoes", "shoes/a.jpg", "shoes/b.jpg", "shoes/notes.txt", UNDO}
    assert (new / "shoes" / "b.jpg").read_bytes() == b"edited"


def test_a_new_file_where_an_image_was_is_kept(result: Clustering, tmp_path: Path) -> None:
    new = tmp_path / "new"
    carry_out(plan_sort(result, new, "move"))
    (result.root / "a.jpg").write_bytes(b"new")
    left = undo_sort(new).left
    assert list(left) == [new / "shoes" / "a.jpg"]
    assert (result.root / "a.jpg").read_bytes() == b"new"
    (result.root / "a.jpg").unlink()
    assert undo_sort(new).left == {}
    assert not new.exists()


def test_a_folder_that_is_gone_is_made_again(result: Clustering, tmp_path: Path) -> None:
    before = tree(result.root)
    carry_out(plan_sort(result, tmp_path / "new", "move"))
    (result.root / "deep" / "er").rmdir()
    (result.root / "deep").rmdir()
    assert undo_sort(tmp_path / "new").left == {}
    assert tree(result.root) == before


def test_images_that_are_gone_are_said_and_the_others_sorted(result: Clustering, tmp_path: Path) -> None:
    (result.root / "b.jpg").unlink()
    plan = plan_sort(result, tmp_path / "new", "move")
    assert plan.missing == [result.root / "b.jpg"]
    assert "1 images are no longer where they were" in "\n".join(plan.preview())
    assert carry_out(plan).left == {result.root / "b.jpg": "it is no longer where it was"}
    with pytest.raises(DataError, match=r"none of the 6 images is where it was.*--undo"):
        plan_sort(result, tmp_path / "other", "copy")


def test_a_link_back_to_the_images_loses_none(result: Clustering, tmp_path: Path) -> None:
    """Where both names are one file, removing one of them would lose the image."""
    before, new = tree(result.root), tmp_path / "new"
    carry_out(plan_sort(result, new, "copy"))
    for path in (new / "shoes 2").iterdir():
        path.unlink()
    (new / "shoes 2").rmdir()
    (new / "shoes 2").symlink_to(result.root / "deep")
    undo_sort(new)
    assert tree(result.root) == before


def test_a_copy_that_is_also_the_image_is_kept(result: Clustering, tmp_path: Path) -> None:
    """Where the images' folder was replaced by a link to the copies, these are all that is left."""
    new = tmp_path / "new"
    carry_out(plan_sort(result, new, "copy"))
    content = (result.root / "deep" / "c.jpg").read_bytes()
    shutil.rmtree(result.root / "deep")
    (result.root / "deep").symlink_to(new / "shoes 2")
    assert new / "shoes 2" / "c.jpg" in undo_sort(new).left
    assert (new / "shoes 2" / "c.jpg").read_bytes() == content


def test_another_image_of_the_same_size_and_time_is_kept(result: Clustering, tmp_path: Path) -> None:
    new = tmp_path / "new"
    carry_out(plan_sort(result, new, "move"))
    moved, before = new / "shoes" / "a.jpg", (new / "shoes" / "a.jpg").stat()
    (result.root / "a.jpg").write_bytes(b"x" * before.st_size)
    os.utime(result.root / "a.jpg", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert list(undo_sort(new).left) == [moved]
    assert carry_out(plan_sort(result, new, "move")).left.keys() == {result.root / "a.jpg"}
    assert moved.exists()


def test_a_full_disk_is_said_before_the_work(
    result: Clustering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labkit.own.sorting.free_space", lambda new: 10)
    with pytest.raises(DataError, match=r"has 0\.0 MB free\. Use --link"):
        plan_sort(result, tmp_path / "new", "copy")
    assert plan_sort(result, tmp_path / "new", "link").space == 0
    assert plan_sort(result, tmp_path / "new", "move").space == 0


@pytest.mark.parametrize(
    "change",
    [
        {"labkit": "other"},
        {"how": "burn"},
        {"version": 2},
        {"steps": 3},
        {"steps": [{"from": "/a", "to": "../b"}]},
        {"steps": [{"from": "/a", "to": "x/../b"}]},
        {"steps": [{"from": "/a", "to": "/b"}]},
        {"steps": [{"from": "a", "to": "x/b"}]},
        {"steps": [{"from": "/x/../a", "to": "x/b"}]},
        {"steps": [{"from": "/a"}]},
        {"steps": [{"from": "/a", "to": "x/b", "link": 3}]},
        {"steps": [{"from": None, "to": "x/b"}]},
    ],
)
def test_an_undo_file_of_something_else_is_refused(
    result: Clustering, tmp_path: Path, change: dict[str, object]
) -> None:
    carry_out(plan_sort(result, tmp_path / "new", "copy"))
    content = json.loads((tmp_path / "new" / UNDO).read_text())
    (tmp_path / "new" / UNDO).write_text(json.dumps(content | change))
    before = tree(tmp_path)
    with pytest.raises(DataError, match=r"undo.json cannot be read"):
        undo_sort(tmp_path / "new")
    assert tree(tmp_path) == before
    with pytest.raises(DataError, match=r"holds no undo.json"):
        undo_sort(tmp_path)


# ----------------------------------------------------------------------------------------------------- the command line


def test_it_shows_and_asks(
    result: Clustering, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, new = tmp_path / "out", tmp_path / "new"
    result.save(out)
    command = ["sort", str(out), "--to", str(new), "--move"]
    assert main(command) == 2
    said = capsys.readouterr()
    assert "move 6 images to 3 folders" in said.out
    assert "a.jpg -> shoes/a.jpg" in said.out
    assert "--yes" in said.err
    assert not new.exists()

    for answer, sorted_ in (("n\n", False), ("", False), ("y\n", True)):
        terminal = Terminal(answer)
        monkeypatch.setattr(sys, "stdin", terminal)
        assert main(command) == 0
        assert new.exists() == sorted_
    assert "6 of 6 images are in" in capsys.readouterr().out
    assert main(["sort", "--undo", str(new)]) == 0
    assert "6 images are as they were" in capsys.readouterr().out
    assert not new.exists()
    assert main([*command, "--yes"]) == 0
    (new / "shoes" / "a.jpg").rename(new / "gone.jpg")
    assert main([*command, "--yes"]) == 1
    assert "1 could not be put there:\n" in capsys.readouterr().out


class Terminal:
    """Standard input with a person at it."""

    def __init__(self, answer: str) -> None:
        self.answer = answer

    def isatty(self) -> bool:
        return True

    def readline(self) -> str:
        return self.answer


@pytest.mark.parametrize(
    "arguments",
    [
        ["o"],
        ["o", "--to", "n"],
        ["--to", "n", "--copy"],
        ["o", "--undo", "n"],
        ["o", "--to", "n", "--copy", "--move"],
        ["--undo", "n", "--copy"],
    ],
)
def test_half_a_command_is_explained(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sort", *arguments]) == 2
    assert "labkit sort" in capsys.readouterr().err
