"""What a manifest may say about where images come from: the sources, by kind."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, InstanceOf, model_validator

from labkit.data.layout_kinds import DRAW, LAYOUT, Below, Draw, Layout, Several, Strict

PathText = InstanceOf[str]  # pydantic's own check of text refuses names of files that are not UTF-8
Calls = Annotated[list[dict[str, Any]], Field(min_length=1)]
REPO = r"^\w[\w.-]*/\w[\w.-]*$"

# The description of a field completes "expected ...": it is the cure that an error message offers.


class Builtin(Strict):
    """Data that comes with labkit or its dependencies, or that labkit knows how to read."""

    kind: Literal["builtin"]
    builder: Literal["fashion-mini", "emoji-unseen", "digits", "fashion-mnist"] = Field(
        description='one of "fashion-mini", "emoji-unseen", "digits", "fashion-mnist"'
    )


class Torchvision(Strict):
    """A class of torchvision.datasets; every split is one call of it, or several that are joined.

    With a `draw` the calls of all splits are the same, and it tells the splits apart.
    """

    kind: Literal["torchvision"]
    dataset: str = Field(description="the name of a class in torchvision.datasets, such as CIFAR10")
    args: dict[str, Calls] = Field(
        description="for every split a list of keyword arguments, one item a call and at least one, such as "
        "{train: [{train: true}]}"
    )
    draw: Draw = Field(default=None, description=DRAW)


class HuggingFace(Strict):
    """A dataset on the Hugging Face hub, read with the `datasets` library."""

    kind: Literal["huggingface"]
    repo: str = Field(pattern=REPO, description="owner/name of a dataset on the Hugging Face hub")
    config: str | None = Field(default=None, description="the name of a configuration, or nothing")
    revision: str | None = Field(default=None, description="a commit or tag; without one the data may change under you")
    image: str = Field(description="the name of the column that holds the images")
    label: str | None = Field(
        default=None, description="the name of the column of class numbers, or nothing without labels"
    )
    splits: dict[str, str] = Field(description="for every split its name on the hub, such as {train: train}")


class WebDataset(Strict):
    """Tars on the Hugging Face hub, as CLIP_benchmark lays them out: SPLIT/nshards.txt, SPLIT/0.tar, classnames.txt.

    In a tar KEY.jpg, .png or .webp is an image and KEY.cls its class number. Fetched into the folder `hub` of the data
    folder, in the layout of the hub's own cache.
    """

    kind: Literal["webdataset"]
    repo: str = Field(pattern=REPO, description="owner/name of a dataset on the Hugging Face hub")
    revision: str | None = Field(
        default=None,
        pattern=r"^\w[\w.-]{0,99}$",
        description="a commit, tag or branch; without one the data may change under you",
    )
    splits: dict[str, Several] = Field(
        description="for every split its folder in the repository, or a list of them, such as {train: train}"
    )


class Folder(Strict):
    """A folder of images: sub-folders are classes, a flat folder has no labels; train/, val/, test/ may come first."""

    kind: Literal["folder"]
    path: PathText = Field(description="a folder of images, relative to this file or absolute")


class Manual(Strict):
    """A folder that the user has to fill by hand, because nobody may hand out the data or its address is dead.

    Without a `layout` it is read like a `folder`; with one, every path in that is below this folder.
    """

    kind: Literal["manual"]
    path: str = Field(description="the folder, relative to the data folder ($LABKIT_DATA)")
    instructions: str = Field(min_length=1, description="what to fetch, from where, and how to lay it out")
    layout: Layout | None = Field(default=None, description=f"{LAYOUT}, or nothing")
    draw: Draw = Field(default=None, description=DRAW)

    @model_validator(mode="after")
    def _draws_from_a_layout(self) -> Manual:
        if self.draw is not None and self.layout is None:
            raise ValueError("`source.draw` needs a `source.layout` to draw from; add one")
        return self


class ArchiveFile(Strict):
    """One file to download, and what to do with it.

    Unpacked are .zip, .tar (also .gz, .bz2, .xz), .tgz, a single file as .gz, and .rar by a program that is installed.
    """

    url: str = Field(pattern=r"^https?://\S+$", description="the address of a file, https://…")
    sha256: str | None = Field(
        default=None, pattern="^[0-9a-f]{64}$", description="its digest, 64 digits 0-9a-f in quotes, or null"
    )
    md5: str | None = Field(
        default=None, pattern="^[0-9a-f]{32}$", description="its digest, 32 digits 0-9a-f in quotes, or null"
    )
    name: Annotated[str, Field(pattern=r"^\w[\w. +()-]{0,199}$")] | None = Field(
        default=None, description="the name of the file here, or nothing for the last part of the address"
    )
    unpack: bool = Field(default=True, description="true (into the folder of the dataset) or false (a plain file)")
    into: Below = Field(default="", description="the folder, below that of the dataset, that it goes to")
    inner: list[Below] = Field(
        default=[], description="archives within it that are unpacked as well, where they lie, or nothing"
    )


class Archive(Strict):
    """Files that are downloaded into a folder of the data folder, checked and unpacked there; then read by `layout`."""

    kind: Literal["archive"]
    path: Annotated[Below, Field(min_length=1)] = Field(
        description="the folder of the dataset, relative to the data folder ($LABKIT_DATA)"
    )
    files: list[ArchiveFile] = Field(min_length=1, description="a list of {url, sha256 or md5, …}, at least one")
    layout: Layout = Field(description=LAYOUT)
    draw: Draw = Field(default=None, description=DRAW)


Source = Annotated[
    Builtin | Torchvision | HuggingFace | WebDataset | Folder | Manual | Archive, Field(discriminator="kind")
]
KINDS: dict[str, type[BaseModel]] = {
    "builtin": Builtin,
    "torchvision": Torchvision,
    "huggingface": HuggingFace,
    "webdataset": WebDataset,
    "folder": Folder,
    "manual": Manual,
    "archive": Archive,
}
