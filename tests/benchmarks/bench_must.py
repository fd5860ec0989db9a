"""A step of MUST against the least that it has to compute: one forward pass of the teacher, and one forward and
backward pass of the student, both of the bare image tower at the same dtype.

All else is what labkit adds: masks, decoder, losses, pseudo-labels, AdamW, and the teacher's moving average.
The tower has the shape of Pocket ViT and random weights. Both passes get images that are in memory. The student's
attention is computed as labkit does it, and, as a second ratio, as PyTorch would do it.
"""

from __future__ import annotations

import argparse
import contextlib
import copy

import open_clip
import torch
from measure import Result, arguments, finish, medians, ratio, side_by_side
from torch.nn import functional as F

from labkit.devices import fast_dtype
from labkit.must import PRESETS, MaskedClassifier, Trainer, new_state

EMBED_DIM = 256
VISION = {"image_size": 48, "patch_size": 8, "width": 192, "layers": 6, "head_width": 64}
SMALL = {"image_size": 16, "patch_size": 8, "width": 32, "layers": 1, "head_width": 16}
TEXT = {"context_length": 16, "vocab_size": 32, "width": 32, "heads": 2, "layers": 1}  # not used
CLASSES = 10


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batch", type=int, help="images in a step (default: 128)")
    parser.add_argument("--steps", type=int, help="in a round (default: 5)")
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="auto")


def bench(batch: int, steps: int, rounds: int, dtype: torch.dtype, vision: dict) -> list[Result]:
    torch.manual_seed(0)
    visual = open_clip.CLIP(EMBED_DIM, vision, TEXT).visual
    config = PRESETS["pocket"].replace(batch_size=batch)
    heads = F.normalize(torch.randn(CLASSES, EMBED_DIM), dim=1)
    trainer = Trainer(
        new_state(MaskedClassifier(visual, heads, 30.0), config),
        config,
        (0.5, 0.5, 0.5),
        (0.25, 0.25, 0.25),
        steps_per_epoch=10_000,
        dtype=dtype,
    )
    student, teacher = copy.deepcopy(visual).train(), copy.deepcopy(visual).eval().requires_grad_(False)
    weak, strong = (
        torch.randint(0, 256, (batch, 3, vision["image_size"], vision["image_size"]), dtype=torch.uint8)
        for _ in range(2)
    )
    ready = trainer.normalize(weak), trainer.normalize(strong)
    wanted = torch.randn(batch, EMBED_DIM)

    def forward_teacher() -> None:
        with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            teacher(ready[0])

    def train_student(attention: contextlib.AbstractContextManager[None]) -> None:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32), attention:
            embedding = student(ready[1])
        (embedding.float() * wanted).sum().backward()
        student.zero_grad()

    def must() -> None:
        for _ in range(steps):
            trainer.step(weak, strong)

    def bare() -> None:
        for _ in range(steps):
            forward_teacher()
            train_student(trainer._attention())

    def usual() -> None:
        for _ in range(steps):
            forward_teacher()
            train_student(contextlib.nullcontext())

    for function in (must, bare, usual):
        function()
    times = side_by_side(rounds, must=must, bare=bare, usual=usual)
    details = {
        "milliseconds of a step": medians(times, 1000 / steps),
        "batch": batch,
        "dtype": str(dtype).removeprefix("torch."),
        "tower": vision,
        "fastest rounds": min(times["must"]) / min(times["bare"]),
    }
    return [
        Result("MUST: step / bare tower", ratio(times["must"], times["bare"]), 1.15, "at most", details),
        Result("MUST: step / bare tower with PyTorch's attention", ratio(times["must"], times["usual"])),
    ]


def main() -> None:
    given = arguments(__doc__, options)
    dtype = fast_dtype(torch.device("cpu")) if given.dtype == "auto" else getattr(torch, given.dtype)
    batch = given.batch or (4 if given.quick else 128)
    steps = given.steps or (1 if given.quick else 5)
    finish("must", bench(batch, steps, given.rounds, dtype, SMALL if given.quick else VISION), given)


if __name__ == "__main__":
    main()
