"""Manifests: find, read, and explain what is wrong with one; `schema` says what it may hold."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from labkit._files import open_regular, shipped_dir, user_path
from labkit.data import _yaml
from labkit.data.folders import data_dir, scan_folder
from labkit.data.layout_kinds import DRAWS, LAYOUTS
from labkit.data.schema import KINDS, ArchiveFile, Folder, Manifest, Published, Split, Strict
from labkit.data.stand_ins import FILE, as_stand_in
from labkit.errors import ManifestError, did_you_mean, quote, shorten, shown

Model = TypeVar("Model", bound=Strict)

MOST_PROBLEMS = 20  # that one error message tells


def manifests_dir() -> Path:
    """The folder of the shipped manifests."""
    return shipped_dir("data_manifests")


def list_manifests() -> list[str]:
    """Names of the datasets that `load_manifest` knows."""
    return sorted(path.stem for path in manifests_dir().glob("*.yaml"))


def load_manifest(name_or_path: str | os.PathLike[str]) -> Manifest:
    """Read a manifest.

    Args:
        name_or_path: one of `list_manifests()`, or the path of a YAML file, or the path of a folder of images, whose
            sub-folders are then the classes (images beside them have none) of a split "train"; or train/, val/ and
            test/ that each hold such a folder (see `labkit.data.folders.scan_folder`).

    Returns:
        The manifest; of a shipped one whose miniature the data folder holds, that of the miniature, where `stand_in` is
        true (see `labkit.data.stand_ins`).

    Raises:
        ManifestError: there is no such manifest, or it breaks a rule; the message names file, key and cure.
        DataError: the folder holds no images, or stand-ins.json in the data folder is damaged.
    """
    name = os.fspath(name_or_path) if isinstance(name_or_path, str | os.PathLike) else None
    if not isinstance(name, str) or not name:
        raise ManifestError(
            f"got {quote(name_or_path)} for a dataset. Expected a name, such as fashion-mini, or the path of a YAML "
            "manifest or of a folder of images."
        )
    path = user_path(name)
    if isinstance(name_or_path, str) and name in list_manifests():
        shipped = _read_manifest(manifests_dir() / f"{name}.yaml")
        changed = as_stand_in(shipped.model_dump(mode="python"))
        return validate(data_dir() / FILE, changed, Manifest) if changed.get("stand_in") else shipped
    if os.path.isdir(path):  # noqa: PTH112 (says no where pathlib raises)
        return _folder_manifest(path.resolve())
    if os.path.isfile(path):  # noqa: PTH113
        return _read_manifest(path)
    if os.sep in name:
        raise ManifestError(
            f"there is no dataset {quote(name)}: no such file or folder. Expected a manifest, or a folder of images."
        )
    raise ManifestError(
        f"there is no dataset {quote(name)}.{did_you_mean(name, list_manifests())} "
        f"Expected one of {', '.join(list_manifests())}, or the path of a YAML manifest or of a folder of images."
    )


def _read_manifest(path: Path) -> Manifest:
    data = read_yaml(path, Manifest)
    source, folder = data.get("source"), path.resolve().parent
    if isinstance(source, dict) and source.get("kind") == "folder" and isinstance(source.get("path"), str):
        data["source"] = source | {"path": str(folder / user_path(source["path"]))}
    if isinstance(data.get("prompts"), str):
        data["prompts"] = str(folder / user_path(data["prompts"]))
    return validate(path, data, Manifest)


def read_yaml(path: Path, model: type[BaseModel]) -> dict[str, Any]:
    """The mapping in a YAML file that is to become a `model`, not yet validated.

    Raises:
        ManifestError: the file cannot be read, is larger than 1 MB, is not YAML, has an alias or an anchor or more than
            32 levels, or holds no mapping.
    """
    try:
        with open_regular(path) as file:
            content = file.read(_yaml.MAX_BYTES + 1)
    except OSError as error:
        raise ManifestError(f"{shown(path)} cannot be read: {error.strerror}.") from error
    if len(content) > _yaml.MAX_BYTES:
        raise ManifestError(f"{shown(path)} is larger than {_yaml.MAX_BYTES:,} bytes. Give the right file.")
    try:
        data = _yaml.parse(content)
    except ValueError as error:
        raise ManifestError(f"{shown(path)} is not valid YAML: {error}. Correct that place.") from error
    if not isinstance(data, dict):
        raise ManifestError(
            f"{shown(path)} holds {type(data).__name__}, expected a mapping with the keys {_keys(model)}."
        )
    return data


def validate(path: Path, data: dict[str, Any], model: type[Model]) -> Model:
    """`data`, read from `path`, as a `model`.

    Raises:
        ManifestError: names the file and for every problem the key and the cure.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = [_explain(dict(item), model) for item in error.errors(include_url=False)[:MOST_PROBLEMS]]
        rest = [f"and {error.error_count() - len(first)} more."] * (error.error_count() > len(first))
        raise ManifestError(f"{shown(path)} is not a valid {model.what}:\n  " + "\n  ".join(first + rest)) from error


