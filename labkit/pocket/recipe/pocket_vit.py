"""Train Pocket ViT: a small vision transformer that sees what Pocket CLIP sees, distilled from unlabeled images.

Masked self-training needs a transformer that trains in minutes. This one learns from Pocket CLIP's image tower alone:
for views of icons and glyphs, and of the unlabeled train images of fashion-mini and digits, its embedding should
point where the teacher's does, and be as close as the teacher's to each of many captions (Hinton et al., 2015,
arXiv 1503.02531). The text tower is Pocket CLIP's, unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from labkit import pocket
from labkit._files import atomic_write
from labkit.data.datasets import load_dataset
from labkit.pocket.recipe.corpus import save_array
from labkit.pocket.recipe.pocket_clip import (
    EMBED_DIM,
    TEXT_CFG,
    TRUNK_SIZE,
    Alignment,
    Pictures,
    Scale,
    cosine,
    encode_lower,
    sampling_weights,
    split_trunk,
)

SIZE = 48
CONFIG: dict[str, Any] = {
    "embed_dim": EMBED_DIM,
    "vision_cfg": {"image_size": SIZE, "patch_size": 8, "width": 192, "layers": 6, "head_width": 64},
    "text_cfg": TEXT_CFG,
}
PHOTO_VIEWS = 4  # kept of each of their images
PHOTO_SHARE = 0.25  # of them in a batch
BATCH = 512
SAVE_EVERY = 100  # steps


def photo_views(pictures: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """A slightly moved, scaled and turned view of each: RGB in [0, 1], (B, 3, h, w) -> (B, 3, size, size)."""
    n = len(pictures)
    jitter = 0.1 * (2 * torch.rand(n, 2, 3, generator=generator) - 1)
    grid = F.affine_grid(torch.eye(2, 3) + jitter, [n, 3, size, size], align_corners=False)
    return F.grid_sample(pictures, grid, mode="bicubic", padding_mode="border", align_corners=False).clamp(0, 1)


def photographs(fraction: float) -> Tensor:
    """The unlabeled train images, RGB in [0, 1], float32 (n, 3, 80, 80)."""
    parts = []
    for name in pocket.SEEN["pocket-vit"]:
        pixels = load_dataset(name, "train").array
        assert pixels is not None
        gray = torch.from_numpy(pixels[: max(1, int(fraction * len(pixels)))])[:, None].float() / 255
        parts.append(F.interpolate(gray, (TRUNK_SIZE,) * 2, mode="bicubic", align_corners=False).clamp(0, 1))
    return torch.cat(parts).expand(-1, 3, -1, -1)


def photo_batches(pictures: Tensor, v: int, size: int, batch: int = 512) -> Iterator[Tensor]:
    """View number v of the photographs, in batches; alike at every size."""
    generator = torch.Generator().manual_seed(1000 + v)
    for part in pictures.split(batch):
        yield photo_views(part, size, generator)


def teacher_embeddings(
    alignment: Alignment, maps: Sequence[np.ndarray], photos: Tensor, work: Path, scale: Scale
) -> Tensor:
    """The student's targets, unit vectors float16 (m, 256): views of images 0, 1, …, then of photographs."""
    backbone, lower, _ = split_trunk()
    of_photos = []
    for v in range(PHOTO_VIEWS):
        path = work / f"maps-photos-{scale.fraction:g}-{v}.npy"
        if not path.exists():
            batches = photo_batches(photos, v, TRUNK_SIZE)
            save_array(path, np.concatenate([encode_lower(backbone, lower, batch) for batch in batches]))
        of_photos.append(np.load(path))
    parts = [part for array in (*maps, *of_photos) for part in torch.from_numpy(array).split(1024)]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        embeddings = [alignment.encode_maps(part).half() for part in tqdm(parts, desc="embeddings", unit="batch")]
    return torch.cat(embeddings)


def train(
    alignment: Alignment,
    maps: Sequence[np.ndarray],
    pictures: Pictures,
    captions: Tensor,
    text: dict[str, Tensor],
    work: Path,
    scale: Scale,
) -> dict[str, Tensor]:
    """Distil the student; the whole model's state dict in open_clip's names. A run that was stopped resumes.

    Args:
        alignment: the teacher.
        maps: what the lower trunk gives for the views of the images, from `trunk_maps`.
        captions: embeddings of captions that teacher and student are compared by, unit vectors (V, 256).
        text: the text tower, as `train_text_tower` gives it.
    """
    import open_clip
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))
    done, checkpoint = work / f"vit-{scale.fraction:g}.safetensors", work / f"vit-{scale.fraction:g}.pt"
    if done.exists():
        return load_file(done) | text
    photos = photographs(scale.fraction)
    targets = teacher_embeddings(alignment, maps, photos, work, scale)
    batches = [view for v in range(len(maps)) for view in pictures.views(v, SIZE)]
    batches += [view for v in range(PHOTO_VIEWS) for view in photo_batches(photos, v, SIZE)]
    pool = torch.cat([batch.mul(255).round().to(torch.uint8) for batch in batches])
    rows = np.concatenate([pictures.rows(v) for v in range(len(maps))])
    weights = sampling_weights([pictures.captions[i][0] for i in rows], pictures.kinds[rows])
    n_photos = len(pool) - len(rows)
    weights = torch.cat([weights * (1 - PHOTO_SHARE), torch.full((n_photos,), PHOTO_SHARE / n_photos)])
    torch.manual_seed(0)
    visual: Any = open_clip.CLIP(**CONFIG).visual
    matrices = [p for p in visual.transformer.parameters() if p.ndim == 2]
    rest = [p for p in visual.parameters() if not any(p is matrix for matrix in matrices)]
    optimizers = [torch.optim.Muon(matrices, lr=0.02, weight_decay=0.01), torch.optim.AdamW(rest, lr=1e-3)]
    paces = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    start = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        visual.load_state_dict(saved["visual"])
        for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        start = saved["step"]
    for step in (bar := tqdm(range(start, scale.student_steps), desc="Pocket ViT", unit="step")):
        generator = torch.Generator().manual_seed(step)
        pace = cosine(step, scale.student_steps)
        for optimizer, lr in zip(optimizers, paces, strict=True):
            optimizer.param_groups[0]["lr"] = lr * pace
        chosen = torch.multinomial(weights, min(BATCH, len(pool)), generator=generator)
        images, wanted = (pool[chosen].float() / 255 - mean) / std, targets[chosen].float()
        with torch.autocast("cpu", torch.bfloat16):
            said = F.normalize(visual(images).float(), dim=-1)
        bank = captions[torch.randint(len(captions), (1024,), generator=generator)]
        odds, aim = (alignment.log_scale.exp().detach() * side @ bank.T for side in (said, wanted))
        agreement = F.kl_div(odds.log_softmax(1), aim.log_softmax(1), log_target=True, reduction="batchmean")
        loss = 4 * (1 - (said * wanted).sum(-1).mean()) + agreement
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")
        if (step + 1) % SAVE_EVERY == 0:
            with atomic_write(checkpoint) as temporary:
                states = [optimizer.state_dict() for optimizer in optimizers]
                torch.save({"visual": visual.state_dict(), "optimizers": states, "step": step + 1}, temporary)
    state = {f"visual.{name}": tensor.detach().contiguous() for name, tensor in visual.state_dict().items()}
    with atomic_write(done) as temporary:
        save_file(state, temporary)
    return state | text


def assemble(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict as it ships: float16."""
    return {name: (part.half() if part.is_floating_point() else part).contiguous() for name, part in state.items()}
