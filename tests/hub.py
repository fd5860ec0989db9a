"""Random weights where the Hugging Face hub's own cache would keep the published ones: no network, true shapes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from labkit.spaces.papers import Space

COMMIT = "0" * 40


def put_into_cache(hub: Path, repo: str, filename: str, state: dict[str, Tensor]) -> None:
    """Lay out a file as the hub's cache does: refs/main names a snapshot, whose files are links into blobs/."""
    folder = hub / f"models--{repo.replace('/', '--')}"
    snapshot, blobs = folder / "snapshots" / COMMIT, folder / "blobs"
    for path in (snapshot, blobs, folder / "refs"):
        path.mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    blob = blobs / hashlib.sha256(repo.encode()).hexdigest()
    save_file(state, blob)
    (snapshot / filename).symlink_to(blob)


def put_openai_clip(hub: Path, model: str) -> None:
    """Random weights of one of OpenAI's models, in half precision, where open_clip looks for the published ones."""
    repo = open_clip.get_pretrained_cfg(model, "openai")["hf_hub"].rstrip("/")
    put_into_cache(hub, repo, "open_clip_model.safetensors", random_state(model))


def put_space(hub: Path, space: Space) -> int:
    """Random weights of any space, where its library looks for the published ones; the number of its parameters."""
    if space.library == "timm":
        shapes = without_weights(space.model).state_dict()
        put_into_cache(hub, space.repo, "model.safetensors", random_like(shapes))
        return sum(tensor.numel() for tensor in shapes.values())
    config = open_clip.get_model_config(space.model)
    kind = open_clip.CustomTextCLIP if "timm_model_name" in config["vision_cfg"] else open_clip.CLIP
    with torch.device("meta"):
        shapes = kind(**{key: value for key, value in config.items() if key != "custom_text"}).state_dict()
    put_into_cache(hub, space.repo, "open_clip_model.safetensors", random_like(shapes))
    return sum(tensor.numel() for tensor in shapes.values())


def without_weights(model: str) -> Any:
    """A network of timm that has shapes and no numbers."""
    try:
        with torch.device("meta"):
            return timm.create_model(model, num_classes=0)
    except RuntimeError as error:
        if "meta tensors" not in str(error):
            raise
        pytest.skip("this PyTorch makes no such network without memory for its weights")


def random_state(model: str) -> dict[str, Tensor]:
    """A state of an open_clip model, as `random_like` makes it."""
    with torch.device("meta"):
        shapes = open_clip.CLIP(**open_clip.get_model_config(model)).state_dict()
    return random_like(shapes)


def random_like(shapes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state of these shapes whose features are finite and differ from image to image, made in no time."""
    noise = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0)).half()
    state = {}
    for name, tensor in shapes.items():
        if not tensor.is_floating_point():
            state[name] = torch.zeros(tensor.shape, dtype=tensor.dtype)
        elif name.endswith("running_var") or (name.endswith("weight") and tensor.ndim == 1):
            state[name] = torch.ones(tensor.shape, dtype=torch.half)  # of norms
        else:
            fan_in = tensor[0].numel() if tensor.ndim > 1 else 100
            repeated = noise.repeat(-(-tensor.numel() // len(noise)))[: tensor.numel()]
            state[name] = (repeated / max(fan_in, 1) ** 0.5).view(tensor.shape)
    return state
