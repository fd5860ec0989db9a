"""The file of results: what is no result is passed over, what is no file is refused, and a cut line spoils no other."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from labkit.course import results as _results
from labkit.course.results import append_result, read_results
from labkit.errors import DataError

SCHEMA = json.loads(Path(_results.__file__).with_name("results.schema.json").read_text("utf-8"))
ROW: dict[str, Any] = {
    "notebook": "02_a", "dataset": "digits", "split": "test", "method": "turtle", "variant": "", "spaces": ["hog"],
    "metric": "accuracy", "value": 0.5, "seed": 1, "selected_without_labels": False, "labels_used": False,
    "seconds": 1.5, "profile": "pocket",
}  # fmt: skip
BAND: dict[str, Any] = {
    "notebook": "02_a", "name": "loss", "value": None, "low": 0.0, "high": 1, "verdict": "outside", "profile": "pocket",
}  # fmt: skip
ODD = (
    b"3", b"null", b"[]", b"{}", b'"row"', b'{"row": 3}', b'{"row": {"noteb', b"\xff\xfe\x00", b"\0\0\0",
    b"[" * 100_000, b'{"row": {}}', b'{"other": {}}', b'{"row": {}, "band": {}}', b'{"row": NaN}',
    b"9" * 5000, b"x" * (3 << 20),
)  # fmt: skip


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_lines_that_are_no_results_are_passed_over_and_counted(
    odd: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "results.jsonl"
    append_result(path, "row", ROW)
    with path.open("ab") as file:
        file.write(b"\n" + odd)
    append_result(path, "band", BAND)
    with caplog.at_level(logging.WARNING):
        assert read_results(path) == ([ROW], [BAND])
    assert len(caplog.records) == 1
    assert "no results of labkit" in caplog.text


VALUES = (
    None, True, 0, 1, -1, 2, 0.5, -0.1, float("nan"), float("inf"), 10**400, "", "text", [], ["hog"], [1], {},
    "accuracy", "turtle", "pocket", "within",
)  # fmt: skip


@pytest.mark.parametrize(("kind", "whole"), [("row", ROW), ("band", BAND)])
def test_entries_are_taken_where_the_schema_takes_them(kind: str, whole: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    schema = jsonschema.Draft202012Validator({**SCHEMA["$defs"][kind], "$defs": SCHEMA["$defs"]})
    changed = [{**whole, key: value} for key in [*whole, "extra"] for value in VALUES]
    changed += [{key: value for key, value in whole.items() if key != missing} for missing in whole]
    for entry in changed:
        path.write_text(json.dumps({kind: entry}))
        taken = [found for entries in read_results(path) for found in entries]
        is_finite = all(not isinstance(v, float) or abs(v) < float("inf") for v in entry.values())
        is_small = 10**400 not in [value for key, value in entry.items() if key != "seed"]  # could not be computed with
        assert bool(taken) == (schema.is_valid(entry) and is_finite and is_small), entry
        assert all(set(found) == set(whole) for found in taken)  # a row without a variant has the empty one


def test_entries_that_could_not_be_read_back_are_refused(tmp_path: Path) -> None:
    for kind, entry in (("row", {**ROW, "seed": "one"}), ("band", {**BAND, "low": float("nan")}), ("row", {})):
        with pytest.raises(DataError, match=r"cannot be kept: (seed|low|notebook) is"):
            append_result(tmp_path / "results.jsonl", kind, entry)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", ["folder", "pipe", "device", "below a file"])
def test_what_is_no_file_is_refused_at_once(what: str, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "device":
        path = Path(os.devnull)
    else:
        path.write_text("")
        path = path / "results.jsonl"
    with pytest.raises(DataError, match="LABKIT_RESULTS"):
        append_result(path, "row", ROW)
    with pytest.raises(DataError, match="LABKIT_RESULTS"):
        read_results(path)


def test_a_full_disk_is_said_and_spoils_only_the_line_that_it_cut(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    append_result(path, "row", ROW)
    code = (
        "import json, resource, signal, sys\nfrom pathlib import Path\n"
        "from labkit.course.results import append_result\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({path.stat().st_size + 20},) * 2)\n"
        "append_result(Path(sys.argv[1]), 'band', json.loads(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, str(path), json.dumps(BAND)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(_results.__file__).parents[2])
    assert "DataError: the result cannot be kept" in done.stderr
    append_result(path, "band", BAND)
    assert read_results(path) == ([ROW], [BAND])


def test_a_large_file_is_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with path.open("wb") as file:
        file.seek(300 << 20)  # a hole, which reads as zeros
    append_result(path, "row", ROW)
    code = (
        "import resource, sys\nfrom labkit.course.results import read_results\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\nassert len(read_results(sys.argv[1])[0]) == 1\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(_results.__file__).parents[2])
    assert int(done.stdout) < 100_000, done.stderr  # KiB
