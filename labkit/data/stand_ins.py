"""Stand-ins: a data folder may hold miniatures of datasets, which its file stand-ins.json names with their sizes."""

from __future__ import annotations

import json
from typing import Any

from labkit._files import open_regular
from labkit.data.folders import data_dir
from labkit.errors import DataError, quote, shown

FILE = "stand-ins.json"  # in the data folder
MAX_BYTES = 1 << 20


def as_stand_in(data: dict[str, Any]) -> dict[str, Any]:
    """What a shipped manifest says of the miniature that the data folder holds instead, else what it says.

    Sizes are those of the file, and a draw takes the numbers that the file gives for it; there are no digests and no
    published results, and nothing is downloaded for it.

    Args:
        data: the mapping of a manifest, by the names of its keys.

    Raises:
        DataError: stand-ins.json is there and is not what `labkit.papers.standins` writes.
    """
    try:
        path = data_dir() / FILE
    except DataError:  # a user without a home has no stand-ins either
        return data
    if not path.exists():
        return data
    try:
        with open_regular(path) as file:
            found = json.loads(file.read(MAX_BYTES))
        sizes, draw = found["splits"].get(data["id"]), found.get("draws", {}).get(data["id"], {})
        if found["format"] != 1 or (sizes is not None and (set(sizes) != set(data["splits"]) or not _counts(sizes))):
            raise ValueError(f"it says {quote(sizes)} for {data['id']}")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"{shown(path)} cannot be read ({type(error).__name__}: {error}). Write the stand-ins again, or set "
            "LABKIT_DATA to another folder."
        ) from error
    if sizes is None:
        return data
    changed = dict(data)
    changed["title"] = f"{data['title']} (stand-in)"
    changed["splits"] = {split: {**data["splits"][split], "size": size} for split, size in sizes.items()}
    source = dict(data["source"])
    if draw:
        source["draw"] = {**source["draw"], **draw}
    if "files" in source:
        source["files"] = [{**file, "sha256": None, "md5": None} for file in source["files"]]
    if "revision" in source:  # miniatures have no commits
        source["revision"] = None
    for key in ("sha256", "digest", "published", "download_gb"):
        changed.pop(key, None)
    return {**changed, "source": source, "stand_in": True}


def _counts(sizes: dict[str, Any]) -> bool:
    return all(isinstance(size, int) and size > 0 for size in sizes.values())
