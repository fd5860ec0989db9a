"""The MUST estimator: no label is seen, nothing is lost when it stops, and odd data or settings get a clear word."""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression

from labkit import _saved
from labkit.data.images import ImageDataset
from labkit.errors import BackboneError, CheckpointError, FitError
from labkit.must import MUST, checkpoint, estimator, head, processes, run
from labkit.must.choosing import compare
from labkit.spaces.backbones import load_backbone
from labkit.spaces.features import encode_images
from labkit.spaces.geometry import Geometry
from labkit.zeroshot.classifier import ZeroShot, text_classifier
from labkit.zeroshot.prompts import Prompts
from tests import tiny

ROOT = Path(__file__).parents[3]
IMAGES = tiny.images()


pytestmark = pytest.mark.usefixtures("tiny_model")


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line of metrics and a checkpoint after every step."""
    monkeypatch.setattr(estimator, "LOG_EVERY", 1)
    monkeypatch.setattr(checkpoint, "SAVE_EVERY", -1.0)


class Stop(Exception):
    """Ends a fit as a crash does: without a word to it."""


def at_step(step: int, action: Callable[[], None]) -> Callable[[list[dict[str, float]]], None]:
    """For `on_log`: what to do at this step, before its checkpoint."""
    return lambda records: action() if records[-1]["step"] == step else None


def crash() -> None:
    raise Stop


def same_models(first: MUST, second: MUST) -> bool:
    ours, theirs = first.model_.state_dict(), second.model_.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def assert_same_fit(first: MUST, second: MUST) -> None:
    assert same_models(first, second)
    assert first.history_ == second.history_
    assert first.best_epoch_ == second.best_epoch_
    np.testing.assert_array_equal(first.pseudo_labels_, second.pseudo_labels_)


def assert_same_folder(first: Path, second: Path) -> None:
    """Checkpoints of two folders hold the same bits, moments of the optimizer included; and so do their metrics."""
    ours, theirs = (load_file(folder / "checkpoint.safetensors") for folder in (first, second))
    assert {name.split("/")[0] for name in ours} >= {"student", "teacher", "optimizer", "moving_mean", "epochs", "sums"}
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name
    assert metadata(first) == metadata(second)
    assert (first / "metrics.jsonl").read_bytes() == (second / "metrics.jsonl").read_bytes()
    assert sorted(path.name for path in first.iterdir()) == ["checkpoint.safetensors", "metrics.jsonl"]


def metadata(folder: Path) -> dict[str, str]:
    with safe_open(folder / "checkpoint.safetensors", framework="pt") as file:
        return file.metadata()


def saved_step(folder: Path) -> int:
    return json.loads(metadata(folder)["settings"])["step"]


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]


def finite(must: MUST) -> bool:
    weights = all(bool(value.isfinite().all()) for value in must.model_.state_dict().values())
    return weights and bool(np.isfinite([list(entry.values()) for entry in must.history_]).all())


# ------------------------------------------------------------------------------------------------------ what a fit does


def test_a_fit_leaves_what_it_promises() -> None:
    must = tiny.must().fit(IMAGES)
    assert must.class_names_.tolist() == list(tiny.WORDS)
    names = {"kept", "confidence", "agreement", "marginal_entropy", "mean_entropy", "mutual_information"}
    assert [set(entry) for entry in must.history_] == [names, names]
    for entry in must.history_:
        assert entry["mutual_information"] == pytest.approx(entry["marginal_entropy"] - entry["mean_entropy"])
        assert 0 <= entry["mutual_information"] <= entry["marginal_entropy"] <= np.log(3) + 1e-6
        assert 0 < entry["kept"] < 1
        assert 1 / 3 < entry["confidence"] < 1
        assert 0 < entry["agreement"] < 1
    assert must.pseudo_labels_.shape == (2, 24)
    assert must.pseudo_labels_.dtype == np.int64
    assert must.pseudo_labels_.min() >= 0
    assert len(np.unique(must.pseudo_labels_)) > 1
    assert must.best_epoch_ == 2
    probs = must.predict_proba(IMAGES)
    assert probs.shape == (24, 3)
    np.testing.assert_allclose(probs.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(must.predict(IMAGES), probs.argmax(1))
    assert not any(parameter.requires_grad for parameter in must.model_.parameters())


def test_before_the_first_step_it_is_zero_shot() -> None:
    model = tiny.backbone()
    must = tiny.must(model, lr=1e-30, epochs=1).fit(IMAGES)
    zero_shot = ZeroShot(text_classifier(model, must.prompts), model.logit_scale)
    expected = zero_shot.predict_proba(encode_images(model, IMAGES))
    np.testing.assert_allclose(must.predict_proba(IMAGES), expected, atol=1e-5)
    assert len(np.unique(must.predict(IMAGES))) > 1


def test_the_backbone_stays_as_it_was() -> None:
    model = tiny.backbone()
    before = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    tiny.must(model).fit(IMAGES)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.model.state_dict().items())
    assert not model.model.training


def test_labels_never_reach_the_fit() -> None:
    fits = []
    for labels in (IMAGES.labels, np.random.default_rng(0).permutation(IMAGES.labels), np.full(24, -1)):
        fits.append(tiny.must().fit(ImageDataset(labels, IMAGES.classes, array=IMAGES.array), labels))
    for other in fits[1:]:
        assert_same_fit(fits[0], other)


def test_equal_seeds_give_equal_fits_and_other_seeds_others() -> None:
    first, again, other = tiny.must(), tiny.must(), tiny.must().set_params(random_state=1)
    for must in (first, again, other):
        must.fit(IMAGES)
    assert_same_fit(first, again)
    assert not same_models(first, other)


def test_workers_change_nothing() -> None:
    assert_same_fit(tiny.must().fit(IMAGES), tiny.must().set_params(n_workers=2).fit(IMAGES))


def test_a_fit_leaves_the_global_random_state_alone() -> None:
    must = tiny.must()
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    must.fit(IMAGES)
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])


def test_a_single_process_leaves_accelerate_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else `notebook_launcher` refuses to start in a notebook that has fitted once, and the device is settled."""
    monkeypatch.setattr("accelerate.Accelerator", None)
    tiny.must(epochs=1).fit(IMAGES)


