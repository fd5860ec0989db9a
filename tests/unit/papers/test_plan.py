"""The plan: its sums against sums by hand, what is left to do, and nothing that is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from labkit.data import presence as presences
from labkit.errors import DataError
from labkit.papers import job as jobs
from labkit.papers import plan as module
from labkit.papers.job import extract_for
from labkit.papers.plan import Plan, Work, make_plan
from labkit.papers.protocol import SCALES, pick_scale
from labkit.papers.reproduce import reproduce
from labkit.papers.throughput import NETWORKS, Rates, measure
from labkit.spaces.papers import SPACES
from tests import tiny
from tests.hub import put_into_cache
from tests.unit.papers import small

RATES = Rates(
    "a device",
    {"pixels": 0.5, "hog": 0.25, tiny.NAME: 2.0, "clip-vit-l14": 0.01, "dinov2-vit-g14": 0.04, "clip-vit-b16": 0.002},
    frozenset(),
    turtle=(1e-3, 2e-3),
    k_means=1e-2,
    probe=3e-2,
)


@pytest.fixture(autouse=True)
def fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "measure", lambda paper, scale, backbones: RATES)


def test_turtle_takes_the_sum_of_its_parts(datasets: Path, tmp_path: Path) -> None:
    plan = make_plan("turtle", tmp_path / "out", datasets=["colors", "shades"])
    for work in plan.work:
        # 60 train and 24 test images of 3 classes through two networks; test alone through the image-text model
        features = 84 * 0.5 + 84 * 0.25 + 24 * 2.0
        # 4 fits of 15 steps on batches of all 60; K-means and the probe
        fits = 4 * 15 * 60 * (1e-3 + 3 * 2e-3) + 60 * 3 * (1e-2 + 3e-2)
        assert work.images == 84
        assert work.feature_hours == pytest.approx(features / 3600)
        assert work.fit_hours == pytest.approx(fits / 3600)
        assert work.disk_gb == pytest.approx((84 * (784 + 324) + 24 * 16) * 4 / 1e9)
    last = next(line for line in plan.lines() if line.startswith("all "))
    assert (2 * features, 2 * fits) == (222, pytest.approx(64.8))
    assert " ".join(last.split()) == "all nothing 168 4 min 1 min 1 MB"


@pytest.mark.parametrize(
    ("hours", "said"), [(0, "0"), (0.01, "< 1 min"), (0.5, "30 min"), (1.24, "1.2 h"), (17268.3, "17,268.3 h")]
)
def test_a_time_is_said_in_its_own_unit(hours: float, said: str) -> None:
    plan = Plan(
        "turtle", pick_scale("pocket"), [Work("dtd", "here", "", fit_hours=hours)], Rates("cpu", {}, frozenset())
    )
    line = next(line for line in plan.lines() if line.startswith("dtd "))
    assert " ".join(line.split()) == f"dtd here nothing 0 0 {said} 0"


def test_features_in_shards_are_not_computed_again(datasets: Path, tmp_path: Path) -> None:
    def plan() -> Plan:
        return make_plan("turtle", tmp_path / "out", datasets=["colors"], features=tmp_path / "features")

    assert f"Features are kept in {tmp_path / 'features'}, which is new." in plan().lines()
    before = plan().work[0]
    extract_for("colors", pick_scale("pocket"), tmp_path / "features")
    assert f"Features are kept in {tmp_path / 'features'}." in plan().lines()
    after = plan().work[0]
    assert before.feature_hours > after.feature_hours == after.disk_gb == 0
    assert before.fit_hours == after.fit_hours > 0
    next((tmp_path / "features" / "colors" / "train-hog").glob("0*.safetensors")).unlink()
    assert plan().work[0].feature_hours == pytest.approx(60 * 0.25 / 3600)


def test_must_takes_the_sum_of_its_parts(datasets: Path, tmp_path: Path) -> None:
    [work] = make_plan("must", tmp_path / "out", datasets=["colors"]).work
    assert work.feature_hours == pytest.approx(24 * 2.0 / 3600)  # zero-shot
    assert work.fit_hours == pytest.approx((2 * 60 * 4 + 24) * 2.0 / 3600)  # two epochs of four passes, and the test
    assert work.disk_gb == pytest.approx(24 * 16 * 4 / 1e9 + 0.01)  # features of the test split, and a small model


def test_a_network_of_features_and_texts_is_run_once(datasets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the paper profile, whose image-text model is also a space."""
    dtd = module.load_manifest("colors")
    rows = module.pieces_of("turtle", dtd, SCALES["paper"])
    assert sorted(module.encoded(rows, dtd, None)) == [
        *(("clip-vit-l14", n) for n in (24, 60)),
        *(("dinov2-vit-g14", n) for n in (24, 60)),
    ]
    batch = 6000 * 60  # fewer rows than the paper's batch of 10,000
    assert module.fit_seconds(rows[-1], dtd, SCALES["paper"], RATES) == pytest.approx(18 * batch * (1e-3 + 3 * 2e-3))


