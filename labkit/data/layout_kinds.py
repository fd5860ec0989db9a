"""What a manifest may say about how images lie on the disk (layouts), and which of them are in which split (draws)."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator


class Strict(BaseModel):
    """What labkit reads from YAML: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    what: ClassVar[str] = "mapping"  # it is, in error messages


def _stays_below(path: str) -> str:
    pure = PurePosixPath(path.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or ":" in path:
        raise ValueError("it leads out of the folder")
    return path


def _as_list(given: Any) -> Any:
    return [given] if isinstance(given, str) else given


Below = Annotated[str, AfterValidator(_stays_below)]  # a path below some folder
Several = Annotated[list[Below], BeforeValidator(_as_list), Field(min_length=1)]  # one such path, or a list of them
Names = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]

# The description of a field completes "expected ...": it is the cure that an error message offers.

NAMES = (
    "for each class, in the order of the class numbers, what stands for it in the data (the name of its folder, or its "
    "label), each text ('0' needs quotes); or nothing where these are the classes themselves, with _ or - for spaces"
)


# -------------------------------------------------------------------------------------------------------------- layouts


class Folders(Strict):
    """A folder for each class, as torchvision's ImageFolder reads it; where `train` is `test`, a draw tells them apart.

    Classes without a folder have no images. Images are those that ImageFolder takes (.jpg, .jpeg, .png, .ppm, .bmp,
    .pgm, .tif, .tiff, .webp), in its order: classes sorted by the names of their folders, then files by theirs.
    """

    kind: Literal["folders"]
    train: Several = Field(description='the folder of the class folders, "" for the whole, or a list of such folders')
    test: Several = Field(description='the folder of the class folders, "" for the whole, or a list of such folders')
    names: Names | None = Field(default=None, description=NAMES)


class Lists(Strict):
    """Text files that name an image a line, below `images`; in the order of the lines.

    The label is the folder that the image lies in below `images` ("a/abbey"), or what follows the name in the line.
    """

    kind: Literal["lists"]
    images: Below = Field(default="", description="the folder that the names in the lists start from")
    train: Several = Field(description="a text file with a name a line, or a list of them")
    test: Several = Field(description="a text file with a name a line, or a list of them")
    label: Literal["folder", "rest"] = Field(
        default="folder", description="folder (that the image lies in) or rest (of the line, after a space)"
    )
    suffix: str = Field(default="", description="what is added to each name, such as .jpg, or nothing")
    names: Names | None = Field(default=None, description=NAMES)


class Table(Strict):
    """Tables with a row an image: .csv with a line of column names, or .jsonl with an object a line.

    An image is a file that the column `image` names, or its gray levels in the column `pixels`, row by row, with
    spaces between them, of a square. Spaces around names of columns do not count.
    """

    kind: Literal["table"]
    images: Below = Field(default="", description="the folder that the names in the table start from")
    train: Several = Field(description="a .csv or .jsonl file, or a list of them")
    test: Several = Field(description="a .csv or .jsonl file, or a list of them")
    image: str | None = Field(default=None, description="the column of the names of image files, or nothing")
    pixels: str | None = Field(default=None, description="the column of gray levels, or nothing")
    label: str = Field(description="the column of the labels")
    where: dict[str, dict[str, str]] = Field(
        default={}, description="for a split the rows that it has, such as {train: {Usage: Training}}"
    )
    names: Names | None = Field(default=None, description=NAMES)

    @model_validator(mode="after")
    def _has_one_column_of_images(self) -> Table:
        if (self.image is None) == (self.pixels is None):
            raise ValueError("one of `image` and `pixels` must be given")
        return self


class Hdf5(Strict):
    """HDF5 files with an array of images (n, h, w, 3) uint8 each, and others with their class numbers."""

    kind: Literal["hdf5"]
    train: Several = Field(description="a file of images, or a list of them")
    test: Several = Field(description="a file of images, or a list of them")
    train_labels: Several = Field(description="a file of class numbers for each file of images")
    test_labels: Several = Field(description="a file of class numbers for each file of images")
    image: str = Field(default="x", description="the name of the array of images")
    label: str = Field(default="y", description="the name of the array of class numbers")

    @model_validator(mode="after")
    def _has_labels_for_each(self) -> Hdf5:
        if len(self.train) != len(self.train_labels) or len(self.test) != len(self.test_labels):
            raise ValueError("there must be a file of class numbers for each file of images")
        return self


class Kitti(Strict):
    """KITTI's objects: an image and a text file of objects for each number; the label is how near a vehicle is.

    The nearest Car, Van or Truck, by its z coordinate (column 14) in meters: no_vehicle, below_8, below_20, above_20;
    as the task is defined by VTAB (Zhai et al. 2019) and prepared by TURTLE's authors.
    """

    kind: Literal["kitti"]
    images: Below = Field(default="training/image_2", description="the folder of the images")
    labels: Below = Field(default="training/label_2", description="the folder of the text files")
    names: Names = Field(default=["no_vehicle", "below_8", "below_20", "above_20"], description=NAMES)