@pytest.mark.parametrize(("device", "gpu", "cpu"), [("cpu", True, True), ("auto", False, True), ("auto", True, False)])
def test_several_processes_are_told_where_to_run(
    device: str, gpu: bool, cpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a GPU, accelerate would take every process for the only one if it is not told to use the CPU."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    monkeypatch.setattr("accelerate.Accelerator", dict)
    assert processes.accelerator_for(device) == {"cpu": cpu, "mixed_precision": "no"}


def test_metrics_tell_of_every_tenth_step_and_the_last(tmp_path: Path) -> None:
    seen: list[int] = []
    must = tiny.must(epochs=7).fit(IMAGES, folder=tmp_path, on_log=lambda records: seen.append(len(records)))
    records = lines(tmp_path)
    assert seen == [1, 2, 3]
    assert [line["step"] for line in records] == [10, 20, 21]
    assert [line["epoch"] for line in records] == pytest.approx([10 / 3, 20 / 3, 7], abs=1e-4)
    for line in records:
        parts = line["self_training"] + line["fairness"] + line["masked_image"] + 0.2 * line["alignment"]
        assert line["loss"] == pytest.approx(parts, rel=1e-5)
        step = int(line["step"]) - 1
        assert line["lr"] == must.config.lr_at(step / 21)
        assert line["ema_decay"] == must.config.ema_decay_at(step)
        assert {"kept", "confidence", "agreement", "mean_entropy"} <= set(line)
        assert not {"labels", "probs", "marginal"} & set(line)


@pytest.mark.parametrize(
    ("changes", "gone"),
    [
        ({"mask_ratio": 0.0}, {"masked_image", "alignment"}),
        ({"masked_image_weight": 0.0}, {"masked_image"}),
        ({"alignment_weight": 0.0}, {"alignment"}),
        ({"masked_image_weight": 0.0, "alignment_weight": 0.0}, {"masked_image", "alignment"}),
        ({"self_training_weight": 0.0}, set()),
        ({"fairness_weight": 0.0}, set()),
        ({"accumulate": 2}, set()),
        ({"fairness_momentum": 0.5}, set()),
        ({"slow_mask_token": False}, set()),
        ({"prior": "estimated"}, set()),
        ({"augment": None, "flip": False, "crop": 1.0}, set()),
    ],
)
def test_every_switch_runs_and_matters(changes: dict, gone: set[str], tmp_path: Path, every_step: None) -> None:
    must = tiny.must(**changes).fit(IMAGES, folder=tmp_path)
    assert finite(must)
    assert {"self_training", "fairness", "masked_image", "alignment"} - set(lines(tmp_path)[0]) == gone
    assert not same_models(must, tiny.must().fit(IMAGES))


def test_without_a_moving_average_the_teacher_is_the_student(tmp_path: Path) -> None:
    tiny.must(ema_decay=0.0).fit(IMAGES, folder=tmp_path)
    tensors = load_file(tmp_path / "checkpoint.safetensors")
    for name, tensor in tensors.items():
        if name.startswith("teacher/"):
            torch.testing.assert_close(tensor, tensors[name.replace("teacher", "student")])


def test_scikit_learn_can_clone_it() -> None:
    must = tiny.must()
    copied = clone(must, safe=False)
    assert copied.get_params().keys() == must.get_params().keys()
    with pytest.raises(NotFittedError):
        must.predict(IMAGES)
    with pytest.raises(NotFittedError):
        must.save("nowhere")


# ------------------------------------------------------------------------------------------------------------- odd data


def test_no_confident_picture_is_no_harm(tmp_path: Path, every_step: None) -> None:
    must = tiny.must(threshold=1 - 1e-9).fit(IMAGES, folder=tmp_path)
    assert finite(must)
    assert [entry["kept"] for entry in must.history_] == [0, 0]
    assert [line["self_training"] for line in lines(tmp_path)] == [0] * 6


def test_one_class_only_is_no_harm() -> None:
    red = IMAGES.labels == 0
    images = ImageDataset(IMAGES.labels[red], IMAGES.classes, array=IMAGES.array[red])
    assert finite(tiny.must(epochs=3).fit(images))
    same = ImageDataset(np.zeros(16, int), IMAGES.classes, array=np.repeat(IMAGES.array[:1], 16, 0))
    assert finite(tiny.must(epochs=3, prior="estimated", fairness_momentum=0.9).fit(same))


def test_a_single_word_is_no_harm() -> None:
    must = MUST(tiny.backbone(), Prompts.from_words(["red"]), tiny.config(), device="cpu").fit(IMAGES)
    assert finite(must)
    assert not must.predict(IMAGES).any()


def test_images_of_odd_sizes_and_kinds_are_no_harm() -> None:
    from PIL import Image

    sizes = [(1, 1), (3, 500), (500, 3), (16, 16), (40, 30), (2, 1)]
    modes = ["L", "RGBA", "RGB", "P"]
    images = [Image.new("RGB", sizes[i % 6], (40 * i, 0, 99)).convert(modes[i % 4]) for i in range(8)]
    must = tiny.must(epochs=1).fit(ImageDataset(np.full(8, -1), [], decode=lambda i: images[i]))
    assert finite(must)


def test_fewer_images_than_a_batch_make_a_smaller_batch(caplog: pytest.LogCaptureFixture) -> None:
    few = ImageDataset(IMAGES.labels[:5], IMAGES.classes, array=IMAGES.array[:5])
    with caplog.at_level(logging.WARNING, "labkit"):
        must = tiny.must().fit(few)
    assert "A batch holds 5 images instead of 8" in caplog.text
    assert finite(must)
    assert must.pseudo_labels_.min() >= 0
    assert tiny.must(accumulate=2).fit(few).pseudo_labels_.min(1).tolist() == [-1, -1]  # 4 of 5, in parts of 2
    one = ImageDataset(IMAGES.labels[:1], IMAGES.classes, array=IMAGES.array[:1])
    assert finite(tiny.must().fit(one))
    with pytest.raises(FitError, match="1 images cannot be shared among 1 processes in 2 micro-batches"):
        tiny.must(accumulate=2).fit(one)


def test_images_beyond_the_last_full_batch_are_others_in_every_epoch() -> None:
    must = tiny.must(epochs=6, batch_size=9).fit(IMAGES)  # 2 batches of 9; 6 of 24 are left out
    assert (must.pseudo_labels_ < 0).sum(1).tolist() == [6] * 6
    assert (must.pseudo_labels_ >= 0).any(0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_finite_and_close(dtype: torch.dtype, tmp_path: Path) -> None:
    exact, low = tiny.must().fit(IMAGES), tiny.must(tiny.backbone(dtype)).fit(IMAGES, folder=tmp_path)
    assert finite(low)
    assert not same_models(exact, low)
    np.testing.assert_allclose(low.predict_proba(IMAGES), exact.predict_proba(IMAGES), atol=0.15)
    again = tiny.must(tiny.backbone(dtype)).fit(IMAGES, folder=tmp_path)  # the scaler of gradients comes back, too
    assert_same_fit(low, again)


def test_training_that_diverges_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FitError, match=r"training diverged: weights are not finite after step 3. Lower `lr`"):
        tiny.must(lr=1e38).fit(IMAGES, folder=tmp_path)
    assert not (tmp_path / "checkpoint.safetensors").exists()
    monkeypatch.setattr(estimator, "LOG_EVERY", 1)
    with pytest.raises(FitError, match=r"training diverged: the loss is nan after step 2. .*another folder"):
        tiny.must(lr=1e38).fit(IMAGES)


# --------------------------------------------------------------------------------------------------- errors before work


@pytest.mark.parametrize("name", ["pixels", "efficientnet-lite0"])
def test_a_backbone_without_texts_is_refused(name: str) -> None:
    with pytest.raises(BackboneError, match=f"'{name}' has no text tower. MUST starts from an image-text model"):
        MUST(name, Prompts.from_words(tiny.WORDS), tiny.config(), device="cpu").fit(IMAGES)


def test_wrong_settings_are_explained_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(FitError, match=r"config is {'lr': 1}. Expected a MustConfig"):
        MUST(tiny.backbone(), Prompts.from_words(tiny.WORDS), {"lr": 1}, device="cpu").fit(IMAGES)  # type: ignore[arg-type]
    with pytest.raises(FitError, match="no images"):
        tiny.must().fit(ImageDataset(np.zeros(0, int), []))
    for block in (6, 12, 32):
        with pytest.raises(FitError, match=rf"mask_block is {block} pixels.*16 x 16 in patches of 4.*one of 4, 8, 16"):
            tiny.must(mask_block=block).fit(IMAGES, folder=tmp_path / "run")
    with pytest.raises(FitError, match="augment is 'strong'"):
        tiny.must(augment="strong").fit(IMAGES, folder=tmp_path / "run")
    tiny.must(mask_block=32, mask_ratio=0.0, epochs=1).fit(IMAGES)  # not used, not refused


# ---------------------------------------------------------------------------------------------------- another beginning


def head_at_the_start(start: np.ndarray) -> np.ndarray:
    """What a fit that learns nothing says of the images: what it began with."""
    return tiny.must(lr=1e-30, epochs=1).fit(IMAGES, initial_labels=start).predict_proba(IMAGES)


def test_a_labeling_is_where_the_head_begins() -> None:
    assert head_at_the_start(IMAGES.labels).argmax(1).tolist() == IMAGES.labels.tolist()
    other = (IMAGES.labels + 1) % 3  # other names for the same clusters
    assert head_at_the_start(other).argmax(1).tolist() == other.tolist()
    assert tiny.must().fit(IMAGES).predict(IMAGES).tolist() != IMAGES.labels.tolist()  # which prompts do not find


def test_unknown_images_are_left_out_of_the_beginning() -> None:
    start = IMAGES.labels.copy()
    start[::2] = -1
    assert head_at_the_start(start).argmax(1).tolist() == IMAGES.labels.tolist()


@pytest.mark.parametrize("classes", [(0, 1), (1, 2), (0, 1, 2)])
def test_the_head_is_as_sure_as_logistic_regression(classes: tuple[int, ...]) -> None:
    model = tiny.backbone()
    start = np.where(np.isin(IMAGES.labels, classes), IMAGES.labels, -1)
    start[:6] = (
        (start[:6] + 1) % len(classes) if classes == (0, 1, 2) else start[:6]
    )  # some noise, so that not all is 1
    embeddings = encode_images(model, IMAGES)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    known = start >= 0
    fitted = LogisticRegression(C=1.0, fit_intercept=False, max_iter=1000)
    expected = fitted.fit(model.logit_scale * unit[known], start[known]).predict_proba(model.logit_scale * unit[known])
    among = head_at_the_start(start)[known][:, list(classes)]
    np.testing.assert_allclose(among / among.sum(1, keepdims=True), expected, atol=1e-4)


def test_a_class_without_images_neither_swallows_the_others_nor_vanishes() -> None:
    """As in CLIP: all images lie in one cone, all prompts in another, and classes differ a little in both."""
    rng = np.random.default_rng(0)
    pictures_cone, prompts_cone, *directions = np.eye(32)[:7]
    labels = np.arange(500) % 5
    prompts = np.stack([prompts_cone + 0.3 * pictures_cone + 0.5 * direction for direction in directions])
    embeddings = pictures_cone + 0.4 * np.stack(directions)[labels] + 0.05 * rng.standard_normal((500, 32))
    weights = torch.from_numpy(prompts / np.linalg.norm(prompts, axis=1, keepdims=True)).float()
    start = np.where(labels == 3, -1, labels)
    fitted = head._fit_head(embeddings.astype(np.float32), start, weights, 100.0)
    assert torch.equal(fitted[3], weights[3])
    right = (embeddings @ fitted.numpy().T).argmax(1) == labels
    assert right[start >= 0].all()
    assert right[start < 0].mean() > 0.9


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (
            np.zeros(23, int),
            r"initial_labels has shape \(23,\) and dtype int64. Expected a class number for each of the 24",
        ),
        (np.zeros((24, 3), int), r"initial_labels has shape \(24, 3\)"),
        (np.zeros(24), "dtype float64. Expected a class number"),
        (np.zeros(24, bool), "dtype bool"),
        (["red"] * 24, "dtype <U3"),
        (np.arange(24) % 4, "class numbers from 0 to 3. Expected 0 to 2"),
        (np.arange(24) % 3 - 2, "class numbers from -2 to 0"),
        (np.zeros(24, int), "fewer than two classes"),
        (np.where(np.arange(24) > 3, -1, 1), "fewer than two classes"),
        (np.full(24, -1), "fewer than two classes"),
    ],
)
def test_a_start_that_is_no_labeling_is_explained(start: Any, message: str) -> None:
    with pytest.raises(FitError, match=message):
        tiny.must().fit(IMAGES, initial_labels=start)


