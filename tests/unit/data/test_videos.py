"""Videos: the middle frame as TURTLE's authors take it."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from labkit.data.datasets import load_dataset
from labkit.data.folders import data_dir
from labkit.data.schema import Manifest
from labkit.data.videos import middle_frame
from labkit.errors import DataError

av = pytest.importorskip("av")

STEP = 12  # levels of gray between frames


@pytest.fixture(autouse=True)
def no_data_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "data"))


def film(path: Path, n_frames: int, codec: str = "mpeg4") -> Path:
    """A video whose frame i is gray of the level STEP * i."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        for i in range(n_frames):
            pixels = np.full((24, 32, 3), STEP * i, dtype=np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def shown_frame(path: Path) -> int:
    return round(float(np.asarray(middle_frame(path)).mean()) / STEP)


def as_the_authors_do(path: Path) -> int | None:
    """Which frame their loop stops at."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        for i, _ in enumerate(container.decode(stream)):
            if i - 1 == stream.frames // 2:
                return i
    return None


@pytest.mark.parametrize("ending", [".avi", ".mp4"])
@pytest.mark.parametrize("n_frames", [1, 2, 3, 9, 10])
def test_the_middle_frame(tmp_path: Path, ending: str, n_frames: int) -> None:
    path = film(tmp_path / f"video{ending}", n_frames)
    expected = as_the_authors_do(path)
    assert expected is None or n_frames > 2
    assert shown_frame(path) == (n_frames - 1 if expected is None else expected)
    image = middle_frame(path)
    assert (image.mode, image.size) == ("RGB", (32, 24))


def test_a_container_that_does_not_count_its_frames(tmp_path: Path) -> None:
    """Then the authors take frame 1."""
    path = film(tmp_path / "video.mkv", 6)
    assert as_the_authors_do(path) == 1
    assert shown_frame(path) == 1


UCF = {
    "kind": "lists",
    "images": "UCF-101",
    "train": "lists/trainlist01.txt",
    "test": "lists/testlist01.txt",
    "names": ["Archery", "YoYo"],
}


def manifest(layout: dict) -> Manifest:
    splits = {"train": {"size": 2, "how": "x"}, "test": {"size": 1, "how": "x"}}
    layout = {"kind": "videos", "layout": layout}
    return Manifest.model_validate(
        {
            "id": "mine",
            "title": "Mine",
            "task": "any",
            "classes": ["archery", "yo-yo"],
            "splits": splits,
            "source": {"kind": "manual", "path": "mine", "instructions": "Fill it.", "layout": layout},
            **dict.fromkeys(("license", "citation", "homepage"), "unknown"),
        }
    )


def test_lists_of_ucf101(tmp_path: Path) -> None:
    root = data_dir() / "mine"
    for i, name in enumerate(("Archery/v_1.avi", "YoYo/v_2.avi", "YoYo/v_3.avi")):
        film(root / "UCF-101" / name, 3 + 2 * i)
    (root / "lists").mkdir()
    (root / "lists" / "trainlist01.txt").write_text("YoYo/v_3.avi 101\nArchery/v_1.avi 3\n")
    (root / "lists" / "testlist01.txt").write_text("YoYo/v_2.avi\n")
    train = load_dataset(manifest(UCF))
    assert train.labels.tolist() == [1, 0]
    assert [path.name for path in train.files or []] == ["v_3.avi", "v_1.avi"]
    assert round(np.asarray(train[0][0]).mean() / STEP) == 7 // 2 + 1
    assert train.use(0, lambda image: image.size) == (32, 24)
    again = pickle.loads(pickle.dumps(train))
    np.testing.assert_array_equal(np.asarray(again[1][0]), np.asarray(train[1][0]))
    before = train.identity
    film(root / "UCF-101" / "Archery" / "v_1.avi", 9)
    assert load_dataset(manifest(UCF)).identity != before


def test_folders_of_kinetics(tmp_path: Path) -> None:
    root = data_dir() / "mine"
    film(root / "train" / "yo yo" / "b.mp4", 3)
    film(root / "train" / "Archery" / "a.mp4", 3)
    film(root / "val" / "Archery" / "c.mp4", 3)
    (root / "train" / "Archery" / "a.txt").write_text("no video")
    train = load_dataset(manifest({"kind": "folders", "train": "train", "test": "val"}))
    assert train.labels.tolist() == [0, 1]
    assert train.subset([1])[0][0].size == (32, 24)


def test_damaged_videos_are_an_error_that_names_them(tmp_path: Path) -> None:
    whole = film(tmp_path / "video.mp4", 9).read_bytes()
    for i, content in enumerate((b"", b"x" * 500, whole[:300])):
        path = tmp_path / f"damaged{i}.mp4"
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"damaged{i}.mp4 cannot be read"):
            middle_frame(path)
    with pytest.raises(DataError, match=r"nowhere\.mp4 cannot be read"):
        middle_frame(tmp_path / "nowhere.mp4")


def test_a_playlist_is_no_video(tmp_path: Path) -> None:
    """FFmpeg would follow it to other files."""
    film(tmp_path / "secret.avi", 3)
    (tmp_path / "list.avi").write_text("ffconcat version 1.0\nfile secret.avi\n")
    with pytest.raises(DataError, match="cannot be read"):
        middle_frame(tmp_path / "list.avi")


def test_without_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(DataError, match=r'pip install "labkit\[papers\]"'):
        middle_frame(tmp_path / "video.avi")
