"""Released labelings: read as the authors' own `evaluate.py` reads them, and everything else refused with a reason."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from labkit.errors import CheckpointError, FitError
from labkit.turtle import Turtle

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "turtle_golden.safetensors"


def layers(*dims: int, clusters: int = 4) -> dict[str, dict[str, Tensor]]:
    torch.manual_seed(0)
    return {f"phi{k}": dict(nn.Linear(d, clusters).state_dict()) for k, d in enumerate(dims, 1)}


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def test_predicts_as_the_authors_evaluation_does(tmp_path: Path) -> None:
    given = layers(6, 9)
    turtle = Turtle.from_published(saved(tmp_path / "task.pt", given))
    rng = np.random.default_rng(0)
    spaces = [rng.normal(size=(50, d)).astype(np.float32) for d in (6, 9)]
    expected = np.zeros((50, 4))
    for space, layer in zip(spaces, given.values(), strict=True):
        logits = space.astype(np.float64) @ layer["weight"].double().numpy().T + layer["bias"].double().numpy()
        powers = np.exp(logits - logits.max(1, keepdims=True))
        expected += powers / powers.sum(1, keepdims=True) / 2
    np.testing.assert_allclose(turtle.predict_proba(spaces), expected, atol=1e-6)
    np.testing.assert_array_equal(turtle.predict(spaces), expected.argmax(1))


def test_one_space_is_one_matrix(tmp_path: Path) -> None:
    turtle = Turtle.from_published(saved(tmp_path / "task.pt", layers(5)))
    assert turtle.predict(np.eye(5, dtype=np.float32)).shape == (5,)
    assert turtle.n_clusters == 4


def test_a_task_encoder_of_the_authors_program_gives_its_labeling(tmp_path: Path) -> None:
    golden, case = load_file(GOLDEN), "two_cold"
    named = {f"phi{k + 1}": {part: golden[f"{case}/after/{k}/{part}"] for part in ("weight", "bias")} for k in range(2)}
    turtle = Turtle.from_published(saved(tmp_path / "task.pt", named))
    spaces = [golden["features/clipvitL14"], golden["features/dinov2"]]
    layers = zip(spaces, named.values(), strict=True)
    expected = torch.stack([nn.functional.linear(z, **layer).softmax(1) for z, layer in layers]).mean(0)
    np.testing.assert_allclose(turtle.predict_proba(spaces), expected.numpy(), atol=1e-5)
    assert len(np.unique(turtle.predict(spaces))) > 1


def test_other_spaces_are_refused(tmp_path: Path) -> None:
    turtle = Turtle.from_published(saved(tmp_path / "task.pt", layers(5, 6)))
    with pytest.raises(FitError, match=r"Expected \[5, 6\]"):
        turtle.predict([np.zeros((3, 6)), np.zeros((3, 5))])


def test_it_cannot_be_saved_as_a_fit(tmp_path: Path) -> None:
    turtle = Turtle.from_published(saved(tmp_path / "task.pt", layers(5)))
    with pytest.raises(CheckpointError, match="Keep that file"):
        turtle.save(tmp_path / "turtle.safetensors")


@pytest.mark.parametrize(
    "content",
    [
        {},
        [1, 2],
        {"phi1": {"weight": torch.zeros(4, 5)}},
        {"phi2": {"weight": torch.zeros(4, 5), "bias": torch.zeros(4)}},
        {"phi1": {"weight": torch.zeros(4, 5), "bias": torch.zeros(3)}},
        {"phi1": {"weight": torch.zeros(4, 5, dtype=torch.int64), "bias": torch.zeros(4)}},
        {"phi1": {"weight": torch.full((4, 5), torch.nan), "bias": torch.zeros(4)}},
        {"phi1": {"weight": torch.zeros(1, 5), "bias": torch.zeros(1)}},
        {"phi1": {"weight": torch.zeros(4, 0), "bias": torch.zeros(4)}},
        {**layers(5), "phi2": {"weight": torch.zeros(3, 5), "bias": torch.zeros(3)}},
        {**layers(5), "extra": 1},
    ],
)
def test_what_is_no_labeling_is_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(CheckpointError, match="Expected a released labeling"):
        Turtle.from_published(saved(tmp_path / "task.pt", content))


class Harmful:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch ran",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # PyTorch's own, of a file that it did not write
def test_a_pickle_that_runs_a_program_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"phi1": Harmful()}, "task.pt")
    with pytest.raises(CheckpointError, match="other things than weights"):
        Turtle.from_published("task.pt")
    Path("plain.pt").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(CheckpointError, match="other things than weights"):
        Turtle.from_published("plain.pt")
    assert not Path("ran").exists()


def test_missing_and_damaged_files_are_explained(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        Turtle.from_published(tmp_path / "nothing.pt")
    whole = saved(tmp_path / "task.pt", layers(50)).read_bytes()
    for length in (0, 10, len(whole) // 2):
        (tmp_path / "cut.pt").write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            Turtle.from_published(tmp_path / "cut.pt")
