"""Ray Data drives the extraction: the same features as ours, and errors that say what to do."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import labkit as lk
from labkit.data.images import ImageDataset
from labkit.errors import DataError
from labkit.spaces.ray_data import EncodeImages, EncodeShards, features_with_ray
from labkit.spaces.shards import extract_shards
from tests.unit.spaces.test_shards import code_of_the_page

NOISE = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)
IMAGES = ImageDataset.from_images(NOISE)


@pytest.fixture
def ray() -> Iterator[None]:
    """A Ray of one process on this machine."""
    ray = pytest.importorskip("ray", reason='pip install "labkit[scale]"')
    pytest.importorskip("ray.data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100_000_000, log_to_driver=False)
        try:
            yield
        finally:
            ray.shutdown()


def test_the_example_of_the_page_equals_our_own_extraction(
    ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = next(text for text in code_of_the_page() if "features_with_ray" in text)
    for given, here in (
        ("imagenet", "digits"), ("clip-vit-l14", "pixels"), ("8192", "512"), ("workers=8", "workers=1"),
        ("gpus=1", 'gpus=0, device="cpu"'),
    ):  # fmt: skip
        assert given in example
        example = example.replace(given, here)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(example, names)
    theirs, out = names["features"], tmp_path / "ours"
    ours = extract_shards(lk.load_backbone("pixels", device="cpu"), lk.load_dataset("digits"), out, shard=512)
    np.testing.assert_array_equal(np.asarray(theirs), np.asarray(ours))
    assert theirs.identity == ours.identity
    assert (tmp_path / "features/by-ray/features.json").read_bytes() == (out / "features.json").read_bytes()


def test_batches_of_images_of_any_shape_get_their_features() -> None:
    encode = EncodeImages("efficientnet-lite0", "photo", device="cpu", dtype="float32", image_size=64)
    color = np.repeat(NOISE[0][..., None], 3, axis=2)
    batch = {"photo": np.empty(3, object), "id": np.arange(3)}
    batch["photo"][:] = [NOISE[0], color, NOISE[1][:20]]
    out = encode(batch)
    assert list(out) == ["photo", "id", "features"]
    assert (out["features"].shape, out["features"].dtype) == ((3, 1280), np.float32)
    np.testing.assert_allclose(out["features"][0], out["features"][1], atol=1e-4)  # gray or the same in color
    assert not np.allclose(out["features"][0], out["features"][2], atol=1e-2)
    for wrong in ({"image": NOISE[:2]}, {"photo": NOISE[:2].astype(float)}, {"photo": NOISE[:2, 0]}):
        with pytest.raises(DataError, match="Expected"):
            encode(wrong)


def test_what_a_worker_does_with_a_batch_of_shards(tmp_path: Path) -> None:
    worker = EncodeShards("pixels", IMAGES, str(tmp_path / "out"), "float16", 16, None, {"device": "cpu"})
    first, again = worker({"id": np.array([2, 0])}), worker({"id": np.array([2])})
    assert first["id"].tolist() == [2, 0]
    assert again["images"][0] == first["images"][0] != first["images"][1]
    assert sorted(path.name for path in (tmp_path / "out").glob("0*")) == [f"{i:012d}.safetensors" for i in (0, 32)]


def test_without_ray_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DataError, match=r'pip install "labkit\[scale\]"'):
        features_with_ray("pixels", IMAGES, tmp_path / "out")


def test_bad_input_is_said_before_ray_starts(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    for dataset, options in (("digits", {}), (IMAGES, {"workers": 0}), (IMAGES, {"shard": 0}), (IMAGES, {"dtype": 3})):
        with pytest.raises(DataError):
            features_with_ray("pixels", dataset, tmp_path / "out", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