def test_what_is_done_takes_nothing(datasets: Path, tmp_path: Path) -> None:
    reproduce("turtle", tmp_path / "out", datasets=["colors"])
    plan = make_plan("turtle", tmp_path / "out", datasets=["colors", "shades"])
    done, left = plan.work
    assert done.done
    assert not left.done
    assert (done.feature_hours, done.fit_hours, done.disk_gb, done.download_gb) == (0, 0, 0, 0)
    assert left.fit_hours > 0
    assert any(line.split()[:2] == ["colors", "done"] for line in plan.lines())
    assert not make_plan("must", tmp_path / "out", datasets=["colors"]).work[0].done


@pytest.mark.parametrize("kind", ["archive", "manual"])
def test_what_is_to_be_fetched(kind: str, datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def elsewhere(manifest: Any) -> presences.Presence:
        return presences.Presence("not here", "nothing was fetched")

    load = module.load_manifest

    def told(name: str) -> Any:
        manifest = load(name)
        source = manifest.source.model_copy(update={"kind": kind})
        gigabytes = 2.5 if name == "colors" else None
        return manifest.model_copy(update={"source": source, "download_gb": gigabytes})

    monkeypatch.setattr(module, "presence", elsewhere)
    monkeypatch.setattr(module, "load_manifest", told)
    plan = make_plan("turtle", tmp_path / "out", datasets=["colors", "shades"])
    assert plan.downloads == (kind == "archive")
    lines = plan.lines()
    cells = {line.split("  ")[0]: line for line in lines}
    if kind == "archive":
        assert "Downloaded, each when its turn comes: colors, shades." in lines
        assert " 2.5 GB " in cells["colors"]
        assert "not known" in cells["shades"]
        assert "2.5 GB and 1 not known" in cells["all"]
    else:
        assert "by hand" in cells["colors"]
        assert "colors: by hand, nothing was fetched; see labkit datasets show colors" in lines
        assert cells["all"].split()[1] == "nothing"


@pytest.mark.parametrize(("state", "told"), [("partly", True), ("here", False), ("bundled", False)])
def test_what_is_partly_here_is_told(
    state: Any, told: bool, datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = module.load_manifest

    def archive(name: str) -> Any:
        manifest = load(name)
        return manifest.model_copy(update={"source": manifest.source.model_copy(update={"kind": "archive"})})

    monkeypatch.setattr(module, "load_manifest", archive)
    monkeypatch.setattr(module, "presence", lambda manifest: presences.Presence(state, "a.zip is not here yet"))
    lines = make_plan("turtle", tmp_path / "out", datasets=["colors"]).lines()
    assert ("colors: a.zip is not here yet" in lines) == told
    assert not any(line.startswith("Downloaded") for line in lines)


def test_a_library_that_is_lacking_is_told_before_the_download(
    datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "missing_library", lambda manifest: "av" if manifest.id == "colors" else "")
    line = "To be installed first: pip install 'labkit[papers]' (av for colors)."
    assert line in make_plan("turtle", tmp_path / "out", datasets=["colors", "shades"]).lines()
    reproduce("turtle", tmp_path / "out", datasets=["colors"])
    assert line not in make_plan("turtle", tmp_path / "out", datasets=["colors"]).lines()  # it is done


def test_a_dataset_without_a_test_split_is_told(datasets: Path, tmp_path: Path) -> None:
    path = datasets / "manifests" / "colors.yaml"
    path.write_text(path.read_text("utf-8").replace("  test: {size: 24, how: invented}\n", ""), "utf-8")
    [work] = make_plan("turtle", tmp_path / "out", datasets=["colors"]).work
    assert work.state == "unusable"
    assert "Expected the splits train and test" in work.why


def test_a_dataset_that_must_has_no_settings_for_is_told(datasets: Path, tmp_path: Path) -> None:
    [work] = make_plan("must", tmp_path / "out", datasets=["colors"], profile="paper").work
    assert (work.state, work.done) == ("unusable", False)
    assert work.why == "MUST has no settings for it with clip-vit-b16 or clip-vit-l14"
    done = reproduce("must", tmp_path / "out", datasets=["colors"], profile="paper")
    assert "MUST has no settings for colors with clip-vit-b16" in done.failed["colors"]


def test_networks_from_the_hub_are_counted_and_not_loaded(
    datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str, **_: Any) -> None:
        raise AssertionError(f"{name} would be downloaded")

    monkeypatch.setattr(jobs, "load_backbone", refuse)
    rates = measure("turtle", SCALES["paper"], jobs.Backbones(SCALES["paper"]))
    assert rates.counted == {"clip-vit-l14", "dinov2-vit-g14"}
    assert rates.image["dinov2-vit-g14"] / rates.image["clip-vit-l14"] == pytest.approx(598.8 / 162.0)
    assert rates.turtle[1] > 0
    assert min(rates.k_means, rates.probe, rates.product) > 0
    assert rates.width == 768 + 1536
    plan = Plan("turtle", SCALES["paper"], [Work("dtd", "here", "")], rates)
    assert any("18 fits of 6,000 outer steps" in line for line in plan.lines())


def test_networks_are_fetched_where_the_hubs_cache_lacks_them(
    datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a job on a machine without network would have to agree to a download."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    rates = Rates("cpu", {"clip-vit-l14": 1.0, "dinov2-vit-g14": 1.0}, frozenset(SCALES["paper"].spaces), product=1.0)
    monkeypatch.setattr(module, "measure", lambda *_: rates)

    def plan() -> Plan:
        return make_plan("turtle", tmp_path / "out", datasets=["colors"], profile="paper")

    assert plan().weights_gb == pytest.approx(1.71 + 4.54)
    assert plan().downloads
    assert any("hub, once: clip-vit-l14, dinov2-vit-g14, 6.2 GB" in line for line in plan().lines())
    put_into_cache(tmp_path / "hub", SPACES["clip-vit-l14"].repo, "open_clip_model.safetensors", {"x": torch.zeros(1)})
    assert plan().networks == ["dinov2-vit-g14"]
    put_into_cache(tmp_path / "hub", "timm/vit_giant_patch14_dinov2.lvd142m", "model.safetensors", {"x": torch.ones(1)})
    assert not plan().downloads
    assert not any("hub" in line for line in plan().lines())


def test_bundled_networks_are_run(datasets: Path) -> None:
    rates = measure("must", small.SCALE, jobs.Backbones(small.SCALE))
    assert rates.counted == frozenset()
    assert set(rates.image) == {tiny.NAME}
    assert min(rates.image.values()) > 0


def test_all_networks_of_the_profiles_are_known() -> None:
    bundled = {"efficientnet-lite0", "efficientnet-lite2", "pixels", "pocket-clip", "pocket-vit"}
    for scale in SCALES.values():
        assert {*scale.spaces, scale.image_text, *scale.students} <= {*bundled, *NETWORKS}


def test_bad_input_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Expected one of pocket"):
        make_plan("turtle", tmp_path, profile="huge")
