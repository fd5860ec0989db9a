"""Stand-ins of datasets on the Hugging Face hub, webdataset tars and parquet, in the layout of the hub's own cache."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile

from labkit.data.schema import HuggingFace, WebDataset
from labkit.papers.standins.miniature import Miniature, needed

PER_TAR = 1000  # images; a tar of the real sets holds ten times as many
ENDINGS = {"clip-benchmark/wds_imagenet1k": ".jpg"}  # the other sets were packed as lossless .webp


def write_webdataset(mini: Miniature) -> None:
    """A folder of tars for each split, the number of tars beside them, and the names of the classes."""
    source = mini.manifest.source
    assert isinstance(source, WebDataset)
    base, commit = _repository(mini, source)
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


def write_parquet(mini: Miniature) -> None:
    """A parquet file for each split, of image files in bytes and class numbers, as the library `datasets` has it."""
    pa, pq = needed("pyarrow", mini.name), needed("pyarrow.parquet", mini.name)
    source = mini.manifest.source
    assert isinstance(source, HuggingFace)
    base, commit = _repository(mini, source)
    label = source.label or "label"
    features = {source.image: {"_type": "Image"}, label: {"names": mini.classes, "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    for split, name in source.splits.items():
        images = list(mini.images(split))
        cells = [{"bytes": mini.image_file(".jpg", number, split, index), "path": None} for number, index in images]
        image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        columns = {
            source.image: pa.array(cells, image_type),
            label: pa.array([number for number, _ in images], pa.int64()),
        }
        file = io.BytesIO()
        pq.write_table(pa.table(columns).replace_schema_metadata(metadata), file)
        _add(mini, base, commit, f"data/{name}-00000-of-00001.parquet", file.getvalue())


def _repository(mini: Miniature, source: WebDataset | HuggingFace) -> tuple[str, str]:
    """The folder of a repository in the cache and the commit of its one snapshot, which `main` refers to."""
    base = f"hub/datasets--{source.repo.replace('/', '--')}"
    known = re.fullmatch("[0-9a-f]{40}", source.revision or "")
    commit = known.group() if known else hashlib.sha1(source.repo.encode()).hexdigest()
    mini.write(f"{base}/refs/main", commit)
    return base, commit


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
    """A file of the snapshot: a link to a blob, or a copy where there are no links."""
    blob = f"{base}/blobs/{hashlib.sha256(content).hexdigest()}"
    mini.write(blob, content)
    target = mini.folder / base / "snapshots" / commit / name
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.symlink_to(os.path.relpath(mini.folder / blob, target.parent))
    except OSError:  # as the hub does then
        target.write_bytes(content)
