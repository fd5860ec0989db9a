"""A fitted MUST as a file, and back; what is read is checked before it becomes one, and names only known backbones."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from labkit import pocket
from labkit._inputs import is_whole
from labkit._saved import MALFORMED, read_saved, write_saved
from labkit.errors import BackboneError, CheckpointError, LabkitError, quote
from labkit.must.config import MustConfig
from labkit.must.model import MaskedClassifier, image_tower
from labkit.must.run import part
from labkit.spaces.backbones import Backbone, load_backbone
from labkit.spaces.papers import SPACES
from labkit.zeroshot.prompts import Prompts

if TYPE_CHECKING:
    from labkit.must.estimator import MUST

LARGEST_IMAGE = 1024  # pixels of a side for which a backbone is made because a file says so


def write_must(must: MUST, backbone: Backbone, path: str | os.PathLike[str]) -> None:
    settings = {
        "backbone": backbone.name,
        "fingerprint": backbone.fingerprint,
        "prompts": dataclasses.asdict(must.prompts),
        "config": dataclasses.asdict(must.config or MustConfig()),
        "history": must.history_,
        "random_state": int(must.random_state),
        "image_size": image_tower(backbone).image_size[0],
        "logit_scale": must.model_.logit_scale,
        "best_epoch": must.best_epoch_,
        "parts": [must.model_.masked_image, must.model_.alignment],
    }
    tensors = {f"model/{name}": tensor for name, tensor in must.model_.state_dict().items()}
    try:
        write_saved(path, "MUST", settings, tensors | {"pseudo_labels": torch.from_numpy(must.pseudo_labels_)})
    except OSError as error:
        raise CheckpointError(f"the model cannot be written to {path} ({error}). Choose another place.") from error


def read_must(
    cls: type[MUST], path: str | os.PathLike[str], backbone: Backbone | None, device: str
) -> tuple[MUST, Backbone]:
    kept, tensors = read_saved(path, "MUST", "Fit and save it again.")
    try:
        return _restored(cls, path, kept, tensors, backbone, device)
    except LabkitError as error:
        if isinstance(error, CheckpointError | BackboneError):
            raise
        raise CheckpointError(f"{path} holds no whole MUST ({error}). Fit and save it again.") from error
    except MALFORMED as error:
        raise CheckpointError(f"{path} holds no whole MUST ({error}). Fit and save it again.") from error


def _restored(
    cls: type[MUST],
    path: str | os.PathLike[str],
    kept: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    backbone: Backbone | None,
    device: str,
) -> tuple[MUST, Backbone]:
    given = kept["prompts"]
    prompts = Prompts.from_words(
        dict(zip(given["classes"], given["names"], strict=True)), given["templates"], relation=given["relation"]
    )
    config = MustConfig().replace(**kept["config"])
    if backbone is None:
        backbone = _named_backbone(path, kept["backbone"], kept["image_size"], device)
    if backbone.fingerprint != kept["fingerprint"]:
        raise CheckpointError(
            f"{path} was fitted on {quote(kept['backbone'])} with other weights or another geometry than the backbone "
            "that is here: it would see other pixels. Give the one of the fit: MUST.load(path, backbone=…)."
        )
    must = cls(backbone.name, prompts, config, random_state=kept["random_state"], device=device)
    masked_image, alignment = kept["parts"]
    with torch.random.fork_rng(devices=[]):
        must.model_ = MaskedClassifier(
            image_tower(backbone),
            tensors["model/head.weight"],
            float(kept["logit_scale"]),
            masked_image=masked_image,
            alignment=alignment,
        )
    must.model_.load_state_dict(part(dict(tensors), "model/"))
    must.model_.requires_grad_(False).eval().to(backbone.device)
    must.classes_, must.class_names_ = np.arange(len(prompts.classes)), np.array(prompts.classes)
    must.history_, must.best_epoch_ = list(kept["history"]), int(kept["best_epoch"])
    must.pseudo_labels_ = tensors["pseudo_labels"].numpy()
    if must.model_.head.weight.shape != (len(prompts.classes), backbone.dim):
        raise ValueError(f"its head is {tuple(must.model_.head.weight.shape)}, not of its classes and its backbone")
    if len(must.history_) != len(must.pseudo_labels_) or not 1 <= must.best_epoch_ <= len(must.history_):
        raise ValueError("its history and its pseudo-labels are of different epochs")
    entries = [entry for entry in must.history_ if isinstance(entry, dict) and "mutual_information" in entry]
    if len(entries) < len(must.history_) or not is_whole(must.random_state, 0, 2**63 - 1):
        raise ValueError("its history or its seed is none")
    if must.pseudo_labels_.ndim != 2 or must.pseudo_labels_.dtype != np.int64:
        raise ValueError("its pseudo-labels are no class numbers")
    if not 0 < must.model_.logit_scale < np.inf:
        raise ValueError(f"its logit scale is {must.model_.logit_scale}")
    if not all(bool(tensor.isfinite().all()) for tensor in must.model_.state_dict().values()):
        raise ValueError("its weights are not finite")
    return must, backbone


def _named_backbone(path: str | os.PathLike[str], name: Any, image_size: Any, device: str) -> Backbone:
    """The backbone that a file names, where it is one that everybody knows: never a path, nor anyone's repository."""
    if not _is_known(name):
        raise CheckpointError(
            f"{path} names the backbone {quote(name)}, which is in no registry. If you trust it, load it yourself and "
            "give it: MUST.load(path, backbone=load_backbone(…))."
        )
    if not is_whole(image_size, 1, LARGEST_IMAGE):
        raise ValueError(f"its image size is {quote(image_size)}, expected a whole number up to {LARGEST_IMAGE}")
    backbone = load_backbone(name, device=device)
    if image_tower(backbone).image_size[0] != image_size:
        backbone = load_backbone(name, image_size=image_size, device=device)
    return backbone


def _is_known(name: Any) -> bool:
    if not isinstance(name, str):
        return False
    if name in SPACES or name in pocket.NAMES:
        return True
    from open_clip import list_pretrained

    kind, _, rest = name.partition(":")
    model, _, tag = rest.partition("/")
    return kind == "open_clip" and (model, tag) in set(list_pretrained())
