"""What the benchmarks share: rounds side by side, medians, results with their limits, and the JSON they are kept in.

Every result is a ratio of two things measured in the same run (or seconds, where a limit is in seconds), so that
another machine, or one whose speed drifts, says much the same.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "runs" / "bench"
REAL = Path(os.environ.get("LABKIT_REAL") or ROOT.parent / "shared" / "real")  # features of photographs, if any


@dataclasses.dataclass
class Result:
    """One number and what is wanted of it.

    Attributes:
        name: what was measured.
        ratio: the number; seconds or a difference where the name says so.
        limit: what it is held against; None where it is only shown.
        want: "at least" or "at most" the limit.
        details: everything that the ratio was made of.
    """

    name: str
    ratio: float
    limit: float | None = None
    want: str = "at least"
    details: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def ok(self) -> bool | None:
        """Whether the limit is kept; None where there is none."""
        if self.limit is None:
            return None
        return self.ratio >= self.limit if self.want == "at least" else self.ratio <= self.limit

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**dataclasses.asdict(self), "ok": self.ok}


def arguments(doc: str | None, extend: Callable[[argparse.ArgumentParser], None] | None = None) -> argparse.Namespace:
    """The options of every benchmark, and its own."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs, the numbers mean nothing")
    parser.add_argument("--rounds", type=int, help="of which medians are taken (default: 5; with --quick 1)")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the JSON (default: runs/bench)")
    if extend is not None:
        extend(parser)
    given = parser.parse_args()
    given.rounds = given.rounds or (1 if given.quick else 5)
    return given


def seconds(function: Callable[[], Any]) -> float:
    """How long a call takes, with all that it leaves to a GPU."""
    _wait_for_gpu()
    start = time.perf_counter()
    function()
    _wait_for_gpu()
    return time.perf_counter() - start


def _wait_for_gpu() -> None:
    torch = sys.modules.get("torch")  # a benchmark of the start does not load it
    if torch is not None and torch.cuda.is_available():
        torch.cuda.synchronize()
    elif torch is not None and torch.backends.mps.is_available():
        torch.mps.synchronize()


def side_by_side(rounds: int, **functions: Callable[[], Any]) -> dict[str, list[float]]:
    """Seconds of each function in each round; by turns forwards and backwards, so that a drift favors none."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for i in range(rounds):
        for name in list(functions)[:: 1 if i % 2 == 0 else -1]:
            times[name].append(seconds(functions[name]))
    return times


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Median over rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def medians(times: dict[str, list[float]], scale: float = 1.0) -> dict[str, float]:
    """Median seconds of each, times `scale`."""
    return {name: statistics.median(values) * scale for name, values in times.items()}


def made_up_features(rows: int, width: int, dtype: str) -> Any:
    """Ten blobs: a NumPy array, or a tensor where NumPy has no such dtype; nothing larger is made on the way."""
    import numpy as np
    import torch

    features = torch.empty(rows, width, dtype=getattr(torch, dtype))
    rng = np.random.default_rng(0)
    for start in range(0, rows, 1000):
        block = features[start : start + 1000]
        centers = 3 * np.eye(10, width)[rng.integers(10, size=len(block))]
        block.copy_(torch.from_numpy(centers + rng.normal(size=block.shape)))
    return features if dtype == "bfloat16" else features.numpy()


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    import torch

    from labkit.devices import cpu_count, cpu_has_bf16

    return {
        "cores": cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "architecture": platform.machine(),
        "bfloat16": cpu_has_bf16(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def finish(script: str, results: Sequence[Result], given: argparse.Namespace) -> None:
    """Print the table and write OUT/script.json."""
    print(table([result.as_dict() for result in results]))
    given.out.mkdir(parents=True, exist_ok=True)
    report = {
        "script": script,
        "quick": given.quick,
        "rounds": given.rounds,
        "machine": machine(),
        "results": [result.as_dict() for result in results],
    }
    (given.out / f"{script}.json").write_text(json.dumps(report, indent=1, default=float) + "\n", "utf-8")


def table(results: Sequence[dict[str, Any]]) -> str:
    """Name, ratio, limit and verdict, a line each."""
    width = max([len(result["name"]) for result in results], default=0)
    lines = []
    for result in results:
        verdict = {True: "ok", False: "MISSED", None: ""}[result["ok"]]
        wanted = "" if result["limit"] is None else f"{result['want']} {result['limit']:g}"
        lines.append(f"{result['name']:<{width}}  {_short(result['ratio']):>9}  {wanted:<14} {verdict}".rstrip())
    return "\n".join(lines)


def _short(value: float) -> str:
    return f"{value:.2e}" if value and abs(math.log10(abs(value))) > 4 else f"{value:.3f}"
