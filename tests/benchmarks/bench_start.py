"""How soon labkit answers, each in a process of its own: `import labkit`, `labkit --help`; and reading kept features
against reading the same bytes from the disk with NumPy.

Seconds are those of the whole process, with the start of Python in them. Features are read once from the disk (their
pages are dropped from the system's memory before, where the system allows it) and once from memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from measure import Result, arguments, finish, medians, ratio, seconds, side_by_side

HEAVY = ("torch", "sklearn", "scipy", "pandas", "matplotlib", "numpy", "PIL", "open_clip", "timm", "pydantic")


def run(*arguments_of_python: str) -> str:
    """What a fresh Python prints."""
    command = [sys.executable, *arguments_of_python]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def bench_start(rounds: int) -> list[Result]:
    help_of_labkit = ("-c", "from labkit.cli import main; main(['--help'])")
    for first in (("-c", "import labkit"), help_of_labkit):  # compiles, and brings files into memory
        run(*first)
    times = side_by_side(
        rounds,
        python=lambda: run("-c", "pass"),
        imported=lambda: run("-c", "import labkit"),
        helped=lambda: run(*help_of_labkit),
    )
    middle = medians(times)
    results = [
        Result("start: seconds of `import labkit`", middle["imported"], 0.3, "at most", {"seconds": middle}),
        Result("start: seconds of `labkit --help`", middle["helped"], 0.5, "at most", {"seconds": middle}),
    ]
    for module in ("labkit", "labkit.cli"):
        code = f"import sys, json, {module}; print(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
        loaded = json.loads(run("-c", code))
        name = f"start: heavy modules that `import {module}` loads"
        results.append(Result(name, len(loaded), 0, "at most", {"loaded": loaded}))
    return results


def forget(path: Path) -> bool:
    """Drop a file's pages from the system's memory; False where that cannot be asked for."""
    if not hasattr(os, "posix_fadvise"):
        return False
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)
    return True


def bench_cache(rounds: int, rows: int, folder: Path) -> list[Result]:
    from labkit.spaces.cache import read_features, write_features

    features = np.random.default_rng(0).standard_normal((rows, 1280), dtype=np.float32)
    kept, plain = folder / "features.safetensors", folder / "features.npy"
    key = {"rows": rows, "width": 1280, "dtype": "float32"}
    write_features(kept, features, key)
    np.save(plain, features)
    size = features.nbytes
    del features
    results = []
    for place in ("disk", "memory"):
        times: dict[str, list[float]] = {"labkit": [], "numpy": []}
        dropped = True
        for i in range(rounds):
            for name in ("labkit", "numpy") if i % 2 == 0 else ("numpy", "labkit"):
                path = kept if name == "labkit" else plain
                if place == "disk":
                    dropped = forget(path)
                else:
                    path.read_bytes()
                times[name].append(
                    seconds(lambda ours=name == "labkit": read_features(kept, key) if ours else np.load(plain))
                )
        details = {"seconds": medians(times), "bytes": size, "pages dropped": dropped if place == "disk" else False}
        results.append(
            Result(f"cache: read from {place} / numpy", ratio(times["labkit"], times["numpy"]), details=details)
        )
    return results


def main() -> None:
    given = arguments(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        cache = bench_cache(given.rounds, 100 if given.quick else 50_000, Path(folder))
    finish("start", bench_start(given.rounds) + cache, given)


if __name__ == "__main__":
    main()