def test_lists_and_small_integers_are_labelings_too() -> None:
    expected = tiny.must().fit(IMAGES, initial_labels=IMAGES.labels)
    assert_same_fit(tiny.must().fit(IMAGES, initial_labels=IMAGES.labels.tolist()), expected)
    assert_same_fit(tiny.must().fit(IMAGES, initial_labels=IMAGES.labels.astype(np.int8)), expected)


def test_the_estimated_prior_is_what_the_beginning_says_of_the_images() -> None:
    priors = []

    class Spy(estimator.Trainer):
        def __init__(self, *arguments: Any, prior: torch.Tensor | None, **settings: Any) -> None:
            priors.append(prior)
            super().__init__(*arguments, prior=prior, **settings)

    model = tiny.backbone()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimator, "Trainer", Spy)
        tiny.must(model, prior="estimated", epochs=1).fit(IMAGES)
        start = np.where(np.arange(24) < 12, 0, IMAGES.labels)
        tiny.must(model, prior="estimated", epochs=1).fit(IMAGES, initial_labels=start)
        tiny.must(model, epochs=1).fit(IMAGES)
    zero_shot = ZeroShot(text_classifier(model, Prompts.from_words(tiny.WORDS))).predict(encode_images(model, IMAGES))
    for prior, said in ((priors[0], zero_shot), (priors[1], head_at_the_start(start).argmax(1))):
        assert prior.tolist() == pytest.approx(((np.bincount(said, minlength=3) + 1) / 27).tolist())
    assert priors[2] is None


