"""labkit's MUST against what the published engine computed: the forward pass, four training steps, student and teacher.

The numbers were measured by running the authors' program on tiny random inputs in float32 on a CPU; nobody here wrote
them (README.md beside this file). `small` has 5 classes; `moving` has 600, so that the moving mean is in use.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from labkit.must import MaskedClassifier, MustConfig, Trainer, masked_image_loss, new_state
from labkit.must.losses import alignment_loss

HERE = Path(__file__).parent
CASES, STEPS = ("small", "moving"), range(4)
OURS = {  # names of the published code that are more than a prefix away from ours
    "model.visual.classifier": "head.weight",
    "model.visual.mask_token_embedding": "backbone.mask_token",
}
LOSSES = {
    "loss_st": "self_training",
    "loss_fair": "fairness",
    "loss_mim": "masked_image",
    "loss_align": "alignment",
}


@functools.cache
def golden() -> dict[str, Tensor]:
    return load_file(HERE / "must_golden.safetensors")


def settings(case: str) -> dict[str, Any]:
    return json.loads((HERE / f"must_golden_{case}.json").read_text("utf-8"))


def part(prefix: str) -> dict[str, Tensor]:
    """Tensors below a prefix, by our names and in our layout."""
    found = {}
    for name, tensor in golden().items():
        if name.startswith(prefix):
            name = name.removeprefix(prefix)
            found[ours(name)] = tensor.T if name == "model.visual.classifier" else tensor
    return found


def ours(name: str) -> str:
    if name in OURS:
        return OURS[name]
    is_new = name.startswith(("model.visual.ln_patch", "model.visual.decoder"))
    return name.replace("model.visual.", "backbone." if is_new else "backbone.visual.")


def classifier(case: str) -> MaskedClassifier:
    """The published model before the first step."""
    given = settings(case)
    vision = {"patch_size": given["patch"], "width": given["width"], "layers": given["layers"]}
    vision |= {"image_size": given["size"], "head_width": 64}
    tower = open_clip.model._build_vision_tower(given["dim"], vision, quick_gelu=True)
    weights = part("small/before/") | part(f"{case}/before/")
    student = MaskedClassifier(tower, weights["head.weight"], 100.0)
    student.load_state_dict(weights)
    return student


class Measured(MustConfig):
    """Settings with the learning rates that were measured, step by step, instead of a cosine."""

    def lr_at(self, progress: float) -> float:
        rates = golden()["small/lr" if self.threshold else "moving/lr"]
        return float(rates[round(progress * len(rates))])


def trainer(case: str, **options: Any) -> Trainer:
    given = settings(case)
    config = Measured(
        epochs=1,
        batch_size=given["batch"],
        layer_decay=given["layer_decay"],
        weight_decay=given["weight_decay"],
        threshold=given["conf_threshold"],
        ema_decay=given["model_ema_decay_init"],
        ema_decay_end=given["model_ema_decay"],
        ema_warmup=given["warm_it"],
        mask_block=given["mask_patch_size"],
        mask_ratio=given["mask_ratio"],
        fairness_weight=given["w_fair"],
        alignment_weight=given["w_align"],
        **options,
    )
    state = new_state(classifier(case), config)
    return Trainer(state, config, given["mean"], given["std"], steps_per_epoch=len(STEPS))


@pytest.fixture(autouse=True)
def published_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch of these runs is what their rates and decays were given for."""
    monkeypatch.setattr("labkit.must.config.PUBLISHED_BATCH", settings("small")["batch"])


