"""Run notebooks and store their outputs in them: python notebooks/refresh.py [NN ...]; `make notebooks` does all.

The stored outputs are what `pytest --nbval notebooks/` compares with, and what people see on GitHub. Notebooks run as
in the tests: pocket profile, headless. Metadata that changes from run to run is left out, so that diffs stay small.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from labkit._files import atomic_write, temporary_folder
from labkit.course.execution import kernel_environment
from labkit.course.series import find_notebooks

HERE = Path(__file__).resolve().parent
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def refresh(path: Path) -> None:
    """Run one notebook and replace it by itself with fresh outputs; one that fails is left as it was."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=900, record_timing=False, kernel_name="python3", resources={"metadata": {"path": str(HERE)}}
    ).execute()
    notebook.metadata = nbformat.from_dict(METADATA)
    for i, cell in enumerate(notebook.cells):
        cell.id = f"cell-{i:03d}"
        cell.metadata = nbformat.from_dict({"tags": cell.metadata.tags} if "tags" in cell.metadata else {})
    with atomic_write(path) as temporary:
        nbformat.write(notebook, temporary)


def main() -> None:
    with temporary_folder(tempfile.gettempdir(), "labkit-") as scratch:
        os.environ.update(kernel_environment(scratch / "results.jsonl", alike_everywhere=True))
        for path in find_notebooks(HERE, sys.argv[1:]):
            print(path.name, flush=True)
            refresh(path)


if __name__ == "__main__":
    main()
