"""Stand-ins of webdataset tars, in the layout of the Hugging Face hub's own cache."""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile

from labkit.data.schema import WebDataset
from labkit.papers.standins.miniature import Miniature

PER_TAR = 1000  # images; a tar of the real sets holds ten times as many
ENDINGS = {"clip-benchmark/wds_imagenet1k": ".jpg"}  # the other sets were packed as lossless .webp


def write_webdataset(mini: Miniature) -> None:
    """`hub/datasets--OWNER--NAME` with refs, blobs and one snapshot of links to blobs, or of files without links."""
    source = mini.manifest.source
    assert isinstance(source, WebDataset)
    base = f"hub/datasets--{source.repo.replace('/', '--')}"
    revision = source.revision or "main"
    commit = revision if re.fullmatch("[0-9a-f]{40}", revision) else hashlib.sha1(source.repo.encode()).hexdigest()
    if commit != revision:
        mini.write(f"{base}/refs/{revision}", commit)
    ending = ENDINGS.get(source.repo, ".webp")
    _add(mini, base, commit, "classnames.txt", "".join(f"{name}\n" for name in mini.classes).encode())
    for split, folders in source.splits.items():
        for k, folder in enumerate(folders):
            images = list(mini.images(split, k, len(folders)))
            shards = [images[i : i + PER_TAR] for i in range(0, len(images), PER_TAR)]
            if len(shards) == 1 and len(images) > 1:  # so that two tars are read in every set
                shards = [images[: len(images) // 2], images[len(images) // 2 :]]
            first = 0
            for number, shard in enumerate(shards):
                _add(mini, base, commit, f"{folder}/{number}.tar", _tar(mini, shard, split, first, ending))
                first += len(shard)
            _add(mini, base, commit, f"{folder}/nshards.txt", f"{len(shards)}\n".encode())


def _tar(mini: Miniature, images: list[tuple[int, int]], split: str, first: int, ending: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for serial, (number, index) in enumerate(images, start=first):
            content = mini.image_file(ending, number, split, index)
            for name, member in ((f"s{serial:07d}.cls", str(number).encode()), (f"s{serial:07d}{ending}", content)):
                info = tarfile.TarInfo(name)
                info.size = len(member)
                tar.addfile(info, io.BytesIO(member))
    return file.getvalue()


def _add(mini: Miniature, base: str, commit: str, name: str, content: bytes) -> None:
    """A file of the snapshot."""
    blob = f"{base}/blobs/{hashlib.sha256(content).hexdigest()}"
    mini.write(blob, content)
    target = mini.folder / base / "snapshots" / commit / name
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.symlink_to(os.path.relpath(mini.folder / blob, target.parent))
    except OSError:  # no links here: the hub copies then, too
        target.write_bytes(content)
