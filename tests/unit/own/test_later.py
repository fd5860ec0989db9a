"""Later images: what is unlike anything seen, by loops from the definition, and what a review made of clusters."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from labkit._saved import read_saved, write_saved
from labkit.cli import main
from labkit.errors import CheckpointError, DataError
from labkit.own import later
from labkit.own.clustering import SEEN, TURTLE
from labkit.own.later import Seen, load_seen, reviewed, save_seen, see
from labkit.own.reading import read_folder
from labkit.spaces.backbones import load_backbone
from labkit.turtle import Turtle
from tests.unit.own.results import make_result

RNG = np.random.default_rng(0)
FITTED = {"a": RNG.normal(3, 1, (40, 6)).astype(np.float32), "b": RNG.normal(0, 5, (40, 4)).astype(np.float32)}


def far_by_loops(image: dict[str, np.ndarray], leave_out: int | None) -> list[float]:
    """Of each space, the mean of one minus the five largest cosines with the fitted images: as they are, and less the
    mean of their unit vectors."""
    found = []
    for name, fitted in FITTED.items():
        vectors = [x.astype(float) / np.sqrt(x.astype(float) @ x) for x in fitted]
        mean = sum(vectors) / len(vectors)
        unit = image[name].astype(float) / np.sqrt(image[name].astype(float) @ image[name])
        for origin in (0 * mean, mean):
            cosines = []
            for i, other in enumerate(vectors):
                if i != leave_out:
                    x, y = unit - origin, other - origin
                    cosines.append(x @ y / np.sqrt((x @ x) * (y @ y)))
            found.append(float(np.mean([1 - c for c in sorted(cosines)[-5:]])))
    return found


def test_unlike_is_the_share_of_fitted_images_that_are_nearer_to_the_rest() -> None:
    own = np.array([far_by_loops({k: v[i] for k, v in FITTED.items()}, i) for i in range(40)])  # (m, spaces)
    usual = np.median(own, axis=0)
    own = (own / usual).mean(1)
    new = {"a": RNG.normal(3, 2, (9, 6)).astype(np.float32), "b": RNG.normal(0, 5, (9, 4)).astype(np.float32)}
    unlike = see(FITTED, "run").unlike(new)
    for i in range(9):
        far = np.mean(np.array(far_by_loops({k: v[i] for k, v in new.items()}, None)) / usual)
        near = min(abs(own - far))
        expected = sum(other < far for other in own) / 41
        assert unlike[i] == pytest.approx(expected, abs=1e-6 if near > 2e-3 else 1.1 / 41)  # kept in half precision


def test_of_images_like_the_fitted_ones_about_a_twentieth_is_flagged() -> None:
    shares = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        fitted, new = (rng.normal(1, 1, (n, 8)).astype(np.float32) for n in (300, 300))
        shares.append((see({"x": fitted}, "run").unlike({"x": new}) > later.UNLIKE).mean())
    assert np.mean(shares) == pytest.approx(0.05, abs=0.015)


def test_what_is_far_away_is_flagged_and_too_few_images_flag_nothing() -> None:
    fitted = RNG.normal(0, 1, (60, 8)) * [1, 1, 1, 1, 0.01, 0.01, 0.01, 0.01]
    new = RNG.normal(0, 1, (20, 8)) * [0.01, 0.01, 0.01, 0.01, 1, 1, 1, 1]
    assert (see({"x": fitted.astype(np.float32)}, "run").unlike({"x": new.astype(np.float32)}) > later.UNLIKE).all()
    few = see({"x": fitted[:8].astype(np.float32)}, "run").unlike({"x": new.astype(np.float32)})
    assert (few <= later.UNLIKE).all()


@pytest.mark.parametrize("n", [2, 3])
def test_identical_images_give_numbers(n: int) -> None:
    seen = see({"x": np.ones((n, 3), np.float32)}, "run")
    unlike = seen.unlike({"x": np.eye(3, dtype=np.float32)})
    assert np.isfinite(unlike).all()
    assert ((unlike >= 0) & (unlike < 1)).all()
    assert seen.unlike({"x": np.ones((1, 3), np.float32)}) == 0


def test_of_many_images_a_part_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(later, "REFERENCE", 10)
    seen = see(FITTED, "run")
    assert len(seen.rows) == len(seen.distances) == len(seen.spaces["a"][1]) == 10
    assert (np.diff(seen.rows) > 0).all()
    assert seen.unlike(FITTED).shape == (40,)


def test_a_missing_space_is_named() -> None:
    with pytest.raises(DataError, match="4 columns of the space b"):
        see(FITTED, "run").unlike({"a": FITTED["a"], "b": FITTED["a"]})
    with pytest.raises(DataError, match="6 columns of the space a"):
        see(FITTED, "run").unlike({})


# ----------------------------------------------------------------------------------------------------------------- kept


def test_what_is_kept_is_read_back(tmp_path: Path) -> None:
    result = make_result(tmp_path, [f"{i}.jpg" for i in range(40)], [0] * 40, {})
    save_seen(tmp_path, FITTED, result)
    seen, expected = load_seen(tmp_path), see(FITTED, "a")
    assert (seen.run, seen.usual) == (expected.run, expected.usual)
    assert (seen.unlike(FITTED) == expected.unlike(FITTED)).all()
    first = (tmp_path / SEEN).read_bytes()
    save_seen(tmp_path, FITTED, result)
    assert len((tmp_path / SEEN).read_bytes()) == len(first)


@pytest.mark.parametrize("broken", ["rows", "usual", "units/0", "mean/1", "distances", "nan"])
def test_what_does_not_fit_is_refused(tmp_path: Path, broken: str) -> None:
    save_seen(tmp_path, FITTED, make_result(tmp_path, [f"{i}.jpg" for i in range(40)], [0] * 40, {}))
    settings, tensors = read_saved(tmp_path / SEEN, "Seen", "")
    if broken == "usual":
        settings["usual"]["a"] = [0, 1]
    elif broken == "nan":
        tensors["distances"][0] = torch.nan
    else:
        tensors[broken] = tensors[broken][:-1]
    write_saved(tmp_path / SEEN, "Seen", settings, tensors)
    with pytest.raises(CheckpointError, match="no whole Seen"):
        load_seen(tmp_path)
    (tmp_path / SEEN).write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="Run labkit cluster again"):
        load_seen(tmp_path)


# ----------------------------------------------------------------------------------------------------------- the review


def two_sides(n: int, seed: int) -> np.ndarray:
    """Features of n images: the first half near +x, the others near -x."""
    rng = np.random.default_rng(seed)
    features = rng.normal(0, 0.1, (n, 4)).astype(np.float32)
    features[:, 0] += np.repeat([1, -1], n // 2)
    return features


@pytest.fixture
def split(tmp_path: Path) -> tuple[later.Clustering, Seen]:
    """Cluster 0, found as one, split in two sides (0 and 5) but for one rejected image; 1 merged into 0, 2 rejected."""
    labels = [0] * 19 + [-1] + [5] * 20 + [0] * 4 + [-1] * 4
    result = make_result(tmp_path, [f"{i}.jpg" for i in range(48)], labels, {0: "left", 5: "right"})
    result.images["found"] = [0] * 40 + [1] * 4 + [2] * 4
    features = np.concatenate([two_sides(40, 0), np.full((8, 4), 0.1, np.float32)])
    return result, see({"x": features}, "a")


def test_later_images_follow_the_review(split: tuple[later.Clustering, Seen]) -> None:
    result, seen = split
    new = np.concatenate([two_sides(10, 1), two_sides(4, 2)])
    found = np.array([0] * 10 + [1, 2, 2, 1])
    assert reviewed(found, result, seen, {"x": new}).tolist() == [0] * 5 + [5] * 5 + [0, -1, -1, 0]


def test_a_cluster_that_no_fitted_image_has_stays(split: tuple[later.Clustering, Seen]) -> None:
    result, seen = split
    assert reviewed(np.array([7]), result, seen, {"x": two_sides(2, 0)[:1]}).tolist() == [7]


def test_a_part_of_which_nothing_is_kept_is_not_chosen(split: tuple[later.Clustering, Seen]) -> None:
    result, seen = split
    kept = seen.rows < 20
    fewer = dataclasses.replace(
        seen, rows=seen.rows[kept], spaces={name: (mean, units[kept]) for name, (mean, units) in seen.spaces.items()}
    )
    assert reviewed(np.zeros(10, int), result, fewer, {"x": two_sides(10, 1)}).tolist() == [0] * 10


# -------------------------------------------------------------------------------------------------------- the command


def make_images(folder: Path, shades: list[int], seed: int) -> None:
    """Noisy gray images of these shades, with hostile names."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i, shade in enumerate(shades):
        noise = rng.integers(0, 40, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(noise + np.uint8(shade)).save(folder / f"={i:02d}\n.png")


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A result on dark and bright images, of which the cluster of the bright ones is named and the other rejected."""
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    make_images(tmp_path / "photos", [20] * 15 + [180] * 15, 0)
    reading = read_folder(tmp_path / "photos", [load_backbone("pixels")])
    turtle = Turtle(2, n_restarts=2, n_outer_steps=50, random_state=0).fit(list(reading.features.values()))
    bright = int(turtle.labels_[-1])
    labels = [int(label) if label == bright else -1 for label in turtle.labels_]
    result = make_result(tmp_path / "made", [f"{i}.png" for i in range(30)], labels, {bright: "=bright"})
    result = dataclasses.replace(result, root=reading.root, paths=reading.files)
    result.images["found"] = turtle.labels_
    result.report["settings"] = {"backbones": ["pixels"]}
    out = tmp_path / "out"
    result.save(out)
    turtle.save(out / TURTLE)
    save_seen(out, reading.features, result)
    return out


def test_later_images_get_reviewed_clusters(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_images(tmp_path / "new", [20] * 3 + [180] * 4, 1)
    (tmp_path / "new" / "broken.png").write_bytes(b"no image")
    checker = np.kron(np.indices((2, 2)).sum(0) % 2, np.full((8, 8), 255)).astype(np.uint8)
    Image.fromarray(checker).save(tmp_path / "new" / "other.png")
    for given in (saved, saved / TURTLE):
        assert main(["predict", str(given), str(tmp_path / "new"), "--out", str(tmp_path / "new.csv")]) == 0
    said = capsys.readouterr().out
    assert "left out: broken.png" in said
    assert "(=bright): " in said
    with (tmp_path / "new.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [f"./={i:02d}\n.png" for i in range(7)] + ["other.png"]
    assert {row["cluster"] for row in rows[:3]} == {"-1"}
    assert {row["name"] for row in rows[:3]} == {""}
    assert {row["name"] for row in rows[3:7]} == {"'=bright"}
    assert "unlike anything seen" in rows[7]["flags"]
    assert float(rows[7]["unlike"]) > 0.95
    assert sum("unlike" in row["flags"] for row in rows[:7]) <= 1


def test_what_cannot_be_predicted_is_said_first(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(tmp_path / "nothing"), str(tmp_path / "photos")]) == 2
    assert "there is no " in capsys.readouterr().err
    assert main(["predict", str(tmp_path), str(tmp_path / "photos")]) == 2
    assert "holds no clusters" in capsys.readouterr().err
    image = next((tmp_path / "photos").iterdir())
    content = image.read_bytes()
    assert main(["predict", str(saved), str(tmp_path / "photos"), "--out", str(image)]) == 2
    assert image.read_bytes() == content
    assert main(["predict", str(saved), str(tmp_path / "photos"), "--out", str(saved / TURTLE)]) == 2
    assert "would replace" in capsys.readouterr().err
    (saved / SEEN).unlink()
    assert main(["predict", str(saved), str(tmp_path / "photos")]) == 2
    assert "Run labkit cluster again" in capsys.readouterr().err