class Clevr(Strict):
    """CLEVR's scenes: a JSON file that says which objects each image shows; the label is their number ("3")."""

    kind: Literal["clevr"]
    images: Below = Field(default="images/train", description="the folder of the images")
    scenes: Below = Field(default="scenes/CLEVR_train_scenes.json", description="the JSON file of the scenes")
    names: Names = Field(default=[str(count) for count in range(3, 11)], description=NAMES)


class Videos(Strict):
    """Videos in class folders or lists, where Folders and Lists say images; a sample is the middle frame.

    Of a video that says it has n frames the one with the number n // 2 + 1, counted from 0, as TURTLE's authors take
    it; the last one where there are fewer. Videos are .avi, .mp4, .mkv and .webm. Needs the extra `papers` (PyAV).
    """

    kind: Literal["videos"]
    layout: Annotated[Folders | Lists, Field(discriminator="kind")] = Field(
        description="a mapping with kind: folders or lists"
    )


Layout = Annotated[Folders | Lists | Table | Hdf5 | Kitti | Clevr | Videos, Field(discriminator="kind")]
LAYOUT = "a mapping with kind: folders, lists, table, hdf5, kitti, clevr or videos"


# ---------------------------------------------------------------------------------------------------------------- draws

Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
SEED = "the seed, a whole number from 0"


class PerClass(Strict):
    """n images of each class, by NumPy's legacy generator, seeded anew for each: EuroSAT and Caltech-101.

    `RandomState(seed).choice(rows of the class, n, replace=False)`; the first `train` are in train, the last `test` in
    test, or with "rest" all that were not drawn. In the order drawn, class after class; the rest in that of the data.
    """

    kind: Literal["per-class"]
    seed: Seed = Field(description=SEED)
    n: Count = Field(description="how many are drawn of each class, a whole number from 1")
    train: Count = Field(description="how many of these are in train, a whole number from 1")
    test: Count | Literal["rest"] = Field(description="how many of these are in test, or rest for all not drawn")

    @model_validator(mode="after")
    def _draws_enough(self) -> PerClass:
        if self.train + (0 if self.test == "rest" else self.test) > self.n:
            raise ValueError(f"`n` is {self.n}, and train and test want more of each class")
        return self


class ShufflePerClass(Strict):
    """Shares of each class after a shuffle, by one `random.Random(seed)` for all of them in their order: RESISC45.

    Of a class with n images the first int(train * n) are in train, the next int(test * n) in test.
    """

    kind: Literal["shuffle-per-class"]
    seed: Seed = Field(description=SEED)
    train: float = Field(gt=0, lt=1, description="a share between 0 and 1")
    test: float = Field(gt=0, lt=1, description="a share between 0 and 1")


class SamplePerClass(Strict):
    """So many of each class in test, all others in train, by one `random.Random(seed).sample` for all: Birdsnap."""

    kind: Literal["sample-per-class"]
    seed: Seed = Field(description=SEED)
    test: Count = Field(description="how many of each class are in test, a whole number from 1")


class Sample(Strict):
    """So many of all: `random.Random(seed).sample(rows, train + test)`, the first ones in train: CLEVR."""

    kind: Literal["sample"]
    seed: Seed = Field(description=SEED)
    train: Count = Field(description="how many are in train, a whole number from 1")
    test: Count = Field(description="how many are in test, a whole number from 1")


class Permutation(Strict):
    """So many of all: `RandomState(seed).permutation(n)`, the first ones in train, the next in test: KITTI."""

    kind: Literal["permutation"]
    seed: Seed = Field(description=SEED)
    train: Count = Field(description="how many are in train, a whole number from 1")
    test: Count = Field(description="how many are in test, a whole number from 1")


Draw = Annotated[PerClass | ShufflePerClass | SamplePerClass | Sample | Permutation | None, Field(discriminator="kind")]
DRAW = (
    "a mapping with kind: per-class, shuffle-per-class, sample-per-class, sample or permutation, or nothing where "
    "train and test lie apart"
)


LAYOUTS: dict[str, type[BaseModel]] = {
    "folders": Folders,
    "lists": Lists,
    "table": Table,
    "hdf5": Hdf5,
    "kitti": Kitti,
    "clevr": Clevr,
    "videos": Videos,
}
DRAWS: dict[str, type[BaseModel]] = {
    "per-class": PerClass,
    "shuffle-per-class": ShufflePerClass,
    "sample-per-class": SamplePerClass,
    "sample": Sample,
    "permutation": Permutation,
}
