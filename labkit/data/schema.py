"""What a manifest may say: what a dataset is, where it comes from, how large every split must be; one YAML each."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from labkit.data.folders import data_dir, scan_folder
from labkit.data.layout_kinds import Strict as Strict
from labkit.data.sources import KINDS as KINDS
from labkit.data.sources import Archive as Archive
from labkit.data.sources import ArchiveFile as ArchiveFile
from labkit.data.sources import Builtin as Builtin
from labkit.data.sources import Folder as Folder
from labkit.data.sources import HuggingFace as HuggingFace
from labkit.data.sources import Manual as Manual
from labkit.data.sources import PathText, Source
from labkit.data.sources import Torchvision as Torchvision
from labkit.data.sources import WebDataset as WebDataset
from labkit.errors import DataError, shorten, shown


class Split(Strict):
    """One split: how many images it must have, and how it was made."""

    size: int = Field(ge=1, description="the number of images, a whole number from 1")
    how: str = Field(min_length=1, description="one line that says how the split is made")
    exact: bool = Field(
        default=True,
        description="true, or false where the source itself loses images (dead links): another size is then a warning",
    )


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
    source: Source = Field(
        description="a mapping with kind: builtin, torchvision, huggingface, webdataset, archive, folder or manual"
    )
    sha256: dict[str, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]] = Field(
        default={}, description="for each file name a digest, 64 digits 0-9a-f in quotes"
    )
    digest: dict[str, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]] = Field(
        default={},
        description="for a split the SHA-256 of its list of files (see `labkit.data.draws.list_digest`), in quotes",
    )
    download_gb: float | None = Field(default=None, ge=0, description="the size of the download in gigabytes, or null")
    license: str = Field(min_length=1, description="the license of the images, or 'unknown'")
    citation: str = Field(min_length=1, description="who to cite, or 'unknown'")
    homepage: str = Field(min_length=1, description="an address, or 'unknown'")
    prompts: PathText | None = Field(
        default=None, description="the path of a YAML file of prompts, relative to this file, or null"
    )
    published: list[Published] = Field(default=[], description="a list of {method, metric, value, source}")
    note: str | None = Field(
        default=None,
        min_length=1,
        description="what else has to be known (a dead source and what works instead, how the split differs), or null",
    )
    stand_in: bool = Field(default=False, description="true for a miniature of the dataset (see `load_manifest`)")

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Manifest:
        twice = sorted(name for name, count in Counter(self.classes).items() if count > 1)
        if twice:
            raise ValueError(f"`classes` names {_listed(twice)} more than once; class names must differ")
        unlabeled = self.source.kind in ("folder", "manual", "huggingface") and not getattr(self.source, "layout", None)
        if not self.classes and not unlabeled:
            raise ValueError("`classes` is empty; list the class names in the order of the class numbers")
        per_split = {"torchvision": "args", "huggingface": "splits", "webdataset": "splits"}.get(self.source.kind)
        if per_split and set(getattr(self.source, per_split)) != set(self.splits):
            given = _listed(getattr(self.source, per_split)) or "none"
            raise ValueError(
                f"`source.{per_split}` is for {given}, but `splits` has {_listed(self.splits)}: make them agree"
            )
        no_files = self.source.kind in ("huggingface", "webdataset") or getattr(self.source, "builder", "") == "digits"
        if self.sha256 and no_files:
            raise ValueError("`sha256` has files, but this source has no files that could be checked; remove it")
        if not set(self.digest) <= set(self.splits):
            raise ValueError(f"`digest` is for {_listed(self.digest)}, but `splits` has {_listed(self.splits)}")
        self._agrees_with_its_source()
        return self

    def _agrees_with_its_source(self) -> None:
        layout, draw = (getattr(self.source, key, None) for key in ("layout", "draw"))
        if (layout or draw) and not set(self.splits) <= {"train", "test"}:
            key = "layout" if layout else "draw"
            raise ValueError(f"`source.{key}` knows the splits train and test, but `splits` has {_listed(self.splits)}")
        names = getattr(getattr(layout, "layout", layout), "names", None)
        if names is not None and len(names) != len(self.classes):
            raise ValueError(f"`source.layout.names` has {len(names)} names, and there are {len(self.classes)} classes")
        if draw and getattr(layout, "train", None) != getattr(layout, "test", None):
            raise ValueError("`source.layout.train` is not `test`, but `source.draw` draws both from the same")
        if draw and isinstance(self.source, Torchvision):
            calls = list(self.source.args.values())
            if any(call != calls[0] for call in calls):
                raise ValueError("`source.args` differs between splits, but `source.draw` draws them from the same")

    @property
    def n_classes(self) -> int:
        """How many classes there are; 0 where there are no labels."""
        return len(self.classes)

    @property
    def root(self) -> Path:
        """The folder of a source of kind folder, manual or archive; for the others the data folder."""
        return data_dir() / getattr(self.source, "path", "")

    def expect_root(self) -> Path:
        """The same folder, which must be there.

        Raises:
            DataError: it is not; the message holds the instructions of a source of kind manual.
        """
        if isinstance(self.source, Manual) and not os.path.isdir(self.root):  # noqa: PTH112
            note = f" Note: {self.note.strip()}" if self.note else ""
            raise DataError(
                f"the images of {self.id} are not in {shown(self.root)}. {self.source.instructions.strip()}{note}"
            )
        return self.root

    def scan(self) -> dict[str, list[tuple[Path, str | None]]]:
        """Image files of a source of kind folder or manual: see `labkit.data.folders.scan_folder`."""
        return scan_folder(self.expect_root())


def _listed(names: Any) -> str:
    return shorten(", ".join(names), 200)
