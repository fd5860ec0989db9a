"""Checkpoints of MUST: a run is kept in a folder, goes on from there, and says why where it cannot."""

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

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from labkit._files import atomic_write
from labkit.errors import CheckpointError

if TYPE_CHECKING:
    from labkit.must.run import Run

SAVE_EVERY = 300.0  # seconds between two checkpoints; there is always one at the end
CHECKPOINT, METRICS = "checkpoint.safetensors", "metrics.jsonl"


class Checkpointer:
    """Keeps a run in a folder: its checkpoint, whole or not at all, and its metrics, a line of JSON each."""

    def __init__(self, folder: str | os.PathLike[str], run: Run, identity: dict[str, Any]) -> None:
        self.folder, self.run, self.identity = Path(folder), run, identity
        self.saved, self.saved_step = time.monotonic(), -1
        self.writes = run.trainer.rank == 0

    def restore(self) -> None:
        """Go on from the folder's checkpoint, where there is one."""
        path = self.folder / CHECKPOINT
        if not path.exists():
            with self._explained():
                self.folder.mkdir(parents=True, exist_ok=True)
                if self.writes:
                    (self.folder / METRICS).write_text("", "utf-8")
            return
        texts, tensors = read(path, "Delete it to begin anew.")
        if texts.get("labkit") != "must checkpoint":
            raise CheckpointError(f"{path} is no checkpoint of MUST. Choose another folder.")
        theirs = json.loads(texts.get("identity", "{}"))
        ours = json.loads(json.dumps(self.identity))
        other = [name for name in ours if ours[name] != theirs.get(name)]
        if other:
            shown = ", ".join(f"{n} ({_difference(theirs.get(n), ours[n])})" for n in other)
            raise CheckpointError(
                f"{path} belongs to a run with other settings: {shown}. Choose another folder for this run, or delete "
                "that checkpoint to begin anew."
            )
        try:
            self.run.unpack(tensors, texts)
        except (KeyError, ValueError, RuntimeError) as error:  # a part is missing or has another shape
            raise CheckpointError(f"{path} is damaged ({error}). Delete it to begin anew.") from error
        self.saved_step = self.run.trainer.state.step
        self.run.records = [line for line in self._lines() if line["step"] <= self.run.trainer.state.step]
        if self.writes:
            with self._explained(), atomic_write(self.folder / METRICS) as temporary:
                temporary.write_text("".join(json.dumps(line) + "\n" for line in self.run.records), "utf-8")

    def _lines(self) -> Iterator[dict[str, float]]:
        path = self.folder / METRICS
        for line in path.read_text("utf-8").splitlines() if path.exists() else ():
            with contextlib.suppress(json.JSONDecodeError):  # the last line of a run that was killed may be cut off
                yield json.loads(line)

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
            tensors, texts = self.run.pack()
            with self._explained(), atomic_write(self.folder / CHECKPOINT) as temporary:
                save_file(tensors, temporary, texts | {"identity": json.dumps(self.identity)})
        self.saved, self.saved_step = time.monotonic(), step

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"the run cannot be kept in {self.folder} ({error}). Make room or choose another folder; the last "
                "checkpoint there is whole, and the same fit goes on from it."
            ) from error


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


def read(path: Path, advice: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}). {advice}") from error


def _difference(there: Any, now: Any) -> str:
    """Two settings, or of two lists only what is not in both."""
    if isinstance(there, list) and isinstance(now, list):
        there, now = [v for v in there if v not in now] or there, [v for v in now if v not in there] or now
    return f"there {_short(there)}, now {_short(now)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
