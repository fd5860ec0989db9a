"""What labkit keeps: tensors and settings in one safetensors file, with the format's version and a digest of all of it.

A digest tells damage from what was written. It is no signature: whoever can write a file can write its digest as well,
so settings are checked by those who read them, and no file is ever run.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from labkit._files import atomic_write, expect_regular, user_path
from labkit.errors import CheckpointError, quote, shorten, shown

FORMAT = 1
MALFORMED = (LookupError, TypeError, ValueError, AttributeError, RuntimeError)  # what content that does not fit raises
LONGEST_PATH = 200  # characters of a path that a message repeats


def write_saved(
    path: str | os.PathLike[str], kind: str, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write one file, atomically.

    Args:
        path: of the file.
        kind: what it is, such as "Turtle"; read back only as that.
        settings: anything that JSON holds.
        tensors: on any device.

    Raises:
        OSError: it cannot be written.
    """
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(settings)
    metadata = {"labkit": kind, "format": str(FORMAT), "settings": text, "sha256": _digest(kind, text, on_cpu)}
    with atomic_write(path) as temporary:
        try:
            save_file(on_cpu, temporary, metadata)
        except SafetensorError as error:  # a full disk, for one
            raise OSError(str(error)) from error


def read_saved(path: str | os.PathLike[str], kind: str, advice: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The settings and the tensors of a file that `write_saved` wrote as this kind.

    Args:
        path: of the file.
        kind: what it must be.
        advice: what to do where it is damaged, a sentence.

    Raises:
        CheckpointError: it is missing, no such file, damaged, or of a newer labkit.
    """
    is_path = isinstance(path, str | os.PathLike) and len(os.fspath(path)) <= LONGEST_PATH
    name = shown(path) if is_path else quote(path)
    try:
        path = user_path(path)
        expect_regular(path)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("labkit") != kind:
                raise CheckpointError(
                    f"{name} holds no saved {kind}: it is something else. Choose another file or folder."
                )
            _expect_format(name, metadata.get("format", "0"))
            # copies: what comes from the file is a view of it, which changes with the file
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
    except CheckpointError:
        raise
    except Exception as error:  # of the system, or whatever a library says to bytes that are no such file
        reason = shorten(getattr(error, "strerror", None) or str(error), 200)
        raise CheckpointError(f"{name} cannot be read ({reason}). {advice}") from error
    text = metadata.get("settings", "")
    if metadata.get("sha256") != _digest(kind, text, tensors):
        raise CheckpointError(f"{name} is damaged: its content does not match its digest. {advice}")
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{name} has settings that are no JSON ({error}). {advice}") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{name} has settings that are no mapping. {advice}")
    return settings, tensors


def _expect_format(name: str, found: str) -> None:
    if found == str(FORMAT):
        return
    if found.isdecimal() and len(found) < 9 and int(found) < FORMAT:
        raise CheckpointError(f"{name} was written by an older labkit, before saved files had a format: make it anew.")
    raise CheckpointError(
        f"{name} has format {found:.20}, this labkit reads {FORMAT}. It was written by a newer one: update labkit."
    )


def _digest(kind: str, settings: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the kind, the format, the settings and every tensor with its name, dtype and shape."""
    digest = hashlib.sha256(json.dumps([kind, FORMAT, settings]).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
