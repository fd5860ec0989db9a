"""Notebooks as files: read them, and tell what their author wrote from what a run added."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import nbformat

from labkit._files import atomic_write, open_regular

ADDED_BY_PAPERMILL = {"injected-parameters", "papermill-error-cell-tag"}  # tags of cells


def read_notebook(path: Path) -> Any:
    """A notebook; None where there is none that can be read."""
    try:
        with open_regular(path) as file:
            return nbformat.reads(file.read().decode(), as_version=4)
    except Exception:  # nbformat raises whatever a malformed notebook leads to
        return None


def notebook_title(path: Path) -> str:
    """The first heading of a notebook, or its name."""
    notebook = read_notebook(path)
    lines = notebook.cells[0].source.splitlines() if notebook is not None and notebook.cells else []
    return lines[0].removeprefix("# ") if lines and lines[0].startswith("# ") else path.stem


def author_cells(notebook: Any) -> list[Any]:
    """All cells but those that papermill adds."""
    return [cell for cell in notebook.cells if not ADDED_BY_PAPERMILL & set(cell.metadata.get("tags", ()))]


def sources_digest(notebook: Any) -> str:
    """SHA-256 of what an author writes: types and sources of the cells, not their outputs."""
    cells = [[cell.cell_type, cell.source] for cell in author_cells(notebook)]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()


def publish(executed: Path, target: Path) -> bool:
    """Copy an executed notebook to `target`, with the digest that shows whether somebody edits it there.

    Returns:
        Whether there was one; if not, `target` and its page, which are of an earlier run, are removed.
    """
    notebook = read_notebook(executed)
    if notebook is None:
        for stale in (target.with_suffix(".html"), target):  # a page without its notebook would be a stranger's
            stale.unlink(missing_ok=True)
        return False
    notebook.metadata["labkit"] = {"sources": sources_digest(notebook)}
    with atomic_write(target) as temporary:
        nbformat.write(notebook, temporary)
    return True


def is_unedited(published: Path, source: Path) -> bool:
    """Whether there is no notebook, or one that a run of `source` wrote and nobody edited since, outputs aside."""
    if not os.path.lexists(published):
        return True
    try:
        notebook, shipped = read_notebook(published), read_notebook(source)
        digest, seal = sources_digest(notebook), notebook.metadata.get("labkit")
        if isinstance(seal, dict):
            return bool(seal.get("sources") == digest)
        return "papermill" in notebook.metadata and digest == sources_digest(shipped)  # labkit 0.1 left no digest
    except Exception:  # whatever a malformed notebook leads to
        return False
