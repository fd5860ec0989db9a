"""What a manifest may say: what a dataset is, where it comes from, how large every split must be; one YAML each."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, InstanceOf, model_validator

from labkit.data.folders import data_dir, scan_folder
from labkit.errors import DataError, shorten, shown


class Strict(BaseModel):
    """What labkit reads from YAML: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    what: ClassVar[str] = "mapping"  # it is, in error messages


PathText = InstanceOf[str]  # pydantic's own check of text refuses names of files that are not UTF-8

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
    license: str = Field(min_length=1, description="the license of the images, or 'unknown'")
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


def _listed(names: Any) -> str:
    return shorten(", ".join(names), 200)