def _explain(error: dict[str, Any], model: type[BaseModel]) -> str:
    """One pydantic error as key, problem and cure."""
    loc = list(error["loc"])
    if not loc:  # from the validator of the whole model, whose message names key and cure itself
        return f"{error['ctx']['error']}."
    field = loc[0]
    if field == "source" and len(loc) > 2:
        model, field = _innermost(loc)
    elif field in ("splits", "published") and len(loc) > 2:
        model, field = Split if field == "splits" else Published, loc[2]
    key = ".".join(shorten(str(part)) for part in loc)
    if error["type"] == "extra_forbidden":
        return f"`{key}`: unknown key.{did_you_mean(field, model.model_fields)} Allowed here: {_keys(model)}."
    known = model.model_fields.get(str(field))
    cure = known.description if known else error["msg"]
    if field == "[key]" and error["type"] == "string_pattern_mismatch":
        cure = "a name of letters, digits, '.', '_' and '-'"
    if error["type"] == "value_error" and isinstance(error["input"], dict):  # from a validator of that mapping
        return f"`{key}`: {error['ctx']['error']}."
    if error["type"] == "missing":
        return f"`{key}` is missing: add {cure}."
    return f"`{key}`: got {quote(error['input'])}, expected {cure}."


def _innermost(loc: list[Any]) -> tuple[type[BaseModel], Any]:
    """The model and field that a problem within `source` is about; kinds, which pydantic puts there, leave `loc`."""
    model, at = KINDS[loc.pop(1)], 1
    while len(loc) > at + 1:
        kinds = {"layout": LAYOUTS, "draw": DRAWS}.get(loc[at], {})
        if loc[at + 1] in kinds:
            model = kinds[loc.pop(at + 1)]
            at += len(loc) > at + 1  # else the problem is of the whole model
        elif loc[at] == "files" and len(loc) > at + 2:
            model, at = ArchiveFile, at + 2  # after the number of the item
        else:
            break
    return model, loc[at] if len(loc) > at else loc[-1]


def _keys(model: type[BaseModel]) -> str:
    return ", ".join(model.model_fields)


def _folder_manifest(root: Path) -> Manifest:
    found = scan_folder(root)
    return Manifest(
        id=re.sub(r"[^a-z0-9]+", "-", root.name.lower()).strip("-")[:100] or "folder",
        title=shown(root.name) or str(root),
        task="own images",
        classes=sorted({name for paths in found.values() for _, name in paths if name is not None}),
        splits={split: Split(size=len(paths), how="the images of the folder") for split, paths in found.items()},
        source=Folder(kind="folder", path=str(root)),
        license="unknown",
        citation="unknown",
        homepage="unknown",
    )
