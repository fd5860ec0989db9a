"""Settings for `pytest --nbval notebooks/`, from whatever directory it is started.

They stand here and not in addopts, where they would be an error without nbval and wrong from another directory.
Numbers go to HTML and pictures (see labkit.classroom), which are not compared; all other output is, letter by letter.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def pytest_configure(config: Any) -> None:
    option = config.option
    if not (getattr(option, "nbval", False) or getattr(option, "nbval_lax", False)):
        return
    option.nbval_sanitize_with = option.nbval_sanitize_with or str(HERE / "nbval_sanitize.cfg")
    option.nbval_current_env = not option.nbval_kernel_name  # this interpreter, whatever kernels are registered
    config._labkit_results = tempfile.mkdtemp(prefix="labkit-nbval-")
    os.environ.update(  # kernels inherit it
        LABKIT_PROFILE="pocket",
        LABKIT_HEADLESS="1",
        LABKIT_RESULTS=str(Path(config._labkit_results, "results.jsonl")),  # the user's own table stays as it is
        CUDA_VISIBLE_DEVICES="",
        HF_HUB_OFFLINE="1",
        PYTHONHASHSEED="0",
        GOMP_SPINCOUNT="10000",  # threads that spin for long while they wait stall on a busy machine
        PYTHONPATH=os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")])),
    )


def pytest_unconfigure(config: Any) -> None:
    shutil.rmtree(getattr(config, "_labkit_results", ""), ignore_errors=True)


def pytest_collectstart(collector: Any) -> None:
    if hasattr(collector, "skip_compare"):  # a notebook
        collector.skip_compare += ("stderr", "text/html", "image/svg+xml")
