"""One fit on features that stay on disk, in a process of its own.

    python tests/benchmarks/scale_fit.py METHOD ROWS FILE...

METHOD is "turtle" (the defaults), "official" (the published settings, of which STEPS steps are taken, each from disk),
"kmeans" (normalized) or "probe" (LinearProbe, with the classes that the features were made of); a FILE is a .npy of
half-precision rows, of which the first ROWS are taken. Prints a line of JSON: seconds of the fit by the clock, and of
the processor; bytes of resident memory before it and at its peak, with the pages of mapped files; and the share of
samples in the largest cluster.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
import warnings
from typing import Any

import numpy as np
from bench_scale import classes
from measure import made_up_features
from peak_memory import PROC, resident

import labkit as lk
from labkit.evaluation.baselines import KMeans, LinearProbe
from labkit.turtle import streaming

CLUSTERS, STEPS = 10, 20


def main() -> None:
    method, rows, files = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    warnings.simplefilter("ignore")
    models: dict[str, Any] = {
        "turtle": lk.Turtle(CLUSTERS, dtype="float32", random_state=0),
        "official": lk.Turtle.official(CLUSTERS, n_outer_steps=STEPS),
        "kmeans": KMeans(CLUSTERS, normalize=True, random_state=0),
        "probe": LinearProbe(),
    }
    lk.Turtle(CLUSTERS, n_outer_steps=2, dtype="float32").fit(made_up_features(1000, 64, "float32"))  # loads libraries
    if method == "official":
        streaming.SHARE = 0.0  # so few steps draw so few rows that they could be held; all 6,000 draw all
    spaces = [np.load(file, mmap_mode="r")[:rows] for file in files]
    labels = classes(len(np.load(files[0], mmap_mode="r")))[:rows]
    with contextlib.suppress(OSError):
        (PROC / "clear_refs").write_text("5")  # the peak begins anew
    before, start, start_cpu = resident()["now"], time.perf_counter(), time.process_time()
    fitted = models[method].fit(spaces, labels)  # only the probe looks at them
    times = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - start_cpu}
    found = fitted.predict(spaces) if method == "probe" else fitted.labels_
    largest = np.bincount(found).max() / rows
    print(json.dumps({**times, "before": before, "peak": resident()["peak"], "largest": largest}))


if __name__ == "__main__":
    main()
