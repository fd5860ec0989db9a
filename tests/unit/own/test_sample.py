"""The folder to practice on: the same every time, and with everything in it that its description promises."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import labkit as lk
from labkit.data.decoding import read_image
from labkit.own import sample

NOT_IMAGES = ("cut short", "empty", "text named .jpg", "film")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("sample") / "photos"
    return folder, sample.make_sample_folder(folder)


def content(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def noted(table: pd.DataFrame, note: str) -> list[str]:
    return table.loc[table["note"] == note, "file"].tolist()


def test_the_same_seed_makes_the_same_folder_and_another_one_another(
    made: tuple[Path, pd.DataFrame], tmp_path: Path
) -> None:
    folder, table = made
    again = sample.make_sample_folder(tmp_path / "again")
    pd.testing.assert_frame_equal(table, again)
    assert content(tmp_path / "again") == content(folder)
    other = sample.make_later_folder(tmp_path / "a", 1), sample.make_later_folder(tmp_path / "b", 2)
    assert not other[0].equals(other[1])


def test_the_table_has_every_file_and_nothing_there_tells_the_truth(made: tuple[Path, pd.DataFrame]) -> None:
    folder, table = made
    assert table["file"].tolist() == sorted(content(folder))
    assert 300 < len(table) < 400
    for kind in sample.KINDS:
        assert not any(kind[:-1] in name for name in content(folder))


def test_kinds_are_uneven(made: tuple[Path, pd.DataFrame]) -> None:
    _, table = made
    sizes = table["kind"].value_counts().drop(["", sample.ODD])
    assert set(sizes.index) == set(sample.KINDS)
    assert sizes.max() >= 5 * sizes.min()


def test_images_can_be_read_in_color_and_the_others_cannot(made: tuple[Path, pd.DataFrame]) -> None:
    folder, table = made
    colored = 0
    for row in table.itertuples():
        if row.note in NOT_IMAGES:
            with pytest.raises(lk.LabkitError):
                read_image(folder / row.file)
        else:
            levels = np.asarray(read_image(folder / row.file), dtype=int)
            colored += int(np.ptp(levels, axis=2).max() > 30)
    assert colored > 300
    assert {Path(name).suffix for name in table["file"]} == {".jpg", ".png", ".webp", ".gif", ".mov"}


def test_copies_are_what_their_notes_say(made: tuple[Path, pd.DataFrame]) -> None:
    folder, table = made
    copies = table[table["note"].str.contains("duplicate of ")]
    assert copies["note"].str.startswith("near").sum() == 3
    assert len(copies) == 4
    for row in copies.itertuples():
        words, _, original = row.note.rpartition(" of ")
        one, other = read_image(folder / row.file), read_image(folder / original)
        assert table.set_index("file")["kind"][original] == row.kind
        if words == "duplicate":
            assert (folder / row.file).read_bytes() == (folder / original).read_bytes()
        else:
            assert one.size != other.size
            apart = np.abs(np.asarray(one.resize(other.size), dtype=float) - np.asarray(other, dtype=float))
            assert 1 < apart.mean() < 20


def test_odd_ones_are_what_their_notes_say(made: tuple[Path, pd.DataFrame]) -> None:
    folder, table = made
    assert len(noted(table, "blurred")) == 4
    for name in noted(table, "tiny"):
        assert read_image(folder / name).size == (16, 16)
    for name in noted(table, "blank"):
        assert np.asarray(read_image(folder / name)).std() < 2
    [odd] = noted(table, sample.ODD)
    assert read_image(folder / odd).height == 2 * sample.SIDE
    [turned] = noted(table, "on its side")
    with Image.open(io.BytesIO((folder / turned).read_bytes())) as image:
        assert image.getexif()[sample.ORIENTATION] == 6
    upright = np.asarray(read_image(folder / turned), dtype=float)
    assert upright.shape == (sample.SIDE, sample.SIDE, 3)


def test_later_images_have_new_kinds_and_are_others(made: tuple[Path, pd.DataFrame], tmp_path: Path) -> None:
    folder, _ = made
    later = sample.make_later_folder(tmp_path / "later")
    assert set(later["kind"]) == {*sample.KINDS, *sample.UNSEEN}
    assert later.loc[later["note"] == "new kind", "kind"].isin(list(sample.UNSEEN)).all()
    assert later.loc[later["note"] == "", "kind"].isin(list(sample.KINDS)).all()
    assert set(content(tmp_path / "later").values()).isdisjoint(content(folder).values())


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(lk.LabkitError, match=r"holds 'mine\.txt'\. Expected an empty folder"):
        sample.make_sample_folder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(lk.LabkitError, match="cannot be made"):
        sample.make_later_folder(tmp_path / "mine.txt")


@pytest.mark.parametrize("random_state", [None, -1, 1.5, "0", True, np.random.RandomState(0)])
def test_a_seed_is_a_whole_number(random_state: Any, tmp_path: Path) -> None:
    with pytest.raises(lk.LabkitError, match=r"random_state is .* Expected a whole number"):
        sample.make_sample_folder(tmp_path / "new", random_state)
    assert not (tmp_path / "new").exists()
