"""Stand-ins of the sets whose images lie side by side in few files: CIFAR, MNIST, STL-10."""

from __future__ import annotations

import pickle
import struct

import numpy as np

from labkit.papers.standins.images import gray_pixels
from labkit.papers.standins.miniature import Miniature


def write_cifar10(mini: Miniature) -> None:
    """Five pickled batches to train on and one to test, as the python version of CIFAR-10 has them."""
    folder = "cifar-10-batches-py"
    train, test = list(mini.images("train")), list(mini.images("test"))
    for k in range(5):
        mini.write(f"{folder}/data_batch_{k + 1}", _batch(mini, train[k::5], "train", f"training batch {k + 1} of 5"))
    mini.write(f"{folder}/test_batch", _batch(mini, test, "test", "testing batch 1 of 1"))
    meta = {"num_cases_per_batch": len(train) // 5, "label_names": mini.classes, "num_vis": 3072}
    mini.write(f"{folder}/batches.meta", pickle.dumps(meta, protocol=2))


def write_cifar100(mini: Miniature) -> None:
    """Two pickled batches and the names of the fine classes, as the python version of CIFAR-100 has them."""
    folder, key = "cifar-100-python", "fine_labels"
    for split in ("train", "test"):
        content = _batch(mini, list(mini.images(split)), split, f"{split}ing batch 1 of 1", key)
        mini.write(f"{folder}/{split}", content)
    meta = {"fine_label_names": [name.replace(" ", "_") for name in mini.classes]}
    mini.write(f"{folder}/meta", pickle.dumps(meta, protocol=2))


def _batch(mini: Miniature, images: list[tuple[int, int]], split: str, title: str, key: str = "labels") -> bytes:
    planes = mini.stack(images, split).transpose(0, 3, 1, 2).reshape(len(images), 3 * 32 * 32)
    names = [f"{mini.classes[number].replace(' ', '_')}_s_{index:06d}.png" for number, index in images]
    batch = {"batch_label": title, key: [number for number, _ in images], "data": planes, "filenames": names}
    return pickle.dumps(batch, protocol=2)


def write_mnist(mini: Miniature) -> None:
    """Four idx files: 28 x 28 levels of gray, and labels."""
    for split, name in (("train", "train"), ("test", "t10k")):
        images = list(mini.images(split))
        array = np.stack([gray_pixels(mini.name, number, split, index, 28) for number, index in images])
        mini.write(f"MNIST/raw/{name}-images-idx3-ubyte", struct.pack(">4I", 0x803, *array.shape) + array.tobytes())
        labels = bytes(number for number, _ in images)
        mini.write(f"MNIST/raw/{name}-labels-idx1-ubyte", struct.pack(">2I", 0x801, len(labels)) + labels)


def write_stl10(mini: Miniature) -> None:
    """Raw bytes, 96 x 96 in planes of columns, and labels from 1."""
    folder = "stl10_binary"
    for split in ("train", "test"):
        images = list(mini.images(split))
        columns = mini.stack(images, split, 96).transpose(0, 3, 2, 1)  # (n, channel, column, row)
        mini.write(f"{folder}/{split}_X.bin", np.ascontiguousarray(columns).tobytes())
        mini.write(f"{folder}/{split}_y.bin", bytes(number + 1 for number, _ in images))
    unlabeled = mini.stack([(number, 0) for number in range(len(mini.classes))], "unlabeled", 96)
    mini.write(f"{folder}/unlabeled_X.bin", np.ascontiguousarray(unlabeled.transpose(0, 3, 2, 1)).tobytes())
    mini.write(f"{folder}/class_names.txt", "".join(f"{name}\n" for name in mini.classes))
    folds = " ".join(map(str, range(len(mini.classes))))
    mini.write(f"{folder}/fold_indices.txt", f"{folds}\n" * 10)