def batch(case: str, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Weak and strong view, uint8 (8, 3, 32, 32), and what is masked, bool (8, 16)."""
    weak, strong, mask = (golden()[f"{case}/step{step}/{name}"] for name in ("weak", "strong", "mask"))
    return weak, strong, mask.flatten(1).bool()


def train(case: str, one: Trainer, n_steps: int = len(STEPS)) -> list[dict[str, Tensor]]:
    """Steps on the measured batches and masks, and what they tell."""
    seen = []
    for step in range(n_steps):
        weak, strong, mask = batch(case, step)
        one.masks = lambda mask=mask: mask  # type: ignore[method-assign]
        seen.append(one.step(weak, strong))
    return seen


def assert_golden(found: dict[str, Tensor], expected: dict[str, Tensor], within: float) -> None:
    """Equal up to rounding, which grows with the values; without the biases of keys, whose true gradient is 0."""
    assert expected
    for name, tensor in expected.items():
        value = found[name].detach().clone()
        if name.endswith("attn.in_proj_bias"):
            value, tensor = (torch.cat([x[:64], x[128:]]) for x in (value, tensor))
        atol = within * max(1.0, float(tensor.abs().max()))
        torch.testing.assert_close(value, tensor.to(value), atol=atol, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


def test_golden_files_are_complete() -> None:
    """Every tensor that was measured has its place here."""
    assert {name.split("/")[0] for name in golden()} == set(CASES)
    assert set(part("small/before/")) == set(classifier("small").state_dict())
    assert set(part("small/step0/grad/")) <= set(classifier("small").state_dict())


@pytest.mark.parametrize("case", CASES)
def test_golden_forward(case: str) -> None:
    one, (weak, strong, mask) = trainer(case), batch(case, 0)
    measured = {
        name: golden()[f"{case}/forward/{name}"]
        for name in ("logits", "reconstruction", "alignment", "unmasked_logits")
    }
    with torch.no_grad():
        output = one.state.student(one.normalize(strong), mask)
        found = {"logits": output.logits, "reconstruction": output.reconstruction}
        found["alignment"] = alignment_loss(output.patches, output.embedding, mask)
        found["unmasked_logits"] = one.state.student(one.normalize(weak)).logits
        loss = masked_image_loss(output.reconstruction, one.normalize(strong), mask)
    assert_golden(found, measured, 2e-5)
    assert loss.item() == pytest.approx(golden()[f"{case}/losses/loss_mim"][0].item(), abs=2e-6)


@pytest.mark.parametrize("case", CASES)
def test_golden_masks_have_the_shape_of_ours(case: str) -> None:
    one = trainer(case)
    side = settings(case)["mask_patch_size"] // settings(case)["patch"]
    ours = one.masks()
    for step in STEPS:
        mask = batch(case, step)[2]
        assert mask.shape == ours.shape
        assert (mask.sum(1) == ours[0].sum()).all()
        for several in (mask, ours):
            blocks = several.view(-1, 4 // side, side, 4 // side, side).transpose(2, 3).flatten(3)
            assert (blocks.all(-1) == blocks.any(-1)).all()  # whole blocks


@pytest.mark.parametrize("accumulate", [1, 2, 8])
@pytest.mark.parametrize("case", CASES)
def test_golden_losses_and_parameters_after_four_steps(case: str, accumulate: int) -> None:
    one = trainer(case, accumulate=accumulate)
    seen = train(case, one)
    for name, here in LOSSES.items():
        expected = golden()[f"{case}/losses/{name}"].tolist()
        assert [line[here].item() for line in seen] == pytest.approx(expected, abs=2e-5), name
    for who in ("student", "teacher"):
        found = getattr(one.state, who).state_dict()
        assert_golden(found, part(f"{case}/after/{who}/"), 2e-5)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_golden_gradient_of_the_first_step(accumulate: int) -> None:
    one, gradients = trainer("small", accumulate=accumulate), {}
    names = {parameter: name for name, parameter in one.state.student.named_parameters()}
    zero_grad = one.state.optimizer.zero_grad

    def keep(*arguments: Any) -> None:
        gradients.update({name: parameter.grad.clone() for parameter, name in names.items()})
        zero_grad(*arguments)

    one.state.optimizer.zero_grad = keep  # type: ignore[method-assign]
    train("small", one, 1)
    expected = part("small/step0/grad/")
    assert len(expected) == len(gradients)
    assert_golden(gradients, expected, 1e-5)
