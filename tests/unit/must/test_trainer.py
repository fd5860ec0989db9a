"""The steps of MUST: which masks, which rates for which layers, and a step that never waits for the device."""

from __future__ import annotations

from typing import Any, NoReturn

import open_clip
import pytest
import torch

from labkit.errors import FitError
from labkit.must import MaskedClassifier, MustConfig, Trainer, new_state, parameter_groups
from tests import tiny


def classifier(classes: int = 3, **parts: bool) -> MaskedClassifier:
    torch.manual_seed(0)
    visual = open_clip.CLIP(16, tiny.VISION, tiny.TEXT).visual
    return MaskedClassifier(visual, torch.randn(classes, 16), 10.0, **parts)


MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def trainer(config: MustConfig | None = None, classes: int = 3, seed: int = 0, **options: Any) -> Trainer:
    config = tiny.config() if config is None else config
    state = new_state(classifier(classes), config)
    return Trainer(state, config, MEAN, STD, steps_per_epoch=5, seed=seed, **options)


def views(n: int = 8, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, 16, 16), dtype=torch.uint8, generator=generator)


# --------------------------------------------------------------------------------------------------------------- masks


def test_masks_depend_on_seed_and_step_alone() -> None:
    one, same, other = trainer(), trainer(), trainer(seed=1)
    first = one.masks()
    assert torch.equal(first, one.masks())
    assert torch.equal(first, same.masks())
    assert not torch.equal(first, other.masks())
    one.step(views(), views(seed=1))
    second = one.masks()
    assert not torch.equal(first, second)
    same.state.step = 1
    assert torch.equal(second, same.masks())


def test_masks_are_for_the_whole_batch_in_blocks_of_pixels() -> None:
    masks = trainer(tiny.config(mask_block=8, mask_ratio=0.3)).masks()  # 2 x 2 blocks of 2 x 2 patches
    assert masks.shape == (8, 16)
    assert masks.sum(1).tolist() == [8] * 8  # ⌈1.2⌉ blocks
    tiles = masks.view(8, 2, 2, 2, 2)
    assert (tiles == tiles[:, :, :1, :, :1]).all()


def test_blocks_that_do_not_fill_the_picture_are_refused() -> None:
    with pytest.raises(FitError, match=r"mask_block is 12 pixels.*16 x 16 in patches of 4. Expected one of 4, 8, 16"):
        trainer(tiny.config(mask_block=12))
    trainer(tiny.config(mask_block=12, mask_ratio=0.0))


# --------------------------------------------------------------------------------------------------------------- rates


