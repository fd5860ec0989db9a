"""Stand-ins of archives and of folders that people fill: what layout and draw of a manifest say, with small images."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from labkit.data.draws import takes_all
from labkit.data.schema import Archive, Manual
from labkit.papers.standins.images import gray_pixels
from labkit.papers.standins.miniature import Miniature, needed
from labkit.papers.standins.videos import video_file

# How the real set calls an image or a video: {leaf} is the last part of its folder, {serial} counts all files from 0,
# {place} those of a class from 1.
NAMES = {
    "birdsnap": "{serial}.jpg",
    "caltech101": "image_{place:04d}.jpg",
    "clevr-counts": "CLEVR_train_{serial:06d}.png",
    "eurosat": "{leaf}_{place}.jpg",
    "hateful-memes": "img/{serial:05d}.png",
    "kinetics700": "stand_in{serial:04d}_{place:06d}_{serial:06d}.mp4",
    "kitti-distance": "{serial:06d}.png",
    "resisc45": "{leaf}_{place:03d}.jpg",
    "ucf101": "v_{leaf}_g{place:02d}_c01.avi",
}
SPARE = 1  # image of each class that a draw leaves out


def write_layout(mini: Miniature) -> None:
    """What a source of kind archive or manual holds once it has been fetched and unpacked."""
    source = mini.manifest.source
    assert isinstance(source, Archive | Manual)
    assert source.layout is not None
    WRITERS[source.layout.kind](mini, source.layout, source.path)


def name_of(mini: Miniature, folder: str, number: int) -> str:
    """The name of the next file, which is an image of this class."""
    mini.placed[number] = mini.placed.get(number, 0) + 1
    leaf = folder.rsplit("/", 1)[-1]
    pattern = NAMES.get(mini.name, "{leaf}_{place:04d}.jpg")
    return pattern.format(leaf=leaf, place=mini.placed[number], serial=sum(mini.placed.values()) - 1)


def stands_for(mini: Miniature, names: list[str] | None) -> list[str]:
    """What stands for each class in the data."""
    return names or [name.replace(" ", "_") for name in mini.classes]


def small_draw(mini: Miniature) -> dict[str, Any]:
    """The numbers of a draw that give each class of the stand-in its images: its rule stays that of the real set."""
    draw: Any = getattr(mini.manifest.source, "draw", None)
    if draw is None:
        return {}
    if draw.kind == "per-class":
        rest = draw.test == "rest"
        train = {"n": mini.n_train if rest else mini.n_train + mini.n_test, "train": mini.n_train}
        return train if rest else {**train, "test": mini.n_test}
    if draw.kind == "shuffle-per-class":  # of n images int(share * n) are taken
        n = images_to_draw_from(mini)
        return {"train": (mini.n_train + 0.25) / n, "test": (mini.n_test + 0.25) / n}
    return {"test": mini.n_test} if draw.kind == "sample-per-class" else dict(mini.sizes())


def images_to_draw_from(mini: Miniature) -> int:
    """How many images of each class a set has that a draw splits: one more than is drawn, where it leaves some out."""
    draw = getattr(mini.manifest.source, "draw", None)
    return mini.n_train + mini.n_test + (0 if takes_all(draw) else SPARE)


def _split_images(mini: Miniature, layout: Any) -> Iterator[tuple[str, list[str], int, int]]:
    """Every image: its split, the folders or lists of that split, its class number and its index."""
    if layout.train == layout.test and getattr(mini.manifest.source, "draw", None) is not None:
        n = images_to_draw_from(mini)
        return (("all", layout.train, number, index) for number, index in mini.images("all", n=n))
    places = {"train": layout.train, "test": layout.test}
    return ((split, places[split], *image) for split in places for image in mini.images(split))


def _write_folders(
    mini: Miniature, layout: Any, path: str, save: Callable[[str, int, str, int], None] | None = None
) -> None:
    folders = stands_for(mini, layout.names)
    for split, bases, number, index in _split_images(mini, layout):
        name = name_of(mini, folders[number], number)
        base = bases[(index + number) % len(bases)]  # each has some of the classes, however few images there are
        target = "/".join(part for part in (path, base, folders[number], name) if part)
        (save or mini.save)(target, number, split, index)


def _write_lists(
    mini: Miniature, layout: Any, path: str, save: Callable[[str, int, str, int], None] | None = None
) -> None:
    folders = stands_for(mini, layout.names)
    lines: dict[str, list[str]] = {}
    for split, lists, number, index in _split_images(mini, layout):
        name = f"{folders[number]}/{name_of(mini, folders[number], number)}"
        (save or mini.save)(f"{path}/{layout.images}/{name}", number, split, index)
        # lists to train on end with the number of the class, as those of UCF101 do
        lines.setdefault(lists[index % len(lists)], []).append(f"{name} {number + 1}" if split == "train" else name)
    for list_name, names in lines.items():
        mini.write(f"{path}/{list_name}", "".join(f"{name}\n" for name in sorted(names)))


def _write_table(mini: Miniature, layout: Any, path: str) -> None:
    labels = stands_for(mini, layout.names)
    tables: dict[str, list[dict[str, Any]]] = {}
    for split, files in (("train", layout.train), ("test", layout.test)):
        for number, index in mini.images(split):
            row: dict[str, Any] = {layout.label: labels[number]}
            if layout.pixels is not None:
                levels = gray_pixels(mini.name, number, split, index, 48)
                row[layout.pixels] = " ".join(map(str, levels.ravel().tolist()))
            else:
                row[layout.image] = name_of(mini, "", number)
                target = "/".join(part for part in (path, layout.images, row[layout.image]) if part)
                mini.save(target, number, split, index)
            row |= layout.where.get(split, {})
            tables.setdefault(files[index % len(files)], []).append(row)
    for name, rows in tables.items():
        if layout.where:  # rows of neither split, such as those of FER2013's public test
            rows.append({**rows[0], **{key: "Other" for where in layout.where.values() for key in where}})
        mini.write(f"{path}/{name}", _csv(rows) if name.endswith(".csv") else _jsonl(rows))


def _csv(rows: list[dict[str, Any]]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _jsonl(rows: list[dict[str, Any]]) -> str:
    numbered = [{key: int(value) if value.isdigit() else value for key, value in row.items()} for row in rows]
    return "".join(f"{json.dumps({'id': i, **row})}\n" for i, row in enumerate(numbered))


def _write_hdf5(mini: Miniature, layout: Any, path: str) -> None:
    h5py = needed("h5py", mini.name)
    for split in ("train", "test"):
        files, label_files = getattr(layout, split), getattr(layout, f"{split}_labels")
        for k, (file, label_file) in enumerate(zip(files, label_files, strict=True)):
            images = list(mini.images(split, k, len(files)))
            labels = np.array([number for number, _ in images], np.uint8).reshape(-1, 1, 1, 1)
            for name, key, array in (
                (file, layout.image, mini.stack(images, split, 96)),
                (label_file, layout.label, labels),
            ):
                content = io.BytesIO()
                with h5py.File(content, "w") as target:
                    target.create_dataset(key, data=array)
                mini.write(f"{path}/{name}", content.getvalue())


def _write_kitti(mini: Miniature, layout: Any, path: str) -> None:
    """Objects at distances in the middle of the bins of VTAB's task, with others that do not count before them."""
    for number, index in mini.images("all", n=images_to_draw_from(mini)):
        name = name_of(mini, "", number)
        objects = [_object("Pedestrian", 2.5), _object("DontCare", -1000.0)]
        if number > 0:  # no_vehicle, below_8, below_20, above_20
            objects = [
                _object("Truck", 90.0),
                *objects,
                _object("Car" if index % 2 else "Van", (5.0, 14.0, 35.0)[number - 1]),
            ]
        mini.save(f"{path}/{layout.images}/{name}", number, "all", index)
        mini.write(f"{path}/{layout.labels}/{name.removesuffix('.png')}.txt", "".join(f"{o}\n" for o in objects))


