"""Pocket CLIP's text tower: a small transformer with a vocabulary of its own that learns to embed as its teacher does.

The last two stages of the recipe in `pocket_clip`: the tower, and the file that open_clip reads.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from labkit._files import atomic_write
from labkit.pocket import BPE
from labkit.pocket.recipe import corpus
from labkit.pocket.recipe.pocket_clip import (
    CONTEXT,
    EMBED_DIM,
    TEMPLATES,
    TEXT_CFG,
    VOCABULARY,
    Alignment,
    Scale,
    SentenceEncoder,
    cosine,
    split_trunk,
    text_embeddings,
)


def learn_vocabulary(texts: Sequence[str], path: Path) -> None:
    """Write a byte-pair vocabulary of the texts in the format of open_clip's SimpleTokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    n_merges = VOCABULARY - 512 - 2
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace()])
    alphabet = [chr(c) for c in range(33, 127)]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, end_of_word_suffix="</w>", initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([text.lower() for text in texts], trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    lines = ["#version: 0.2 of labkit's pocket models", *(" ".join(merge) for merge in merges[:n_merges])]
    lines += [f"{chr(0x4E00 + i)} {chr(0x4E00 + i)}" for i in range(n_merges - len(lines) + 1)]  # never met: fills up
    with atomic_write(path) as temporary:
        temporary.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))


def train_text_tower(
    alignment: Alignment, captions: list[tuple[str, ...]], work: Path, scale: Scale, *, batch: int = 512
) -> dict[str, Tensor]:
    """Teach a small text transformer what sentence encoder and head say; its state dict in open_clip's names."""
    import open_clip
    from open_clip.tokenizer import SimpleTokenizer

    path, bpe = work / f"text-{scale.fraction:g}.safetensors", work / BPE
    if path.exists():
        return load_file(path)
    names = sorted({name for several in captions for name in several} | set(corpus.imagenet_lemmas()))
    words = SentenceEncoder().words(scale.n_words)
    rng = np.random.RandomState(0)
    texts = [TEMPLATES[rng.randint(len(TEMPLATES))].format(word) for word in words]
    texts += [template.format(name) for template in TEMPLATES for name in names]
    if not bpe.exists():
        learn_vocabulary([*words, *names * 3, *(template.format("") for template in TEMPLATES)], bpe)
    with torch.inference_mode():
        raw = torch.from_numpy(text_embeddings(work, texts, f"texts-{scale.fraction:g}"))
        targets = torch.cat([alignment.encode_embeddings(part) for part in raw.split(8192)])
    tokens = SimpleTokenizer(bpe_path=str(bpe), context_length=CONTEXT)(texts)
    torch.manual_seed(0)
    vision = {"image_size": 8, "patch_size": 8, "width": 64, "layers": 1, "head_width": 64}  # not used
    model = open_clip.CLIP(EMBED_DIM, vision, TEXT_CFG)
    model.token_embedding.weight.data = first_embeddings(tokens, targets)
    tower = [p for name, p in model.named_parameters() if not name.startswith(("visual", "logit"))]
    optimizer = torch.optim.AdamW(tower, lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine(step, scale.text_steps))
    for _ in (bar := tqdm(range(scale.text_steps), desc="text tower", unit="step")):
        chosen = torch.randint(len(texts), (batch,))
        with torch.autocast("cpu", torch.bfloat16):
            said = F.normalize(model.encode_text(tokens[chosen]).float(), dim=-1)
        loss = 1 - (said * targets[chosen]).sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.4f}")
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("visual.")}
    state["logit_scale"] = alignment.log_scale.detach().clone()
    with atomic_write(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, temporary)
    return state


def first_embeddings(tokens: Tensor, targets: Tensor) -> Tensor:
    """A start for the embeddings of tokens, (VOCABULARY, width): the mean target of the texts that have the token.

    Args:
        tokens: of N texts, (N, CONTEXT) int64.
        targets: the embeddings that the tower should give, unit vectors (N, 256); their principal directions are kept.
    """
    width = TEXT_CFG["width"]
    _, _, directions = torch.linalg.svd(targets[:20_000] - targets.mean(0), full_matrices=False)
    small = (targets - targets.mean(0)) @ directions[:width].T
    total = torch.zeros(VOCABULARY, width)
    for column in tokens.T:
        total.index_add_(0, column, small)
    mean = total / torch.bincount(tokens.flatten(), minlength=VOCABULARY).clamp_min(1)[:, None]
    return mean + 0.01 * torch.randn(VOCABULARY, width)


def assemble(alignment: Alignment, text: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of the whole model, float16, in open_clip's names.

    open_clip hands the trunk images normalized with CLIP's mean and deviation; the stem is changed to take these (at
    the border, where zeros are padded, up to the small difference of the two means).
    """
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    backbone, _, upper = split_trunk()
    model: Any = backbone.model
    upper.load_state_dict(alignment.upper.state_dict())  # into the model, of which it is a part
    mean, std = torch.tensor(OPENAI_DATASET_MEAN), torch.tensor(OPENAI_DATASET_STD)
    own_mean, own_std = torch.tensor(backbone.mean), torch.tensor(backbone.std)
    kernel = model.conv_stem.weight.detach()  # (32, 3, 3, 3)
    shift = (kernel * ((mean - own_mean) / own_std).view(3, 1, 1)).sum((1, 2, 3))
    state = {f"visual.trunk.{name}": tensor.clone() for name, tensor in model.state_dict().items()}
    state["visual.trunk.conv_stem.weight"] = kernel * (std / own_std).view(3, 1, 1)
    state["visual.trunk.bn1.running_mean"] -= shift
    state["visual.head.proj.weight"] = alignment.image.weight.detach()
    state["visual.head.proj.bias"] = alignment.image.bias.detach()
    return {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in (state | text).items()}
