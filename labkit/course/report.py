"""results.json: what one run of the series leaves behind, with what it was measured, and the schema that it fits."""

from __future__ import annotations

import datetime
import importlib.metadata
import importlib.resources
import json
import platform
import subprocess
from pathlib import Path
from typing import Any

from labkit._files import PACKAGE_DIR, atomic_write, open_regular
from labkit.errors import DataError

PACKAGES = ("labkit", "torch", "torchvision", "timm", "open_clip_torch", "numpy", "scikit-learn", "papermill")


def new_report(profile: str) -> dict[str, Any]:
    """A report of a run that begins now and has no results yet."""
    return {
        "schema": 1,
        "profile": profile,
        "created": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "environment": environment(profile),
        "results": [],
        "bands": [],
        "timings": {},
        "failures": [],
    }


def environment(profile: str) -> dict[str, Any]:
    """What the numbers are measured with: versions, system, device and revision."""
    from labkit.devices import cpu_count, pick_device

    device = pick_device()
    name = str(device)
    if device.type == "cuda":
        import torch

        name += f" ({torch.cuda.get_device_name(device)})"
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed, or an optional package
            continue
    return {
        "python": platform.python_version(),
        "packages": versions,
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": cpu_count(),
        "device": name,
        "profile": profile,
        "git_revision": _git_revision(),
    }


def _git_revision() -> str | None:
    """Commit of the checkout that labkit runs from; None for an installed package."""
    if not (PACKAGE_DIR.parent / ".git").exists():
        return None
    command = ["git", "-C", str(PACKAGE_DIR.parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


# ------------------------------------------------------------------------------------------------------------- failures


def missed_band(band: dict[str, Any]) -> dict[str, Any]:
    """The failure that a value outside its band is."""
    value = "not finite" if band["value"] is None else f"{band['value']:.4f}"
    error = f"band {band['name']!r}: {value} is outside {band['low']} to {band['high']}"
    return {"notebook": band["notebook"], "cell": None, "error": error}


def describe_failure(failure: dict[str, Any]) -> str:
    """One line about a failure: notebook, cell and error."""
    cell = f", code cell {failure['cell']}" if failure["cell"] else ""
    return f"{failure['notebook']}{cell}: {failure['error']}"


# ------------------------------------------------------------------------------------------------------------- the file


def validate_results(report: dict[str, Any]) -> None:
    """Check what results.json holds against results.schema.json.

    Raises:
        DataError: it does not fit; the message names the place.
    """
    import jsonschema

    schema = json.loads(importlib.resources.files("labkit.course").joinpath("results.schema.json").read_text("utf-8"))
    try:
        jsonschema.validate(report, schema)
    except jsonschema.ValidationError as error:
        raise DataError(f"results.json would not fit its schema at {error.json_path}: {error.message}.") from error


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Write results.json atomically.

    Raises:
        DataError: it does not fit its schema.
        OSError: it cannot be written.
    """
    validate_results(report)
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def is_report(path: Path) -> bool:
    """Whether there is a results.json of labkit."""
    try:
        with open_regular(path) as file:
            validate_results(json.load(file))
    except (OSError, ValueError, RecursionError):  # DataError is a ValueError
        return False
    return True
