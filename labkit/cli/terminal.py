"""Standard output and error of a command: they take any text, and their end stops no work."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any


class Words:
    """Standard output or error that takes any text, and whose failure stops no work: what follows it is dropped."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self.failure: OSError | None = None
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal may lack letters that files can hold

    def write(self, text: str) -> int:
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _try(self, act: Callable[[], object]) -> None:
        if self.failure is not None:
            return
        try:
            act()
        except OSError as error:
            self.failure = error
            with contextlib.suppress(OSError):  # what Python holds back would fail once more when it ends
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


def fill_closed_streams() -> None:
    """Give a stream that was closed before the start its place: else the next file that is opened takes it."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("r" if name == "stdin" else "w"))  # noqa: SIM115 (to the end)