def test_every_parameter_is_in_one_group_with_the_rate_of_its_layer() -> None:
    model, config = classifier(), tiny.config(layer_decay=0.5, weight_decay=0.1)
    groups = parameter_groups(model, config)
    found = {id(p): (group["lr_scale"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(found) == len(list(model.parameters()))
    visual = "backbone.visual."
    for name, scale in {  # of two blocks; the last part has 1
        f"{visual}conv1.weight": 1 / 8,
        f"{visual}class_embedding": 1 / 8,
        f"{visual}positional_embedding": 1 / 8,
        f"{visual}ln_pre.bias": 1 / 8,
        f"{visual}transformer.resblocks.0.attn.in_proj_weight": 1 / 4,
        f"{visual}transformer.resblocks.0.ln_1.weight": 1 / 4,
        f"{visual}transformer.resblocks.1.mlp.c_fc.weight": 1 / 2,
        f"{visual}ln_post.weight": 1.0,
        f"{visual}proj": 1.0,
        "backbone.mask_token": 1 / 8,
        "backbone.ln_patch.weight": 1.0,
        "backbone.decoder.0.weight": 1.0,
        "head.weight": 1.0,
    }.items():
        parameter = model.get_parameter(name)
        assert found[id(parameter)] == (scale, 0.1 if parameter.ndim > 1 else 0.0), name
    fast = parameter_groups(model, config.replace(slow_mask_token=False))
    scales = {id(p): group["lr_scale"] for group in fast for p in group["params"]}
    assert scales[id(model.backbone.mask_token)] == 1.0
    assert {key: scale for key, scale in scales.items() if key != id(model.backbone.mask_token)} == {
        key: scale for key, (scale, _) in found.items() if key != id(model.backbone.mask_token)
    }


def test_parts_that_do_not_learn_are_in_no_group() -> None:
    model = classifier(masked_image=False, alignment=False)
    state = new_state(model, tiny.config(mask_ratio=0.0))
    grouped = {id(p) for group in state.optimizer.param_groups for p in group["params"]}
    left_out = {name for name, parameter in model.named_parameters() if id(parameter) not in grouped}
    parts = {"ln_patch.weight", "ln_patch.bias", "decoder.0.weight", "decoder.0.bias", "mask_token"}
    assert left_out == {f"backbone.{part}" for part in parts}


def test_rates_follow_the_cosine_and_keep_their_ratios() -> None:
    one = trainer()
    for step in range(3):
        one.step(views(), views(seed=1))
        for group in one.state.optimizer.param_groups:
            assert group["lr"] == one.config.lr_at(step / 10) * group["lr_scale"]


# ---------------------------------------------------------------------------------------------------- teacher and step


def test_the_teacher_begins_as_the_student_and_only_follows() -> None:
    state = new_state(classifier(), tiny.config())
    assert state.student.training
    assert not state.teacher.training
    assert not any(parameter.requires_grad for parameter in state.teacher.parameters())
    theirs = state.teacher.state_dict()
    for name, tensor in state.student.state_dict().items():
        assert torch.equal(tensor, theirs[name])
        assert tensor.data_ptr() != theirs[name].data_ptr()
    assert state.moving_mean.shape == (3,)


def test_a_step_tells_of_its_losses_and_leaves_no_gradient() -> None:
    one = trainer()
    seen = one.step(views(), views(seed=1))
    scalars = {"loss", "self_training", "fairness", "masked_image", "alignment", "kept", "confidence", "agreement"}
    assert set(seen) == {*scalars, "labels", "probs"}
    assert all(seen[name].shape == () and not seen[name].requires_grad for name in scalars)
    assert seen["labels"].shape == (8,)
    assert seen["probs"].shape == (8, 3)
    assert torch.equal(seen["probs"].argmax(1), seen["labels"])
    assert one.state.step == 1
    assert all(parameter.grad is None for parameter in one.state.student.parameters())


@pytest.mark.parametrize(("classes", "memory", "remembers"), [(511, None, 0), (512, None, 0.5), (3, 0.9, 0.9)])
def test_many_classes_need_a_moving_mean_that_each_epoch_begins_anew(
    classes: int, memory: float | None, remembers: float
) -> None:
    one = trainer(tiny.config(fairness_momentum=memory), classes=classes)
    moving: torch.Tensor | None = None
    for step in range(7):  # of five an epoch
        masked = one.masks()
        with torch.no_grad():
            mean = one.state.student(one.normalize(views(seed=step)), masked).logits.softmax(-1).mean(0)
        seen = one.step(views(), views(seed=step))
        moving = mean if moving is None or step == 5 else remembers * moving + (1 - remembers) * mean
        torch.testing.assert_close(one.state.moving_mean, moving, atol=1e-6, rtol=1e-4)
        expected = -moving.log().mean() / (1 - remembers)
        torch.testing.assert_close(seen["fairness"], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("accumulate", [2, 4, 8])
@pytest.mark.parametrize(
    "changes",
    [
        {"threshold": 0.9},
        {"fairness_momentum": 0.5, "fairness_weight": 3.0},
        {"mask_ratio": 0.0},
        {"threshold": 1 - 1e-9},
    ],
)
def test_a_batch_in_micro_batches_has_the_gradient_of_the_whole(accumulate: int, changes: dict) -> None:
    """Fairness, the share of kept labels and the moving mean are of the whole batch, whatever its parts."""

    def two_steps(accumulate: int) -> tuple[list[dict], dict[str, torch.Tensor], torch.Tensor]:
        state = new_state(classifier().double(), tiny.config(**changes, accumulate=accumulate))
        one = Trainer(state, tiny.config(**changes, accumulate=accumulate), MEAN, STD, steps_per_epoch=5)
        one.mean, one.std = one.mean.double(), one.std.double()
        seen, gradients, zero_grad = [], {}, state.optimizer.zero_grad

        def keep() -> None:
            named = state.student.named_parameters()
            gradients.update({f"{state.step} {name}": p.grad.clone() for name, p in named if p.grad is not None})
            zero_grad()

        state.optimizer.zero_grad = keep  # type: ignore[method-assign]
        for step in range(2):
            seen.append(one.step(views(seed=step), views(seed=10 + step)))
        return seen, gradients, state.moving_mean

    (seen, gradients, moving), (expected_seen, expected, expected_moving) = two_steps(accumulate), two_steps(1)
    assert gradients.keys() == expected.keys()
    assert max(float(gradient.abs().max()) for gradient in expected.values()) > 0.01
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-6, rtol=0, msg=lambda m, n=name: f"{n}: {m}")
    torch.testing.assert_close(moving, expected_moving, atol=1e-9, rtol=0)
    for line, other in zip(seen, expected_seen, strict=True):
        assert line.keys() == other.keys()
        for name in line:
            torch.testing.assert_close(line[name], other[name], atol=1e-6, rtol=0)


@pytest.mark.parametrize("changes", [{}, {"accumulate": 2, "fairness_momentum": 0.5}, {"mask_ratio": 0.0}])
def test_a_step_never_waits_for_the_device(changes: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, reading one number of a tensor stops the queue of work until all before it is done."""
    one = trainer(tiny.config(**changes))
    one.step(views(), views(seed=1))  # the optimizer's first step makes its state

    def wait(*arguments: Any) -> NoReturn:
        raise AssertionError("this step waits for the device")

    for name in ("item", "tolist", "numpy", "cpu", "nonzero", "__bool__", "__float__", "__int__", "__index__"):
        monkeypatch.setattr(torch.Tensor, name, wait)
    one.step(views(), views(seed=1))


@pytest.mark.parametrize(("dtype", "plain_below", "flash"), [
    (torch.bfloat16, 128, False), (torch.bfloat16, 16, True), (torch.float32, 128, True),
])  # fmt: skip
def test_only_the_student_in_bfloat16_with_few_patches_goes_without_flash_attention(
    dtype: torch.dtype, plain_below: int, flash: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labkit.must.trainer.PLAIN_BELOW", plain_below)
    one, seen = trainer(dtype=dtype), {}
    for name in ("student", "teacher"):
        module = getattr(one.state, name)
        module.register_forward_pre_hook(
            lambda *_, name=name: seen.update({name: torch.backends.cuda.flash_sdp_enabled()})
        )
    one.step(views(), views(seed=1))
    assert seen == {"student": flash, "teacher": True}
