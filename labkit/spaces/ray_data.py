"""Features by Ray Data: our backbones as what `map_batches` calls, for whoever has a cluster.

Ray starts the processes, feeds them and replaces those that are lost. An extra: pip install "labkit[scale]".
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

from labkit._files import user_path
from labkit._inputs import is_whole
from labkit.data.decoding import plain_image
from labkit.data.images import ImageDataset
from labkit.errors import DataError, quote, shorten
from labkit.spaces.backbones import load_backbone
from labkit.spaces.shard_files import Layout, finish, read_header
from labkit.spaces.shard_work import ShardWork, unwritable
from labkit.spaces.shards import SHARD, ShardedFeatures


class EncodeImages:
    """For `ray.data.Dataset.map_batches`: adds the column "features", float32 (B, d), to batches of images.

    ::

        rows = ray.data.read_images("s3://…", include_paths=True)
        rows = rows.map_batches(EncodeImages, fn_constructor_args=["clip-vit-l14"], batch_size=256, num_gpus=1,
                                compute=ray.data.ActorPoolStrategy(size=8))
        rows.drop_columns(["image"]).write_parquet("s3://…")

    Args:
        backbone: a name for `load_backbone`.
        column: of the images, uint8 arrays (h, w) or (h, w, 3) of any sizes.
        settings: of `load_backbone`.

    Raises:
        BackboneError: as `load_backbone` does.
        DataError: a batch has no such column, or something else in it.
    """

    def __init__(self, backbone: str, column: str = "image", **settings: Any) -> None:
        self._backbone, self._column = load_backbone(backbone, **settings), column

    def __call__(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if self._column not in batch:
            raise DataError(f"a batch has the columns {quote(list(batch))}. Expected {quote(self._column)}.")
        images = [np.asarray(image) for image in batch[self._column]]
        wrong = [image for image in images if image.dtype != np.uint8 or image.ndim not in (2, 3)]
        if wrong:
            raise DataError(f"an image is {quote(wrong[0])}. Expected pixels, uint8 (h, w) or (h, w, 3).")
        ready = [self._backbone.preprocess(plain_image(Image.fromarray(image))) for image in images]
        channels = max(image.shape[2] for image in ready)
        pixels = np.stack([image if image.shape[2] == channels else image.repeat(channels, axis=2) for image in ready])
        return {**batch, "features": self._backbone.encode_image(torch.from_numpy(pixels)).cpu().numpy()}


class EncodeShards:
    """For `map_batches` over the numbers of shards, in "id" as `ray.data.range` gives them: makes these shards."""

    def __init__(
        self,
        backbone: str,
        dataset: ImageDataset,
        folder: str,
        dtype: str,
        shard: int,
        batch_size: int | None,
        settings: Mapping[str, Any],
    ) -> None:
        self._work = ShardWork(load_backbone(backbone, **settings), dataset, Path(folder), dtype, shard)
        self._batch_size = batch_size

    def __call__(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        done = dict(self._work.encode(batch["id"].tolist(), batch_size=self._batch_size, bar=tqdm(disable=True)))
        return {"id": batch["id"], "images": np.array([done[i] for i in batch["id"].tolist()])}


def features_with_ray(
    backbone: str,
    dataset: ImageDataset,
    folder: str | os.PathLike[str],
    *,
    dtype: str = "float16",
    shard: int = SHARD,
    batch_size: int | None = None,
    workers: int = 1,
    gpus: float = 0,
    **settings: Any,
) -> ShardedFeatures:
    """The same features in the same shards as `extract_shards`, made by the workers of a Ray cluster.

    `ray.init` comes before, with the cluster's address; else Ray starts one on this machine.

    Args:
        backbone: a name for `load_backbone`, which every worker loads.
        dataset, folder: as in `extract_shards`; all machines reach the images and the folder by the same paths.
        dtype, shard, batch_size: as in `extract_shards`.
        workers: processes that encode.
        gpus: of each worker.
        settings: of `load_backbone`.

    Raises:
        DataError: Ray is not installed, or as `extract_shards` does.
    """
    try:
        import ray
        from ray.exceptions import RayError
    except ImportError as error:
        raise DataError('Ray Data is not installed. Run: pip install "labkit[scale]"') from error
    if not isinstance(dataset, ImageDataset) or len(dataset) == 0:
        raise DataError(f"dataset is {quote(dataset)}. Expected images, at least one, such as load_dataset(manifest).")
    if not is_whole(workers, 1):
        raise DataError(f"workers is {quote(workers)}. Expected a whole number of at least 1.")
    path = user_path(folder).absolute()
    n_shards = Layout(len(dataset), 1, dtype, shard).n_shards
    given = (backbone, dataset.without_labels(), str(path), dtype, shard, batch_size, settings)
    rows = ray.data.range(n_shards, override_num_blocks=n_shards).map_batches(
        EncodeShards,
        fn_constructor_args=given,
        batch_size=1,
        num_gpus=gpus or None,
        compute=ray.data.ActorPoolStrategy(size=workers),
    )
    try:
        images = {row["id"]: row["images"] for row in rows.iter_rows()}
    except RayError as error:
        reason = str(error).strip().splitlines()[-1]  # what the worker raised comes after where it did
        raise DataError(f"a worker of Ray failed: {shorten(reason, 500)}") from error
    layout = read_header(path)
    assert layout is not None
    try:
        finish(path, layout, [images[i] for i in range(n_shards)])
    except OSError as error:
        raise DataError(unwritable(path, error)) from error
    return ShardedFeatures.open(path)