# ---------------------------------------------------------------------------------------------- choosing without labels


def test_patience_stops_and_goes_back_to_the_best_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teachers = []
    end_epoch = run.Run.end_epoch

    def spy(one: Any) -> None:
        teachers.append({name: tensor.clone() for name, tensor in one.trainer.state.teacher.state_dict().items()})
        end_epoch(one)

    monkeypatch.setattr(run.Run, "end_epoch", spy)
    must = tiny.must(epochs=30, patience=3, lr=3e-2).fit(IMAGES, initial_labels=IMAGES.labels, folder=tmp_path)
    information = [entry["mutual_information"] for entry in must.history_]
    assert must.best_epoch_ == 1 + int(np.argmax(information))
    assert len(information) == len(must.pseudo_labels_) == must.best_epoch_ + 3 < 30
    best = teachers[must.best_epoch_ - 1]
    assert all(torch.equal(tensor, best[name]) for name, tensor in must.model_.state_dict().items())
    again = tiny.must(epochs=30, patience=3, lr=3e-2).fit(IMAGES, initial_labels=IMAGES.labels, folder=tmp_path)
    assert len(teachers) == len(information)  # nothing was left to do
    assert_same_fit(must, again)


def test_without_patience_the_last_epoch_counts() -> None:
    must = tiny.must(epochs=5, lr=3e-2).fit(IMAGES, initial_labels=IMAGES.labels)
    assert (len(must.history_), must.best_epoch_) == (5, 5)


