"""One notebook through papermill, in a kernel that is always the interpreter that runs this module.

Kernels that are registered on the machine play no part.
"""

from __future__ import annotations

import ast
import logging
import os
import sys
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nbformat

from labkit._files import PACKAGE_DIR
from labkit.course.notebook_files import author_cells, read_notebook
from labkit.errors import LabkitError

logger = logging.getLogger(__name__)


def kernel_environment(results_path: Path, *, alike_everywhere: bool = False) -> dict[str, str]:
    """Environment variables that make a kernel headless and repeatable and let its notebook record to `results_path`.

    Args:
        results_path: the file of results, instead of the user's own.
        alike_everywhere: the pocket profile without GPU and network too, so that any machine gives the stored outputs.
    """
    env = {
        "LABKIT_RESULTS": str(results_path),
        "LABKIT_HEADLESS": "1",
        "PYTHONHASHSEED": "0",
        "GOMP_SPINCOUNT": "10000",  # threads that spin for long while they wait stall on a busy machine
    }
    if alike_everywhere:
        env |= {"LABKIT_PROFILE": "pocket", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    if (PACKAGE_DIR.parent / "pyproject.toml").exists():  # a checkout, installed or not: run the notebooks with it
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PACKAGE_DIR.parent), os.environ.get("PYTHONPATH")]))
    return env


def execute_notebook(path: Path, executed: Path, profile: str, scratch: Path) -> dict[str, Any] | None:
    """Execute one notebook in the folder `scratch` and save it as `executed`; what failed, or None."""
    import papermill

    executed.parent.mkdir(exist_ok=True)
    try:
        _check_parameters(path, ("profile",))
        papermill.execute_notebook(
            str(path),
            str(executed),
            parameters={"profile": profile},
            kernel_name="python3",
            cwd=str(scratch),
            progress_bar={"desc": path.stem, "file": sys.stderr},
            kernel_manager_class=_own_kernel(scratch / "results.jsonl"),
            shutdown_kernel="immediate",  # all is recorded by then; its own way out takes seconds
        )
    except Exception as error:  # whatever a notebook does, the others still run
        cell = _last_started(executed)
        name = getattr(error, "ename", type(error).__name__)  # papermill wraps what the cell raised
        message = getattr(error, "evalue", str(error)).strip()
        failure = {"notebook": path.stem, "cell": cell, "error": f"{name}: {message}" if message else name}
        logger.warning("%s failed in cell %s: %s", path.stem, cell, failure["error"])
        return failure
    return None


def timings(executed: Path) -> dict[str, Any]:
    """Seconds of a whole notebook and of each of its code cells, None for a cell that did not run."""
    notebook = read_notebook(executed)
    if notebook is None:  # it never began
        return {"seconds": 0.0, "cells": []}
    seconds = notebook.metadata.get("papermill", {}).get("duration") or 0.0
    cells = [cell.metadata.get("papermill", {}).get("duration") for cell in _code_cells(notebook)]
    return {"seconds": round(seconds, 3), "cells": [None if s is None else round(s, 3) for s in cells]}


def _check_parameters(path: Path, expected: Iterable[str]) -> None:
    """Refuse a notebook that would ignore a parameter: papermill only warns."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if "parameters" in cell.metadata.get("tags", ())]
    if not cells:
        raise LabkitError('no cell is tagged "parameters"')
    assigned = {node.id for node in ast.walk(ast.parse(cells[0].source)) if isinstance(node, ast.Name)}
    for name in expected:
        if name not in assigned:
            raise LabkitError(f'the cell tagged "parameters" does not set `{name}`')


def _own_kernel(results_path: Path) -> type:
    """A kernel manager whose kernel is this very interpreter and whose notebooks record to `results_path`."""
    from ipykernel.kernelspec import RESOURCES, get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    env = kernel_environment(results_path)
    env["TMPDIR"] = str(results_path.parent)  # a notebook's temporary folders, which its kernel has no time to remove
    quiet = ["--log-level=40"]  # without notes for administrators
    spec = KernelSpec(resource_dir=RESOURCES, **get_kernel_dict(quiet) | {"env": env})

    class OwnKernel(AsyncKernelManager):
        kernel_spec = spec  # no look-up by name, so a stray "python3" on the machine cannot win

        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self.connection_file = str(results_path.with_name(f"{uuid.uuid4().hex}.json"))  # goes with the folder

    return OwnKernel


def _code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in author_cells(notebook) if cell.cell_type == "code"]


def _last_started(executed: Path) -> int | None:
    """Number, from 1, of the code cell that ran last: papermill stops at the first that fails."""
    notebook = read_notebook(executed)
    cells = [] if notebook is None else _code_cells(notebook)
    started = [i for i, cell in enumerate(cells, 1) if cell.metadata.get("papermill", {}).get("start_time")]
    return started[-1] if started else None