def _object(kind: str, distance: float) -> str:
    """A line of KITTI: type, truncated, occluded, angle, box (4), height, width, length, x, y, z, rotation."""
    return f"{kind} 0.00 0 -1.57 4.00 4.00 27.00 27.00 1.50 1.60 3.90 1.00 1.50 {distance:.2f} -1.59"


def _write_clevr(mini: Miniature, layout: Any, path: str) -> None:
    labels = stands_for(mini, layout.names)
    scenes: list[dict[str, Any]] = []
    for number, index in mini.images("all", n=images_to_draw_from(mini)):
        name = name_of(mini, "", number)
        mini.save(f"{path}/{layout.images}/{name}", number, "all", index)
        objects = [{"shape": "cube", "size": "small", "pixel_coords": [k, k, 9.0]} for k in range(int(labels[number]))]
        scenes.append({"image_index": len(scenes), "image_filename": name, "split": "train", "objects": objects})
    mini.write(f"{path}/{layout.scenes}", json.dumps({"info": {"split": "train"}, "scenes": scenes}))


def _write_videos(mini: Miniature, layout: Any, path: str) -> None:
    def save(target: str, number: int, split: str, index: int) -> None:
        mini.write(target, video_file(mini.name, number, split, index, target.rsplit(".", 1)[-1]))

    {"folders": _write_folders, "lists": _write_lists}[layout.layout.kind](mini, layout.layout, path, save)


WRITERS: dict[str, Callable[[Miniature, Any, str], None]] = {
    "folders": _write_folders,
    "lists": _write_lists,
    "table": _write_table,
    "hdf5": _write_hdf5,
    "kitti": _write_kitti,
    "clevr": _write_clevr,
    "videos": _write_videos,
}
