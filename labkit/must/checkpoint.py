"""Checkpoints of MUST: a run is kept in a folder, resumes from there, and says why where it cannot."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit._files import atomic_write, locked_folder, open_regular, sweep, user_path
from labkit._saved import MALFORMED, read_saved, write_saved
from labkit.errors import CheckpointError, quote

if TYPE_CHECKING:
    from labkit.must.run import Run

SAVE_EVERY = 300.0  # seconds between two checkpoints; there is always one at the end
CHECKPOINT, METRICS = "checkpoint.safetensors", "metrics.jsonl"
KIND = "checkpoint of MUST"


class Checkpointer:
    """Keeps a run in a folder: its checkpoint, replaced atomically, and its metrics, a line of JSON each."""

    def __init__(self, folder: Path, run: Run, identity: dict[str, Any]) -> None:
        self.folder, self.run, self.identity = folder, run, identity
        self.saved, self.saved_step = time.monotonic(), -1
        self.writes = run.trainer.rank == 0

    def restore(self) -> None:
        """Resume from the folder's checkpoint, if there is one."""
        path = self.folder / CHECKPOINT
        if self.writes:
            sweep(path)
        if not os.path.lexists(path):
            if self.writes:
                self._expect_own_metrics()
                self._write_metrics()
            return
        settings, tensors = read_saved(path, KIND, "Delete it to begin anew.")
        theirs, ours = settings.get("identity"), json.loads(json.dumps(self.identity))
        if not isinstance(theirs, dict):
            raise CheckpointError(f"{path} says nothing of the run it belongs to. Delete it to begin anew.")
        other = [name for name in ours if ours[name] != theirs.get(name)]
        if other:
            shown = ", ".join(_other(n, theirs.get(n), ours[n]) for n in other)
            raise CheckpointError(
                f"{path} belongs to a run with other settings: {shown}. Choose another folder for this run, or delete "
                "that checkpoint to begin anew."
            )
        try:
            self.run.unpack(tensors, settings)
        except MALFORMED as error:  # a part is missing or has another shape
            raise CheckpointError(f"{path} is damaged ({error}). Delete it to begin anew.") from error
        self.saved_step = self.run.trainer.state.step
        self.run.records = [line for line in self._lines() if line["step"] <= self.run.trainer.state.step]
        if self.writes:
            self._write_metrics()

    def _expect_own_metrics(self) -> None:
        """Refuse to begin a run where a file of this name holds something else than lines of metrics."""
        path = self.folder / METRICS
        if not path.exists():
            return
        with self._explained(), open_regular(path) as file:
            whole = [line for line in file if line.endswith(b"\n")]  # a killed run may have left half a line
        if len(whole) > len(list(self._lines())):
            raise CheckpointError(f"{path} is no file of metrics, and there is no checkpoint. Choose another folder.")

    def _lines(self) -> Iterator[dict[str, float]]:
        """The records that the file of metrics holds; a run that was killed may have left half a line."""
        path = self.folder / METRICS
        if not path.exists():
            return
        with self._explained(), open_regular(path) as file:
            for line in file:
                with contextlib.suppress(ValueError, RecursionError):
                    record = json.loads(line)
                    if isinstance(record, dict) and type(record.get("step")) is int:
                        yield record

    def _write_metrics(self) -> None:
        with self._explained(), atomic_write(self.folder / METRICS) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in self.run.records), "utf-8")

    def log(self, record: dict[str, float]) -> None:
        if self.writes:
            with self._explained(), (self.folder / METRICS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")

    def is_due(self) -> bool:
        return time.monotonic() - self.saved > SAVE_EVERY

    def save(self) -> None:
        """Write the checkpoint, unless it holds this step already."""
        step = self.run.trainer.state.step
        if self.writes and step != self.saved_step:
            tensors, settings = self.run.pack()
            with self._explained():
                write_saved(self.folder / CHECKPOINT, KIND, settings | {"identity": self.identity}, tensors)
        self.saved, self.saved_step = time.monotonic(), step

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise unkept(self.folder, error) from error


def run_folder(given: str | os.PathLike[str]) -> Path:
    """The folder that a run is to be kept in; "" is none, though Python would take it for the current one.

    Raises:
        CheckpointError: it is no path.
    """
    try:
        if os.path.realpath(os.fspath(given) or "\0"):
            return user_path(given)
    except (TypeError, ValueError):
        pass
    raise CheckpointError(f"folder is {quote(given)}. Expected the path of a folder, or None.")


def hold(folder: Path) -> contextlib.ExitStack:
    """Be the only process that keeps a run in this folder, until the stack is closed.

    Raises:
        CheckpointError: another process does, or the folder cannot be made or written to.
    """
    held = contextlib.ExitStack()
    try:
        held.enter_context(locked_folder(folder, wait=False))
    except BlockingIOError as error:
        raise CheckpointError(
            f"another fit is writing to {folder} at this moment. Choose another folder for this run, or wait."
        ) from error
    except OSError as error:
        raise unkept(folder, error) from error
    return held


def unkept(folder: Path, error: OSError) -> CheckpointError:
    """What to say where a run cannot be written."""
    kept = os.path.isfile(folder / CHECKPOINT)  # noqa: PTH113 (says no where pathlib raises)
    goes_on = "; the last checkpoint there is whole, and the same fit resumes from it" if kept else ""
    return CheckpointError(
        f"the run cannot be kept in {folder} ({error}). Make room or choose another folder{goes_on}."
    )


@contextlib.contextmanager
def interruptible(wanted: bool) -> Iterator[Callable[[], bool]]:
    """Within the block Ctrl-C only sets what the yielded function tells; a second one interrupts at once.

    So does SIGTERM, which launchers of several processes and job schedulers send before they kill.
    """
    asked = threading.Event()
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def handle(number: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _other(name: str, there: Any, now: Any) -> str:
    """A setting that differs; of images only that they do, since digests tell nobody anything."""
    return "other images" if name == "images" else f"{name} ({_difference(there, now)})"


def _difference(there: Any, now: Any) -> str:
    """Two settings, or of two lists only what is not in both."""
    if isinstance(there, list) and isinstance(now, list):
        there, now = [v for v in there if v not in now] or there, [v for v in now if v not in there] or now
    return f"there {_short(there)}, now {_short(now)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
