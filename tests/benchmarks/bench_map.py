"""The map: how long positions and page of n images take, how large the page is, and how many frames a second it draws
in Chromium without a graphics card while it is dragged and zoomed.

Positions are measured in processes of their own, for UMAP compiles itself in each: "first" is with that, as a run of
`labkit cluster` has it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from measure import ROOT, Result, arguments, finish, medians, side_by_side

sys.path.insert(0, str(ROOT))  # the made-up clusters and the driver of the browser are those of the tests
from labkit.own.map_page import map_page
from tests.browser.maps import BROWSER, frames_a_second, opened
from tests.unit.own.fake_clusters import fake_large

LAYOUT = """
import importlib.util, sys, time
import numpy as np
method, n, d = sys.argv[1], int(sys.argv[2]), 1280
find = importlib.util.find_spec
if method == "t-SNE":
    importlib.util.find_spec = lambda name, *rest: None if name == "umap" else find(name, *rest)
from labkit.own.layout import layout, layout_method
assert layout_method(n) == method
rng = np.random.default_rng(0)
x = rng.normal(size=(n, d)).astype(np.float32)
x += 2 * rng.normal(size=(20, d)).astype(np.float32)[rng.integers(20, size=n)]
start = time.perf_counter()
layout([x], 0)
print(time.perf_counter() - start)
"""


def bench_layout(n: int, limit: float | None) -> list[Result]:
    results = []
    for method in ("UMAP", "t-SNE"):
        command = [sys.executable, "-c", LAYOUT, method, str(n)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        if done.returncode and method == "UMAP":
            continue  # umap-learn is not installed
        done.check_returncode()
        name = f"map: seconds for the positions of {n:,} images, first {method}"
        results.append(Result(name, float(done.stdout), limit, "at most"))
    return results


def bench_page(n: int, rounds: int, limit: float | None) -> list[Result]:
    clustering, thumbnails, positions = fake_large(Path("photos"), n, 40)
    pages = []
    times = side_by_side(rounds, page=lambda: pages.append(map_page(clustering, thumbnails, positions, Path("out"))))
    results = [
        Result(f"map: seconds for the page of {n:,} images", medians(times)["page"], limit, "at most"),
        Result(f"map: megabytes of the page of {n:,} images", len(pages[0]) / 1e6, 30, "at most"),
    ]
    if BROWSER is not None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "map.html"
            path.write_bytes(pages[0])
            with opened(path) as page:
                rates = [frames_a_second(page, 6) for _ in range(rounds)]
        rate = {part: sorted(each[part] for each in rates)[len(rates) // 2] for part in rates[0]}
        name = f"map: frames a second of {n:,} images that move"
        results.append(Result(name, rate["all"], 30 if limit else None, "at least", rate))
    return results


def main() -> None:
    given = arguments(__doc__)
    n = 300 if given.quick else 20_000
    results = bench_page(n, given.rounds, None if given.quick else 60)
    results += bench_layout(n, None if given.quick else 300)
    finish("map", results, given)


if __name__ == "__main__":
    main()
