"""Tests and quick benchmarks on a GPU, into one JSON: python tests/benchmarks/gpu.py [--quick] [--out runs/gpu.json]

`make gpu` runs this. It takes some minutes on a card with 15 GB or more. Every part runs in a process of its own; one
that fails, or takes too long, is recorded with its error, and the others go on. Exit code 0: all parts ran and all
tests passed; 1: not so; 2: there is no such device.

tests      those marked `gpu`: passed, failed, skipped, and the names of what failed
turtle     seconds of a default fit on the GPU and on the CPU; outer steps a second of the published settings in
           float32 and bfloat16
must       images a second in training steps of a ViT-B/16 at 224 pixels, in float16 and bfloat16, in one batch and in
           micro-batches, and the most memory that they took
features   images a second of a feature extraction on the GPU and on the CPU, and of the bare forward pass
--device cpu --quick runs all of it on the CPU with tiny sizes: it shows that the code runs, the numbers mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measure import ROOT, machine, made_up_features, seconds

PATIENCE = 900  # seconds for one part


# --------------------------------------------------------------------------------------------------------------- parts


def run_tests(given: argparse.Namespace) -> dict[str, Any]:
    """Counts of the tests marked `gpu`; with --quick only those of their own folder are collected."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "tests.xml"
        where = "tests/gpu" if given.quick else "tests"
        command = [sys.executable, "-m", "pytest", where, "-m", "gpu", "-q", "-p", "no:cacheprovider"]
        environment = os.environ | {"LABKIT_GPU_TESTS": given.device}
        done = subprocess.run(
            [*command, f"--junitxml={report}"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        if not report.exists():
            raise RuntimeError(f"pytest ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
        cases = list(ET.parse(report).iter("testcase"))
    outcomes = {kind: [_name(case) for case in cases if case.find(kind) is not None] for kind in KINDS}
    failed = outcomes["failure"] + outcomes["error"]
    counts = {"passed": len(cases) - len(failed) - len(outcomes["skipped"]), "failed": len(failed)}
    counts |= {"skipped": len(outcomes["skipped"])}
    return {**counts, "names of the failed": failed, "end of the output": done.stdout[-4000:] if failed else ""}


KINDS = ("failure", "error", "skipped")


def _name(case: ET.Element) -> str:
    return f"{case.get('classname')}.{case.get('name')}"


def bench_turtle(given: argparse.Namespace) -> dict[str, Any]:
    from bench_turtle import collapse_allowed, published_solver

    import labkit as lk

    rows, widths, steps = (200, (16, 12), 2) if given.quick else (10_000, (768, 1536), 50)
    spaces = [made_up_features(rows, width, "float32") for width in widths]

    def fit(device: str) -> None:
        with collapse_allowed():
            lk.Turtle(10, device=device, random_state=0, n_outer_steps=5 if given.quick else 250).fit(spaces)

    numbers: dict[str, Any] = {}
    for device in dict.fromkeys((given.device, "cpu")):
        fit(device)  # loads libraries and kernels
        numbers[f"default fit on {device}, seconds"] = seconds(lambda device=device: fit(device))
    for dtype in (torch.float32, torch.bfloat16):
        tensors = [torch.from_numpy(space).to(given.device, dtype) for space in spaces]
        solver = published_solver(tensors, 10)
        name = f"published settings in {str(dtype).removeprefix('torch.')}, outer steps a second"
        numbers[name] = _per_second(solver.step, steps)
    return {**numbers, "shapes": f"{rows} x {' + '.join(map(str, widths))}, 10 clusters"}


def bench_must(given: argparse.Namespace) -> dict[str, Any]:
    import open_clip
    from bench_must import CLASSES, EMBED_DIM, SMALL, TEXT

    from labkit.must import MaskedClassifier, MustConfig, Trainer, new_state

    vision = SMALL if given.quick else {"image_size": 224, "patch_size": 16, "width": 768, "layers": 12}
    batch, steps = (4, 1) if given.quick else (64, 10)
    side = vision["image_size"]
    weak, strong = (torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8) for _ in range(2))
    weak, strong = weak.to(given.device), strong.to(given.device)

    def images_a_second(dtype: torch.dtype, accumulate: int) -> dict[str, float]:
        tower = open_clip.CLIP(EMBED_DIM, vision, TEXT).visual.to(given.device)
        config = MustConfig(batch_size=batch, accumulate=accumulate, mask_block=vision["patch_size"])
        head = torch.randn(CLASSES, EMBED_DIM, device=given.device)
        state = new_state(MaskedClassifier(tower, head, 30.0), config)
        trainer = Trainer(state, config, (0.5,) * 3, (0.25,) * 3, steps_per_epoch=10_000, dtype=dtype)
        if given.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        found = {"images a second": batch * _per_second(lambda: trainer.step(weak, strong), steps)}
        if given.device == "cuda":
            found["GiB at most"] = torch.cuda.max_memory_allocated() / 2**30
        return found

    numbers: dict[str, Any] = {"tower": vision, "batch": batch}
    for dtype in (torch.float16, torch.bfloat16):
        for accumulate in (1, 4):
            name = f"{str(dtype).removeprefix('torch.')}, {accumulate} micro-batch{'es' if accumulate > 1 else ''}"
            numbers[name] = _or_error(lambda dtype=dtype, accumulate=accumulate: images_a_second(dtype, accumulate))
    return numbers


def bench_features(given: argparse.Namespace) -> dict[str, Any]:
    import numpy as np

    import labkit as lk
    from labkit.spaces.features import encode_images

    dataset = lk.load_dataset("fashion-mini", "test")
    if given.quick:
        dataset = dataset.subset(range(10))
    numbers: dict[str, Any] = {"images": len(dataset), "backbone": "efficientnet-lite0 at 96 px"}
    for device in dict.fromkeys((given.device, "cpu")):
        backbone = lk.load_backbone("efficientnet-lite0", image_size=96, device=device)
        images = np.stack([backbone.preprocess(image) for image, _ in dataset])
        batches = torch.from_numpy(np.broadcast_to(images, (*images.shape[:3], len(backbone.mean))).copy()).split(256)
        ways = {
            "extraction": lambda b=backbone: encode_images(b, dataset, batch_size=256),
            "bare forward pass": lambda b=backbone, batches=batches: [b.encode_image(batch).cpu() for batch in batches],
        }
        for name, way in ways.items():
            numbers[f"{name} on {device}, images a second"] = len(dataset) * _per_second(way, 1)
    return numbers


def _per_second(function: Callable[[], Any], times: int) -> float:
    """Calls a second, after one that is not counted."""
    function()
    return times / seconds(lambda: [function() for _ in range(times)])


def _or_error(function: Callable[[], Any]) -> Any:
    """What a function returns, or {"error": text}: a dtype that the card does not know costs no other number."""
    try:
        return function()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


PARTS = {"tests": run_tests, "turtle": bench_turtle, "must": bench_must, "features": bench_features}


# ---------------------------------------------------------------------------------------------------------------- main


def describe(device: str) -> dict[str, Any]:
    """Name, capability and memory of the device, and what runs on it."""
    found: dict[str, Any] = {"type": device, "name": device, **machine()}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {"name": properties.name, "capability": f"{properties.major}.{properties.minor}"}
        found |= {"GiB": round(properties.total_memory / 2**30, 1), "CUDA": torch.version.cuda}
    return found


def run_part(name: str, given: argparse.Namespace) -> Any:
    """One part in its own process: what it measured, or {"error": the end of what it said}."""
    command = [sys.executable, __file__, "--part", name, "--device", given.device, "--out", str(given.out)]
    command += ["--quick"] if given.quick else []
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {PATIENCE} seconds"}
    if done.returncode:
        return {"error": done.stderr.strip()[-4000:] or f"ended with {done.returncode}"}
    return json.loads(done.stdout.splitlines()[-1])


def errors_in(measured: Any) -> list[str]:
    """All error texts in what was measured."""
    if not isinstance(measured, dict):
        return []
    own = [measured["error"]] if "error" in measured else []
    return own + [text for value in measured.values() for text in errors_in(value)]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs, the numbers mean nothing")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "runs" / "gpu.json", help="the JSON (default: runs/gpu.json)"
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts (default: all)")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)  # what its own processes are started with
    return parser.parse_args()


def main() -> int:
    given = arguments()
    if given.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device here: nothing was run (--device cpu --quick shows that the code runs)", file=sys.stderr)
        return 2
    if given.part:
        print(json.dumps(PARTS[given.part](given), default=float))
        return 0
    report: dict[str, Any] = {"device": describe(given.device), "quick": given.quick}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    for name in given.only:
        print(f"{name} …", file=sys.stderr, flush=True)
        report[name] = run_part(name, given)
        given.out.write_text(json.dumps(report, indent=1) + "\n", "utf-8")  # so far; a crash costs no other part
    print(json.dumps(report, indent=1))
    failed = report.get("tests", {}).get("failed", 0)
    for text in errors_in(report):
        print(f"failed: {text.splitlines()[-1]}", file=sys.stderr)
    return 1 if failed or errors_in(report) else 0


if __name__ == "__main__":
    sys.exit(main())