# ------------------------------------------------------------------------------------------------------- stop and go on


SETTINGS = {"fairness_momentum": 0.5, "patience": 5, "epochs": 3}


@pytest.fixture
def uninterrupted(tmp_path: Path, every_step: None) -> tuple[MUST, Path]:
    folder = tmp_path / "uninterrupted"
    return tiny.must(**SETTINGS).fit(IMAGES, folder=folder), folder


@pytest.mark.parametrize("saved", [1, 3, 5, 6, 8])  # three steps an epoch: in its middle and at its end
def test_a_crash_goes_on_from_the_last_checkpoint_to_the_same_bits(
    saved: int, uninterrupted: tuple[MUST, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "crashed"
    with pytest.raises(Stop):
        tiny.must(**SETTINGS).fit(IMAGES, folder=folder, on_log=at_step(saved + 1, crash))
    assert saved_step(folder) == saved
    assert lines(folder)[-1]["step"] == saved + 1  # this line is written again
    steps: list[float] = []
    must = tiny.must(**SETTINGS).fit(IMAGES, folder=folder, on_log=lambda records: steps.append(records[-1]["step"]))
    assert steps == list(range(saved + 1, 10))
    assert_same_fit(must, uninterrupted[0])
    assert_same_folder(folder, uninterrupted[1])


@pytest.mark.parametrize(("step", "number"), [(1, signal.SIGINT), (3, signal.SIGTERM), (9, signal.SIGINT)])
def test_ctrl_c_or_sigterm_saves_and_the_same_fit_goes_on(
    step: int, number: int, uninterrupted: tuple[MUST, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "interrupted"
    before = signal.getsignal(number)
    interrupt = at_step(step, lambda: os.kill(os.getpid(), number))
    with pytest.raises(KeyboardInterrupt, match=r"saved in .*interrupted; the same fit resumes from there"):
        tiny.must(**SETTINGS).fit(IMAGES, folder=folder, on_log=interrupt)
    assert signal.getsignal(number) is before
    assert saved_step(folder) == step
    must = tiny.must(**SETTINGS).fit(IMAGES, folder=folder)
    assert_same_fit(must, uninterrupted[0])
    assert_same_folder(folder, uninterrupted[1])


def test_a_second_ctrl_c_does_not_wait() -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), checkpoint.interruptible(True):
        twice()


def test_without_a_folder_ctrl_c_is_left_alone(every_step: None) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background does not have
    try:
        with pytest.raises(KeyboardInterrupt):
            tiny.must().fit(IMAGES, on_log=at_step(2, lambda: os.kill(os.getpid(), signal.SIGINT)))
    finally:
        signal.signal(signal.SIGINT, before)


def test_checkpoints_are_written_by_time_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a large model one takes gigabytes, so not at the end of every epoch."""
    now, saved = [0.0], []

    def spy(path: Path, kind: str, settings: dict, tensors: dict) -> None:
        saved.append(settings["step"])

    def pass_time(records: list[dict[str, float]]) -> None:
        now[0] += 100.0

    monkeypatch.setattr(estimator, "LOG_EVERY", 1)
    monkeypatch.setattr(checkpoint, "write_saved", spy)
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    tiny.must(epochs=4).fit(IMAGES, folder=tmp_path, on_log=pass_time)
    assert saved == [4, 8, 12]  # more than 300 seconds after one another, and at the end


def test_a_run_goes_on_in_another_precision_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, every_step: None
) -> None:
    """Such as one that was begun on a GPU in float16 and resumes on another in bfloat16."""
    low = tmp_path / "low"
    with pytest.raises(Stop):
        tiny.must(tiny.backbone(torch.float16)).fit(IMAGES, folder=low, on_log=at_step(4, crash))
    with caplog.at_level(logging.WARNING):
        must = tiny.must(tiny.backbone(torch.bfloat16)).fit(IMAGES, folder=low)
    assert "began in torch.float16 and resumes in torch.bfloat16" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        exact = tiny.must().fit(IMAGES, folder=tmp_path / "exact")
    assert not caplog.text
    assert np.abs(must.predict_proba(IMAGES) - exact.predict_proba(IMAGES)).max() < 0.1
    assert len(must.history_) == 2


def test_a_finished_fit_is_read_and_not_repeated(uninterrupted: tuple[MUST, Path]) -> None:
    must, folder = uninterrupted
    before = (folder / "checkpoint.safetensors").read_bytes()
    again = tiny.must(**SETTINGS).fit(IMAGES, folder=folder, on_log=lambda records: crash())
    assert_same_fit(must, again)
    assert (folder / "checkpoint.safetensors").read_bytes() == before


SCRIPT = """
import sys
from pathlib import Path
from labkit.must import checkpoint, estimator
from tests import tiny
tiny.use_model(Path(sys.argv[1]))
estimator.LOG_EVERY, checkpoint.SAVE_EVERY = 1, -1.0
must = tiny.must(epochs=200)
must.fit(tiny.images(), folder=sys.argv[2], on_log=lambda records: print(records[-1]["step"], flush=True))
"""


def run_until(step: int, number: int, tiny_files: Path, folder: Path) -> tuple[int, str]:
    """A fit in a process of its own, sent a signal after this step: its exit status, and what it said."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tiny_files), str(folder)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= step:
            break
    os.kill(process.pid, number)
    _, said = process.communicate(timeout=120)
    return process.returncode, said


def test_killed_then_interrupted_it_still_ends_at_the_same_bits(
    tiny_files: Path, tmp_path: Path, every_step: None
) -> None:
    folder = tmp_path / "run"
    assert run_until(8, signal.SIGKILL, tiny_files, folder)[0] == -signal.SIGKILL
    killed = saved_step(folder)
    status, said = run_until(killed + 8, signal.SIGINT, tiny_files, folder)
    assert status in (-signal.SIGINT, 130)
    assert "the same fit resumes from there" in said
    interrupted = saved_step(folder)
    assert killed >= 7
    assert killed + 8 <= interrupted < 600
    steps: list[float] = []
    stop = killed + interrupted + 5  # far enough; a whole run of 600 steps would take long

    def watch(records: list[dict[str, float]]) -> None:
        steps.append(records[-1]["step"])
        if records[-1]["step"] == stop:
            raise Stop

    for kept in (folder, tmp_path / "uninterrupted"):
        with pytest.raises(Stop):
            tiny.must(epochs=200).fit(IMAGES, folder=kept, on_log=watch)
    assert steps[0] == interrupted + 1
    assert_same_folder(folder, tmp_path / "uninterrupted")


# ----------------------------------------------------------------------------------------------------------- full disks


def test_a_full_disk_is_explained_and_the_last_checkpoint_stays(
    uninterrupted: tuple[MUST, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, calls = tmp_path / "full", []

    def fill(tensors: dict, path: Path, texts: dict) -> None:
        calls.append(path)
        if len(calls) > 4:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save_file(tensors, path, texts)

    with monkeypatch.context() as patch:
        patch.setattr(_saved, "save_file", fill)
        with pytest.raises(CheckpointError, match=r"cannot be kept in .*full.*No space left.*Make room or choose"):
            tiny.must(**SETTINGS).fit(IMAGES, folder=folder)
    assert saved_step(folder) == 4
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint.safetensors", "metrics.jsonl"]
    assert_same_fit(tiny.must(**SETTINGS).fit(IMAGES, folder=folder), uninterrupted[0])
    assert_same_folder(folder, uninterrupted[1])


def test_metrics_that_cannot_be_written_are_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "metrics.jsonl").symlink_to("/dev/null")
    with pytest.raises(CheckpointError, match="a pipe, a socket or a device") as caught:
        tiny.must().fit(IMAGES, folder=tmp_path)
    assert "checkpoint" not in str(caught.value)  # there is none that could be whole


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system in memory with room for one checkpoint and a half."""
    tiny.must(epochs=1).fit(IMAGES, folder=tmp_path / "measured")
    size = (tmp_path / "measured" / "checkpoint.safetensors").stat().st_size
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size * 3 // 2}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_really_full_is_explained_and_the_last_checkpoint_stays(
    small_disk: Path, every_step: None
) -> None:
    with pytest.raises(CheckpointError, match=r"cannot be kept in .*disk.*Make room or choose another folder"):
        tiny.must().fit(IMAGES, folder=small_disk)
    assert saved_step(small_disk) == 1
    assert len(load_file(small_disk / "checkpoint.safetensors")) > 50
    assert sorted(path.name for path in small_disk.iterdir()) == ["checkpoint.safetensors", "metrics.jsonl"]


def test_a_folder_that_cannot_be_one_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"cannot be kept in .*file"):
        tiny.must().fit(IMAGES, folder=tmp_path / "file")


# -------------------------------------------------------------------------------------------------- foreign checkpoints


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def scramble(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(5000))


def rewrite(path: Path, change: Callable[[dict, dict], object]) -> None:
    """A checkpoint with something changed and a digest that is right."""
    settings, tensors = _saved.read_saved(path, checkpoint.KIND, "")
    change(settings, tensors)
    _saved.write_saved(path, checkpoint.KIND, settings, tensors)


def lose_a_tensor(path: Path) -> None:
    rewrite(path, lambda settings, tensors: tensors.pop("student/head.weight"))


def lose_the_sums(path: Path) -> None:
    rewrite(path, lambda settings, tensors: tensors.pop("labels"))


def change_a_shape(path: Path) -> None:
    rewrite(path, lambda settings, tensors: tensors.update({"teacher/head.weight": torch.zeros(2, 2)}))


def lose_the_step(path: Path) -> None:
    rewrite(path, lambda settings, tensors: settings.pop("step"))


def count_in_words(path: Path) -> None:
    rewrite(path, lambda settings, tensors: settings.update(step="three"))


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        empty,
        scramble,
        flip_a_bit,
        lose_a_tensor,
        lose_the_sums,
        change_a_shape,
        lose_the_step,
        count_in_words,
    ],
)
def test_a_damaged_checkpoint_is_refused(damage: Callable[[Path], None], tmp_path: Path) -> None:
    tiny.must(epochs=1).fit(IMAGES, folder=tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    damage(path)
    before = path.read_bytes()
    with pytest.raises(
        CheckpointError, match=r"(?s)checkpoint.safetensors (cannot be read|is damaged).*Delete it to begin anew"
    ):
        tiny.must(epochs=1).fit(IMAGES, folder=tmp_path)
    assert path.read_bytes() == before


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "checkpoint.safetensors")
    with pytest.raises(CheckpointError, match=r"holds no saved checkpoint of MUST.*Choose another"):
        tiny.must().fit(IMAGES, folder=tmp_path)


def test_a_run_with_other_settings_is_refused_and_they_are_named(tmp_path: Path) -> None:
    tiny.must(epochs=1).fit(IMAGES, folder=tmp_path)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()

    def refused(must: MUST, images: ImageDataset = IMAGES, start: np.ndarray | None = None) -> str:
        with pytest.raises(CheckpointError, match="belongs to a run with other settings") as caught:
            must.fit(images, initial_labels=start, folder=tmp_path)
        assert "Choose another folder" in str(caught.value)
        return str(caught.value)

    said = refused(tiny.must(epochs=2, lr=0.5))
    assert "epochs (there 1, now 2)" in said
    assert "lr (there 0.001, now 0.5)" in said
    assert "batch_size" not in said
    assert "random_state (there 0, now 3)" in refused(tiny.must(epochs=1).set_params(random_state=3))
    assert "classes" in refused(tiny.must(epochs=1).set_params(prompts=Prompts.from_words(["a", "b", "c"])))
    more = [*tiny.WORDS, "one_that_is_new"]
    assert 'now ["one_that_is_new"]' in refused(tiny.must(epochs=1).set_params(prompts=Prompts.from_words(more)))
    assert "prompts" in refused(tiny.must(epochs=1).set_params(prompts=Prompts.from_words(tiny.WORDS, ["one {}"])))
    assert "images" in refused(tiny.must(epochs=1), images=tiny.images(seed=1))
    assert 'initial_labels (there "zero-shot", now "given, ' in refused(tiny.must(epochs=1), start=IMAGES.labels)
    other = dataclasses.replace(tiny.backbone(), fingerprint="0" * 64)
    assert "backbone" in refused(tiny.must(other, epochs=1))
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before


def test_other_images_under_the_same_names_are_refused(tmp_path: Path) -> None:
    from PIL import Image

    def folder(name: str, seed: int, names: str) -> ImageDataset:
        (tmp_path / name).mkdir()
        for image, stem in zip(tiny.images(seed=seed).array, names, strict=False):
            Image.fromarray(image).save(tmp_path / name / f"{stem}.bmp")
            os.utime(tmp_path / name / f"{stem}.bmp", (10**9, 10**9))
        return ImageDataset(np.full(9, -1), [], files=sorted((tmp_path / name).iterdir()))

    ours = folder("ours", 0, "abcdefghi")
    tiny.must(epochs=1).fit(ours, folder=tmp_path / "run")
    for theirs in (folder("pixels", 1, "abcdefghi"), folder("names", 0, "defghijkl")):
        with pytest.raises(CheckpointError, match="images"):
            tiny.must(epochs=1).fit(theirs, folder=tmp_path / "run")
    (tmp_path / "ours").rename(tmp_path / "moved")  # but they are the same wherever they lie
    moved = ImageDataset(np.zeros(9, int), [], files=sorted((tmp_path / "moved").iterdir()))
    tiny.must(epochs=1).fit(moved, folder=tmp_path / "run", on_log=lambda records: crash())


def test_two_fits_at_once_cannot_share_a_folder(tmp_path: Path, every_step: None) -> None:
    def another(records: list[dict[str, float]]) -> None:
        with pytest.raises(CheckpointError, match=r"another fit is writing to .* at this moment"):
            tiny.must(epochs=1).set_params(random_state=1).fit(IMAGES, folder=tmp_path)

    must = tiny.must(epochs=1).fit(IMAGES, folder=tmp_path, on_log=another)
    assert_same_fit(must, tiny.must(epochs=1).fit(IMAGES, folder=tmp_path))  # and afterwards it is free


@pytest.mark.parametrize("line", ["3", "null", "[]", '{"loss": 1}', '{"step": 1, "lo', "\x00\x00", '{"step": "x"}'])
def test_lines_of_metrics_that_are_no_records_are_passed_over(line: str, tmp_path: Path, every_step: None) -> None:
    with pytest.raises(Stop):
        tiny.must().fit(IMAGES, folder=tmp_path, on_log=at_step(4, crash))
    with (tmp_path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
    tiny.must().fit(IMAGES, folder=tmp_path)
    assert [record["step"] for record in lines(tmp_path)] == [1, 2, 3, 4, 5, 6]


def test_metrics_that_were_cut_off_are_mended(tmp_path: Path, every_step: None) -> None:
    with pytest.raises(Stop):
        tiny.must().fit(IMAGES, folder=tmp_path, on_log=at_step(4, crash))
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text("utf-8")[:-20], "utf-8")
    tiny.must().fit(IMAGES, folder=tmp_path)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4, 5, 6]


# -------------------------------------------------------------------------------------------------------- save and load


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "must.safetensors"
    must = MUST(
        tiny.NAME, Prompts.from_words(tiny.WORDS), tiny.config(alignment_weight=0.0), random_state=4, device="cpu"
    )
    must.fit(IMAGES).save(path)
    loaded = MUST.load(path, device="cpu")
    np.testing.assert_array_equal(loaded.predict_proba(IMAGES), must.predict_proba(IMAGES))
    assert_same_fit(must, loaded)
    assert loaded.classes_.tolist() == must.classes_.tolist()
    assert (loaded.config, loaded.random_state, loaded.backbone) == (must.config, 4, tiny.NAME)
    assert loaded.prompts.texts(1) == must.prompts.texts(1)
    assert [file.name for file in tmp_path.glob("*safetensors*")] == ["must.safetensors"]
    assert_same_fit(loaded.fit(IMAGES), must)  # and it can be fitted again


def test_a_backbone_at_another_size_is_loaded_at_that_size(tmp_path: Path) -> None:
    model = load_backbone(tiny.NAME, image_size=24, device="cpu")
    must = tiny.must(model).fit(IMAGES)
    must.save(tmp_path / "must.safetensors")
    loaded = MUST.load(tmp_path / "must.safetensors", device="cpu")
    np.testing.assert_array_equal(loaded.predict_proba(IMAGES), must.predict_proba(IMAGES))


def test_a_backbone_that_its_name_does_not_give_is_refused(tmp_path: Path) -> None:
    """Such as one with a geometry of its own: loaded by name it would see other pixels, and predict others."""
    model = load_backbone(tiny.NAME, geometry=Geometry(resize=20, crop=16), device="cpu")
    must = tiny.must(model, epochs=1).fit(IMAGES)
    must.save(tmp_path / "must.safetensors")
    with pytest.raises(CheckpointError, match=r"with other weights or another geometry.*backbone=…"):
        MUST.load(tmp_path / "must.safetensors", device="cpu")
    loaded = MUST.load(tmp_path / "must.safetensors", backbone=model, device="cpu")
    np.testing.assert_array_equal(loaded.predict_proba(IMAGES), must.predict_proba(IMAGES))


def test_loading_leaves_the_global_random_state_alone(tmp_path: Path) -> None:
    tiny.must(epochs=1).fit(IMAGES).save(tmp_path / "must.safetensors")
    load_backbone(tiny.NAME, device="cpu")
    torch.manual_seed(0)
    load_backbone(tiny.NAME, device="cpu")
    before = torch.get_rng_state()
    torch.manual_seed(0)
    MUST.load(tmp_path / "must.safetensors", device="cpu")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_file_that_is_no_saved_must_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "must.safetensors"
    with pytest.raises(CheckpointError, match=r"must.safetensors cannot be read .*Fit and save it again"):
        MUST.load(path)
    tiny.must(epochs=1).fit(IMAGES, folder=tmp_path).save(path)
    with pytest.raises(CheckpointError, match="holds no saved MUST"):
        MUST.load(tmp_path / "checkpoint.safetensors")
    truncate(path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        MUST.load(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="holds no saved MUST"):
        MUST.load(path)


def test_an_interrupted_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "must.safetensors"
    must = tiny.must(epochs=1).fit(IMAGES)
    must.save(path)
    before = path.read_bytes()

    def fail(tensors: dict, temporary: Path, texts: dict) -> None:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(_saved, "save_file", fail)
    with pytest.raises(KeyboardInterrupt):
        must.save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.glob("*safetensors*")] == ["must.safetensors"]


@pytest.mark.parametrize("folder", ["", 3, "\0", b"x\0", [], 2.5])
def test_a_folder_that_is_no_path_is_refused(folder: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"folder is .* Expected the path of a folder"):
        tiny.must(epochs=1).fit(IMAGES, folder=folder)  # type: ignore[arg-type]
    assert list(tmp_path.glob("*.*")) == []


@pytest.mark.parametrize("path", [None, 3, "", "\0", []])
def test_a_model_is_saved_only_under_a_path(path: object) -> None:
    must = tiny.must(epochs=1).fit(IMAGES)
    with pytest.raises(CheckpointError, match="cannot be written"):
        must.save(path)  # type: ignore[arg-type]


def test_other_odd_arguments_are_refused() -> None:
    masked = np.ma.MaskedArray(IMAGES.labels, mask=IMAGES.labels == 0)
    with pytest.raises(FitError, match="initial_labels has masked entries"):
        tiny.must(epochs=1).fit(IMAGES, initial_labels=masked)
    with pytest.raises(FitError, match="on_log is 3"):
        tiny.must(epochs=1).fit(IMAGES, on_log=3)  # type: ignore[arg-type]
    for augment in ("rand-tfoo", "rand-m-n", "rand m9", "", "original"):
        with pytest.raises(FitError, match="augment is"):
            tiny.must(epochs=1, augment=augment).fit(IMAGES)
    with pytest.raises(FitError, match="candidates is"):
        compare([tiny.must()], IMAGES)  # type: ignore[arg-type]
    assert same_models(*(tiny.must(epochs=1).set_params(random_state=s).fit(IMAGES) for s in (3, np.int64(3))))


def test_a_file_of_metrics_that_is_not_ours_stays(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("mine\n", "utf-8")
    with pytest.raises(CheckpointError, match="is no file of metrics"):
        tiny.must(epochs=1).fit(IMAGES, folder=tmp_path)
    assert (tmp_path / "metrics.jsonl").read_text("utf-8") == "mine\n"
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "lo', "utf-8")  # of a run that was killed in its first line
    tiny.must(epochs=1).fit(IMAGES, folder=tmp_path)
