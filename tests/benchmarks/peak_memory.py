"""One fit on made-up features in a process of its own: python tests/benchmarks/peak_memory.py ROWS WIDTH DTYPE [STEPS]

Prints a line of JSON: bytes of the features as they are given to `fit`, and how far the resident memory went, while
they were made and fitted, above what it was before. A small fit before that loads all libraries and starts all threads.
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
import warnings
from pathlib import Path

import torch
from measure import made_up_features

import labkit as lk

PROC = Path("/proc/self")  # Linux; elsewhere only the largest memory since the start is known


def resident() -> dict[str, int]:
    """Bytes of resident memory "now" and at the "peak"."""
    if (PROC / "status").exists():
        lines = dict(line.split(":", 1) for line in (PROC / "status").read_text().splitlines())
        return {name: int(lines[key].split()[0]) * 1024 for name, key in (("now", "VmRSS"), ("peak", "VmHWM"))}
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"now": peak, "peak": peak}


def main() -> None:
    rows, width, dtype = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    steps = int(sys.argv[4]) if len(sys.argv) > 4 else 20
    warnings.simplefilter("ignore")
    turtle = lk.Turtle(10, n_outer_steps=steps, random_state=0)
    turtle.fit(made_up_features(4000, 64, dtype))
    with contextlib.suppress(OSError):
        (PROC / "clear_refs").write_text("5")  # the peak begins anew
    before = resident()["now"]
    features = made_up_features(rows, width, dtype)
    made = resident()["peak"]
    turtle.fit(features)
    size = rows * width * getattr(torch, dtype).itemsize
    print(json.dumps({"features": size, "growth": resident()["peak"] - before, "making them": made - before}))


if __name__ == "__main__":
    main()
