"""Settings for `pytest --nbval notebooks/`, from whatever directory it is started.

They stand here and not in addopts, where they would be an error without nbval and wrong from another directory.
Numbers go to HTML and images (see labkit.course.setup), which are not compared; all other output is, letter by letter.
"""

from __future__ import annotations

import contextlib
import os
import sys
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
    if (HERE.parent / "labkit").is_dir():
        sys.path.insert(0, str(HERE.parent))  # the labkit of this checkout, installed or not
    from labkit._files import temporary_folder
    from labkit.course.execution import kernel_environment

    until_the_end = contextlib.ExitStack()
    config.add_cleanup(until_the_end.close)
    folder = until_the_end.enter_context(temporary_folder(tempfile.gettempdir(), "labkit-nbval-"))
    results_path = folder / "results.jsonl"  # the user's own table stays as it is
    os.environ.update(kernel_environment(results_path, alike_everywhere=True))  # kernels inherit it


def pytest_collectstart(collector: Any) -> None:
    if hasattr(collector, "skip_compare"):  # a notebook
        collector.skip_compare += ("stderr", "text/html", "image/svg+xml")
