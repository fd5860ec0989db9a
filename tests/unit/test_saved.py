"""What labkit keeps: a flipped bit, a newer format, another kind and settings that lie are refused with one line."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sklearn.datasets import make_blobs

import labkit as lk
from labkit import _saved
from labkit._saved import read_saved, write_saved
from labkit.errors import CheckpointError, DataError, LabkitError
from labkit.must import MUST, checkpoint
from labkit.spaces.cache import feature_key, read_features, write_features
from labkit.turtle import Turtle
from tests import tiny

pytestmark = pytest.mark.usefixtures("tiny_model")

X = make_blobs(60, 6, centers=3, random_state=0)[0].astype(np.float32)
IMAGES = tiny.images()


def save_turtle(folder: Path) -> tuple[Path, Callable[[], Any]]:
    path = folder / "turtle.safetensors"
    Turtle(3, n_restarts=2, n_outer_steps=5, random_state=0, device="cpu").fit(X).save(path)
    return path, lambda: Turtle.load(path).predict(X)


def save_must(folder: Path) -> tuple[Path, Callable[[], Any]]:
    path = folder / "must.safetensors"
    tiny.must(epochs=1).fit(IMAGES).save(path)
    return path, lambda: MUST.load(path, backbone=tiny.backbone(), device="cpu").predict(IMAGES)


def save_checkpoint(folder: Path) -> tuple[Path, Callable[[], Any]]:
    tiny.must(epochs=1).fit(IMAGES, folder=folder)
    return folder / checkpoint.CHECKPOINT, lambda: tiny.must(epochs=1).fit(IMAGES, folder=folder)


def save_features(folder: Path) -> tuple[Path, Callable[[], Any]]:
    path, key = folder / "x.safetensors", feature_key(lk.load_backbone("pixels", device="cpu"), IMAGES)
    write_features(path, np.ones((key["rows"], key["width"]), np.float32), key)
    return path, lambda: read_features(path, key)


KINDS = [save_turtle, save_must, save_checkpoint, save_features]


@pytest.mark.parametrize("save", KINDS)
def test_no_flipped_bit_goes_unnoticed(save: Callable[[Path], Any], tmp_path: Path) -> None:
    path, load = save(tmp_path)
    load()
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    header = 8 + struct.unpack("<Q", content[:8])[0]
    places = [*rng.integers(0, header, 25), *rng.integers(header, len(content), 25), len(content) - 1]
    for place in map(int, places):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises((CheckpointError, DataError)) as caught:
            load()
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("save", KINDS)
@pytest.mark.parametrize("size", [0, 4, 8, 100, -1])
def test_a_file_that_was_cut_off_is_refused(save: Callable[[Path], Any], size: int, tmp_path: Path) -> None:
    path, load = save(tmp_path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises((CheckpointError, DataError), match="cannot be read"):
        load()


def with_metadata(path: Path, **changes: str | None) -> None:
    with safe_open(path, "pt") as file:
        metadata = file.metadata() | changes
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}  # not of the file that is replaced
    save_file(tensors, path, {name: text for name, text in metadata.items() if text is not None})


@pytest.mark.parametrize("save", KINDS)
def test_a_file_of_a_newer_or_older_labkit_or_of_another_kind_says_so(
    save: Callable[[Path], Any], tmp_path: Path
) -> None:
    path, load = save(tmp_path)
    for changes, said in (
        ({"format": "2"}, r"has format 2, this labkit reads 1.*update labkit"),
        ({"format": "1" * 100}, r"has format 1{20}, this labkit reads 1"),
        ({"format": None}, r"by an older labkit"),
        ({"labkit": "another kind"}, r"holds no saved"),
        ({"labkit": None}, r"holds no saved"),
    ):
        with_metadata(path, **{"format": "1"} | changes)
        with pytest.raises((CheckpointError, DataError), match=said):
            load()


def test_nothing_is_run_that_a_file_holds(tmp_path: Path) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "evil.safetensors").write_bytes(pickle.dumps(Evil()))
    for load in (Turtle.load, MUST.load):
        with pytest.raises(CheckpointError, match="cannot be read"):
            load(tmp_path / "evil.safetensors")
    assert not (tmp_path / "ran").exists()


def lie(path: Path, kind: str, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], object]) -> None:
    """Change what a file holds, with a digest that is right."""
    settings, tensors = read_saved(path, kind, "")
    change(settings, tensors)
    write_saved(path, kind, settings, tensors)


def drop(name: str) -> Callable[[dict[str, Any], dict[str, torch.Tensor]], object]:
    return lambda settings, tensors: tensors.pop(name) if name in tensors else settings.pop(name)


def settings_of(**changes: object) -> Callable[[dict[str, Any], dict[str, torch.Tensor]], object]:
    return lambda settings, tensors: settings.update(changes)


def tensor_of(name: str, tensor: torch.Tensor) -> Callable[[dict[str, Any], dict[str, torch.Tensor]], object]:
    return lambda settings, tensors: tensors.update({name: tensor})


TURTLE_LIES = {
    "no weight": drop("weight/0"),
    "no mean": drop("mean/0"),
    "no labels": drop("labels_"),
    "no history": drop("history/entropy"),
    "no settings": drop("settings"),
    "no best restart": drop("best_restart"),
    "a restart that is not there": settings_of(best_restart=7),
    "a restart in words": settings_of(best_restart="one"),
    "a setting of tomorrow": lambda settings, tensors: settings["settings"].update(tomorrow="even"),
    "settings of another kind": settings_of(settings=[1, 2]),
    "other clusters": lambda settings, tensors: settings["settings"].update(n_clusters=4),
    "a weight of another shape": tensor_of("weight/0", torch.zeros(2, 3, 5, dtype=torch.float64)),
    "a weight that is not finite": tensor_of("weight/0", torch.full((2, 3, 6), torch.nan, dtype=torch.float64)),
    "a label beyond": tensor_of("labels_", torch.full((60,), 3)),
    "labels that are fractions": tensor_of("labels_", torch.zeros(60)),
    "a mean in bfloat16": tensor_of("mean/0", torch.zeros(6, dtype=torch.bfloat16)),
    "a mean of whole numbers": tensor_of("mean/0", torch.zeros(6, dtype=torch.int32)),
    "a confidence that is none": tensor_of("confidence_", torch.full((2,), torch.nan, dtype=torch.float64)),
    "columns that are numbers": settings_of(columns=[[5]]),
    "a setting that no fit takes": lambda settings, tensors: settings["settings"].update(outer_lr=-1.0),
    "a history of others": tensor_of("history/entropy", torch.zeros(5, 9)),
    "a history of both priors": tensor_of("history/divergence", torch.zeros(5, 2)),
    "a share that is not positive": tensor_of("prior_", torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)),
    "shares of other clusters": tensor_of("prior_", torch.full((4,), 0.25, dtype=torch.float64)),
    "a prior that is none": lambda settings, tensors: settings["settings"].update(prior=[1.0, 2.0]),
}


MUST_LIES = {
    "no head": drop("model/head.weight"),
    "no prompts": drop("prompts"),
    "no history": drop("history"),
    "a setting of tomorrow": lambda settings, tensors: settings["config"].update(tomorrow=1),
    "a setting out of range": lambda settings, tensors: settings["config"].update(lr=-1),
    "more classes": lambda settings, tensors: settings["prompts"]["classes"].append("four"),
    "classes without names": lambda settings, tensors: settings["prompts"].update(names=[[], [], []]),
    "a head of another shape": tensor_of("model/head.weight", torch.zeros(3, 7)),
    "a head of more classes": tensor_of("model/head.weight", torch.zeros(4, 16)),
    "a weight that is not finite": tensor_of("model/head.weight", torch.full((3, 16), torch.inf)),
    "an epoch that is not there": settings_of(best_epoch=9),
    "a scale in words": settings_of(logit_scale="large"),
    "no parts": settings_of(parts=[]),
    "epochs that are not there": settings_of(history=[]),
    "a history of numbers": settings_of(history=[5]),
    "a seed in words": settings_of(random_state="a"),
    "a scale that is none": settings_of(logit_scale=float("nan")),
    "pseudo-labels that are fractions": tensor_of("pseudo_labels", torch.zeros(1, 24)),
}


CHECKPOINT_LIES = {
    "an optimizer of more": tensor_of("optimizer/999/exp_avg", torch.zeros(3)),
    "a best of another model": tensor_of("best/head.weight", torch.zeros(7, 7)),
    "a history in words": settings_of(history="x"),
    "a history of numbers": settings_of(history=[1]),
    "a best epoch beyond": settings_of(best_epoch=99),
    "epochs of another shape": tensor_of("epochs/0", torch.zeros(2, 2)),
    "a teacher that is not finite": tensor_of("teacher/head.weight", torch.full((3, 16), torch.nan)),
    "a step in words": settings_of(step="three"),
    "steps before the first": settings_of(step=-1),
}


LIES = [
    *((save_turtle, "Turtle", r"holds no whole Turtle", item) for item in TURTLE_LIES.items()),
    *((save_must, "MUST", r"holds no whole MUST", item) for item in MUST_LIES.items()),
    *(
        (save_checkpoint, checkpoint.KIND, r"(?s)is damaged .*Delete it to begin anew", item)
        for item in CHECKPOINT_LIES.items()
    ),
]


@pytest.mark.parametrize(
    ("save", "kind", "said", "change"), [pytest.param(*x[:3], x[3][1], id=f"{x[1]}: {x[3][0]}") for x in LIES]
)
def test_what_does_not_agree_with_itself_is_refused(
    save: Callable[[Path], Any], kind: str, said: str, change: Any, tmp_path: Path
) -> None:
    path, load = save(tmp_path)
    lie(path, kind, change)
    with pytest.raises(CheckpointError, match=said):
        load()


def test_what_was_read_does_not_change_with_the_file(tmp_path: Path) -> None:
    write_saved(tmp_path / "a", "x", {}, {"a": torch.ones(10_000)})
    _, tensors = read_saved(tmp_path / "a", "x", "")
    with (tmp_path / "a").open("r+b") as file:
        file.seek(-4000, 2)
        file.write(bytes(4000))
    assert torch.equal(tensors["a"], torch.ones(10_000))


def test_no_huge_model_is_made_because_a_file_says_so(tmp_path: Path) -> None:
    path, _ = save_must(tmp_path)
    for size in (10**6, "large", -1, 2.5):
        lie(path, "MUST", settings_of(image_size=size))
        with pytest.raises(CheckpointError, match="its image size is"):
            MUST.load(path, device="cpu")


@pytest.mark.parametrize(
    "name",
    [
        "open_clip:ViT-B-32//etc/passwd",
        "open_clip:ViT-B-32/../../model.pt",
        "open_clip:hf-hub:somebody/something/x",
        "timm:hf-hub:somebody/something",
        "timm:local-dir:/tmp/x",
        "open_clip:ViT-B-32/no-such-tag",
        "/tmp/model.pt",
        "",
        7,
        None,
        ["pocket-vit"],
    ],
)
def test_a_must_that_names_a_backbone_of_no_registry_loads_none(
    name: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = save_must(tmp_path)
    lie(path, "MUST", settings_of(backbone=name))

    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("a backbone was loaded by the name that a file gave")

    monkeypatch.setattr("labkit.must.saved.load_backbone", never)
    with pytest.raises(CheckpointError, match=r"which is in no registry.*backbone=load_backbone"):
        MUST.load(path, device="cpu")


def test_a_digest_covers_names_shapes_dtypes_and_settings() -> None:
    plain = _saved._digest("kind", "{}", {"a": torch.zeros(4)})
    others = [
        _saved._digest("other", "{}", {"a": torch.zeros(4)}),
        _saved._digest("kind", '{"b": 1}', {"a": torch.zeros(4)}),
        _saved._digest("kind", "{}", {"b": torch.zeros(4)}),
        _saved._digest("kind", "{}", {"a": torch.zeros(2, 2)}),
        _saved._digest("kind", "{}", {"a": torch.zeros(4, dtype=torch.int32)}),
        _saved._digest("kind", "{}", {}),
    ]
    assert len({plain, *others}) == 7


def test_anything_that_torch_has_comes_back(tmp_path: Path) -> None:
    tensors = {
        "empty": torch.zeros(0, 3),
        "one": torch.tensor(3.5, dtype=torch.float64),
        "bits": torch.tensor([True, False]),
        "half": torch.arange(6).reshape(2, 3).bfloat16().T,
    }
    write_saved(tmp_path / "a", "x", {"ä": [1, None, "b"]}, tensors)
    settings, found = read_saved(tmp_path / "a", "x", "")
    assert settings == {"ä": [1, None, "b"]}
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_settings_that_are_no_mapping_are_refused(tmp_path: Path) -> None:
    for text in ("[]", "nope", "[" * 100_000):
        metadata = {"labkit": "x", "format": "1", "settings": text, "sha256": _saved._digest("x", text, {})}
        save_file({}, tmp_path / "a", metadata)
        with pytest.raises(LabkitError, match="settings that are no"):
            read_saved(tmp_path / "a", "x", "")
