"""Stand-ins of the sets that torchvision reads as image files and lists, each in the layout of its archive."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import numpy as np

from labkit.papers.standins.miniature import PARTS, Miniature

CATS = (  # among the breeds of Oxford-IIIT Pet; names of files begin with a capital letter for cats alone
    "Abyssinian", "Bengal", "Birman", "Bombay", "British_Shorthair", "Egyptian_Mau", "Maine_Coon", "Persian", "Ragdoll",
    "Russian_Blue", "Siamese", "Sphynx",
)  # fmt: skip


def write_food101(mini: Miniature) -> None:
    """Class folders of numbered photographs, and lists of both splits."""
    folders = [name.lower().replace(" ", "_") for name in mini.classes]
    for split in ("train", "test"):
        listed: dict[str, list[str]] = {folder: [] for folder in folders}
        for number, index in mini.images(split):
            image = f"{folders[number]}/{1000 * number + index + (500 if split == 'test' else 0)}"
            listed[folders[number]].append(image)
            mini.save(f"food-101/images/{image}.jpg", number, split, index)
        mini.write(f"food-101/meta/{split}.json", json.dumps(listed))
        mini.write(f"food-101/meta/{split}.txt", _lines(image for images in listed.values() for image in images))
    mini.write("food-101/meta/classes.txt", _lines(folders))
    mini.write("food-101/meta/labels.txt", _lines(folder.replace("_", " ").capitalize() for folder in folders))


def write_dtd(mini: Miniature) -> None:
    """Class folders, and lists of the three parts of the first of DTD's ten partitions."""
    for part, split, *some in PARTS:
        listed = []
        for number, index in mini.images(split, *some):
            image = f"{mini.classes[number]}/{mini.classes[number]}_{index + 100 * (split == 'test'):04d}.jpg"
            listed.append(image)
            mini.save(f"dtd/dtd/images/{image}", number, split, index)
        mini.write(f"dtd/dtd/labels/{part}1.txt", _lines(sorted(listed)))


def write_fgvc_aircraft(mini: Miniature) -> None:
    """One folder of photographs, and lists of names of variants."""
    data, serial = "fgvc-aircraft-2013b/data", 34309
    listed: dict[str, list[str]] = {}
    for part, split, *some in PARTS:
        listed[part] = []
        for number, index in mini.images(split, *some):
            serial += 1
            listed[part].append(f"{serial:07d} {mini.classes[number]}")
            mini.save(f"{data}/images/{serial:07d}.jpg", number, split, index)
    listed["trainval"] = listed["train"] + listed["val"]
    for part, lines in listed.items():
        mini.write(f"{data}/images_variant_{part}.txt", _lines(lines))
        mini.write(f"{data}/images_{part}.txt", _lines(line.split(" ", 1)[0] for line in lines))
    mini.write(f"{data}/variants.txt", _lines(mini.classes))


def write_flowers102(mini: Miniature) -> None:
    """One folder of numbered photographs, and MATLAB files of their labels (from 1) and of the parts."""
    labels: list[int] = []
    ids: dict[str, list[int]] = {}
    for part, split, *some in reversed(PARTS):  # in the real set the test images come first as well
        key = {"train": "trnid", "val": "valid", "test": "tstid"}[part]
        ids[key] = []
        for number, index in mini.images(split, *some):
            labels.append(number + 1)
            ids[key].append(len(labels))
            mini.save(f"flowers-102/jpg/image_{len(labels):05d}.jpg", number, split, index)
    mini.write("flowers-102/imagelabels.mat", _mat({"labels": np.array([labels], np.uint8)}))
    mini.write("flowers-102/setid.mat", _mat({key: np.array([rows], np.uint16) for key, rows in ids.items()}))


def write_gtsrb(mini: Miniature) -> None:
    """PPM images: class folders to train on, one folder and a table to test."""
    header = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"
    for number in range(len(mini.classes)):
        lines = [header]
        for index in range(mini.n_train):
            name = f"00000_{index:05d}.ppm"
            lines.append(f"{name};32;32;5;5;26;26;{number}")
            mini.save(f"gtsrb/GTSRB/Training/{number:05d}/{name}", number, "train", index)
        mini.write(f"gtsrb/GTSRB/Training/{number:05d}/GT-{number:05d}.csv", _lines(lines))
    lines = [header]
    for serial, (number, index) in enumerate(mini.images("test")):
        lines.append(f"{serial:05d}.ppm;32;32;5;5;26;26;{number}")
        mini.save(f"gtsrb/GTSRB/Final_Test/Images/{serial:05d}.ppm", number, "test", index)
    mini.write("gtsrb/GT-final_test.csv", _lines(lines))


def write_oxford_pets(mini: Miniature) -> None:
    """One folder of photographs that are called like their breed, and lists with class, species and breed."""
    every = []
    for part, split in (("trainval", "train"), ("test", "test")):
        listed = []
        for number, index in mini.images(split):
            breed = mini.classes[number].replace(" ", "_")
            cat = breed in CATS
            image = f"{breed if cat else breed.lower()}_{index + 1 + 100 * (part == 'test')}"
            listed.append(f"{image} {number + 1} {1 if cat else 2} {number + 1}")
            mini.save(f"oxford-iiit-pet/images/{image}.jpg", number, split, index)
        mini.write(f"oxford-iiit-pet/annotations/{part}.txt", _lines(sorted(listed, key=str.lower)))
        every += listed
    mini.write("oxford-iiit-pet/annotations/list.txt", _lines(["#Image CLASS-ID SPECIES BREED ID", *sorted(every)]))


def write_rendered_sst2(mini: Miniature) -> None:
    """PNG images in folders of the two classes, of three parts."""
    for part, split, *some in PARTS:
        folder = "valid" if part == "val" else part
        for number, index in mini.images(split, *some):
            mini.save(f"rendered-sst2/{folder}/{mini.classes[number]}/{index}.png", number, split, index)


def _mat(arrays: dict[str, np.ndarray]) -> bytes:
    """A MATLAB file."""
    from scipy.io import savemat

    file = io.BytesIO()
    savemat(file, arrays, format="5")
    content = bytearray(file.getvalue())
    content[:116] = b"MATLAB 5.0 MAT-file, a stand-in made by labkit".ljust(116)  # it would name system and time
    return bytes(content)


def _lines(lines: Iterator[str] | list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
