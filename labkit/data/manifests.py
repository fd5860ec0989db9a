"""Data manifests: one YAML a dataset says what it is, where it comes from and how large every split must be."""

from __future__ import annotations

import difflib
import os
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, InstanceOf, ValidationError, model_validator

from labkit._files import open_regular, shipped_dir, user_path
from labkit.data import _yaml
from labkit.data.folders import data_dir, scan_folder
from labkit.errors import DataError, ManifestError, quote, shorten, shown

if TYPE_CHECKING:
    import numpy as np

    from labkit.data.datasets import ImageDataset


class Strict(BaseModel):
    """What labkit reads from YAML: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    what: ClassVar[str] = "mapping"  # it is, in error messages


PathText = InstanceOf[str]  # pydantic's own check of text refuses names of files that are not UTF-8
Model = TypeVar("Model", bound=Strict)

MOST_PROBLEMS = 20  # that one error message tells


# The description of a field completes "expected ...": it is the cure that an error message offers.


class Split(Strict):
    """One split: how many images it must have, and how it was made."""

    size: int = Field(ge=1, description="the number of images, a whole number from 1")
    how: str = Field(min_length=1, description="one line that says how the split is made")


class Builtin(Strict):
    """Data that comes with labkit or its dependencies, or that labkit knows how to read."""

    kind: Literal["builtin"]
    builder: Literal["fashion-mini", "emoji-unseen", "digits", "fashion-mnist"] = Field(
        description='one of "fashion-mini", "emoji-unseen", "digits", "fashion-mnist"'
    )


class Torchvision(Strict):
    """A class of torchvision.datasets; every split is one call of it, or several that are joined."""

    kind: Literal["torchvision"]
    dataset: str = Field(description="the name of a class in torchvision.datasets, such as CIFAR10")
    args: dict[str, Annotated[list[dict[str, Any]], Field(min_length=1)]] = Field(
        description="for every split a list of keyword arguments, one item a call and at least one, such as "
        "{train: [{train: true}]}"
    )


class HuggingFace(Strict):
    """A dataset on the Hugging Face hub, read with the `datasets` library."""

    kind: Literal["huggingface"]
    repo: str = Field(pattern=r"^\w[\w.-]*/\w[\w.-]*$", description="owner/name of a dataset on the Hugging Face hub")
    config: str | None = Field(default=None, description="the name of a configuration, or nothing")
    revision: str | None = Field(default=None, description="a commit or tag; without one the data may change under you")
    image: str = Field(description="the name of the column that holds the images")
    label: str | None = Field(
        default=None, description="the name of the column of class numbers, or nothing without labels"
    )
    splits: dict[str, str] = Field(description="for every split its name on the hub, such as {train: train}")


class Folder(Strict):
    """A folder of images: sub-folders are classes, a flat folder has no labels; train/, val/, test/ may come first."""

    kind: Literal["folder"]
    path: PathText = Field(description="a folder of images, relative to this file or absolute")


class Manual(Strict):
    """A folder that the user has to fill by hand, because nobody may hand out the data."""

    kind: Literal["manual"]
    path: str = Field(
        description="the folder, relative to the data folder ($LABKIT_DATA), that is read like a `folder`"
    )
    instructions: str = Field(min_length=1, description="what to fetch, from where, and how to lay it out")


KINDS: dict[str, type[BaseModel]] = {
    "builtin": Builtin,
    "torchvision": Torchvision,
    "huggingface": HuggingFace,
    "folder": Folder,
    "manual": Manual,
}


class Published(Strict):
    """A published result, to compare with."""

    method: str = Field(description="the method and its model, such as 'TURTLE, CLIP ViT-L/14'")
    metric: Literal["accuracy", "nmi", "ari", "mean_per_class"] = Field(
        description="one of accuracy, nmi, ari, mean_per_class"
    )
    value: float = Field(ge=0, le=1, description="a fraction from 0 to 1: 57.3 % is written 0.573")
    source: str = Field(description="the paper and table, or the page, that the number is from")


class Manifest(Strict):
    """All that labkit knows about one dataset (see `load_manifest`)."""

    what: ClassVar[str] = "manifest"

    id: str = Field(
        pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$", description="a short name: a-z, 0-9, dot, dash and underscore"
    )
    title: str = Field(min_length=1, description="the dataset's full name")
    task: str = Field(min_length=1, description="one line that says what is to be told apart")
    classes: list[Annotated[str, Field(min_length=1)]] = Field(
        description="a list of class names in the order of the class numbers, each text ('7' and 'no' need quotes); "
        "[] where there are no labels"
    )
    splits: dict[Annotated[str, Field(pattern=r"^\w[\w. -]{0,99}$")], Split] = Field(
        min_length=1,
        description="at least one split, such as train: {size: 100, how: …}, named with letters, digits, '.', '_', '-'",
    )
    source: Annotated[Builtin | Torchvision | HuggingFace | Folder | Manual, Field(discriminator="kind")] = Field(
        description="a mapping with kind: builtin, torchvision, huggingface, folder or manual"
    )
    sha256: dict[str, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]] = Field(
        default={}, description="for each file name a digest, 64 digits 0-9a-f in quotes"
    )
    licence: str = Field(min_length=1, description="the licence of the images, or 'unknown'")
    citation: str = Field(min_length=1, description="who to cite, or 'unknown'")
    homepage: str = Field(min_length=1, description="an address, or 'unknown'")
    prompts: PathText | None = Field(
        default=None, description="the path of a YAML file of prompts, relative to this file, or null"
    )
    published: list[Published] = Field(default=[], description="a list of {method, metric, value, source}")

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Manifest:
        twice = sorted(name for name, count in Counter(self.classes).items() if count > 1)
        if twice:
            raise ValueError(f"`classes` names {_listed(twice)} more than once; class names must differ")
        if not self.classes and self.source.kind not in ("folder", "manual", "huggingface"):
            raise ValueError("`classes` is empty; list the class names in the order of the class numbers")
        per_split = {"torchvision": "args", "huggingface": "splits"}.get(self.source.kind)
        if per_split and set(getattr(self.source, per_split)) != set(self.splits):
            given = _listed(getattr(self.source, per_split)) or "none"
            raise ValueError(
                f"`source.{per_split}` is for {given}, but `splits` has {_listed(self.splits)}: make them agree"
            )
        if self.sha256 and (self.source.kind == "huggingface" or getattr(self.source, "builder", "") == "digits"):
            raise ValueError("`sha256` has files, but this source has no files that could be checked; remove it")
        return self

    @property
    def n_classes(self) -> int:
        """How many classes there are; 0 where there are no labels."""
        return len(self.classes)

    @property
    def root(self) -> Path:
        """The folder of a source of kind folder or manual; for the others the data folder."""
        return data_dir() / getattr(self.source, "path", "")

    def scan(self) -> dict[str, list[tuple[Path, str | None]]]:
        """Image files of a source of kind folder or manual: see `labkit.data.folders.scan_folder`."""
        if isinstance(self.source, Manual) and not os.path.isdir(self.root):  # noqa: PTH112
            raise DataError(
                f"the images of {self.id} are not in {shown(self.root)}. {self.source.instructions.strip()}"
            )
        return scan_folder(self.root)

    def images(self, split: str = "train") -> ImageDataset:
        """The images of a split: see `labkit.data.datasets.load_dataset`."""
        from labkit.data.datasets import load_dataset

        return load_dataset(self, split)

    def labels(self, split: str = "train") -> np.ndarray:
        """The class numbers of a split, (n,) int64, -1 where unknown: for evaluation, never for `fit`."""
        return self.images(split).labels


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
            sub-folders are then the classes (a flat folder has no labels) of a split "train"; or train/, val/ and
            test/ that each hold such a folder.

    Raises:
        ManifestError: there is no such manifest, or it breaks a rule; the message names file, key and cure.
        DataError: the folder holds no images.
    """
    name = os.fspath(name_or_path) if isinstance(name_or_path, str | os.PathLike) else None
    if not isinstance(name, str) or not name:
        raise ManifestError(
            f"got {quote(name_or_path)} for a dataset. Expected a name, such as fashion-mini, or the path of a YAML "
            "manifest or of a folder of images."
        )
    path = user_path(name)
    if isinstance(name_or_path, str) and name in list_manifests():
        return _read_manifest(manifests_dir() / f"{name}.yaml")
    if os.path.isdir(path):  # noqa: PTH112 (says no where pathlib raises)
        return _folder_manifest(path.resolve())
    if os.path.isfile(path):  # noqa: PTH113
        return _read_manifest(path)
    raise ManifestError(
        f"there is no dataset {quote(name)}.{closest(name, list_manifests())} "
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
        model, field = KINDS[loc.pop(1)], loc[1]  # pydantic puts the kind of the source into the path of the key
    elif field in ("splits", "published") and len(loc) > 2:
        model, field = Split if field == "splits" else Published, loc[2]
    key = ".".join(shorten(str(part)) for part in loc)
    if error["type"] == "extra_forbidden":
        return f"`{key}`: unknown key.{closest(field, model.model_fields)} Allowed here: {_keys(model)}."
    known = model.model_fields.get(str(field))
    cure = known.description if known else error["msg"]
    if field == "[key]" and error["type"] == "string_pattern_mismatch":
        cure = "a name of letters, digits, '.', '_' and '-'"
    if error["type"] == "missing":
        return f"`{key}` is missing: add {cure}."
    return f"`{key}`: got {quote(error['input'])}, expected {cure}."


def _keys(model: type[BaseModel]) -> str:
    return ", ".join(model.model_fields)


def _listed(names: Any) -> str:
    return shorten(", ".join(names), 200)


def closest(name: str, names: Any) -> str:
    """ " Did you mean …?" with the most similar of the names, or nothing."""
    match = difflib.get_close_matches(name, list(names), n=1)
    return f" Did you mean {match[0]!r}?" if match else ""


def _folder_manifest(root: Path) -> Manifest:
    found = scan_folder(root)
    return Manifest(
        id=re.sub(r"[^a-z0-9]+", "-", root.name.lower()).strip("-")[:100] or "folder",
        title=shown(root.name) or str(root),
        task="own images",
        classes=sorted({name for paths in found.values() for _, name in paths if name is not None}),
        splits={split: Split(size=len(paths), how="the images of the folder") for split, paths in found.items()},
        source=Folder(kind="folder", path=str(root)),
        licence="unknown",
        citation="unknown",
        homepage="unknown",
    )
