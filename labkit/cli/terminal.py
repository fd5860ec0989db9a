"""Standard output and error of a command: they take any text, their end stops no work, and warnings are one line."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import labkit
from labkit.errors import printable, shorten


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


# ------------------------------------------------------------------------------------------------------------- warnings


@contextlib.contextmanager
def plain_warnings() -> Iterator[None]:
    """While a command runs, warnings are one line on standard error each: "labkit: …", of others "NAME warns: …"."""
    handler = _Lines(logging.WARNING)
    root = logging.getLogger()
    root.addHandler(handler)  # with one there, libraries that log by way of `logging` itself add none
    with warnings.catch_warnings():
        warnings.showwarning = _show
        try:
            yield
        finally:
            root.removeHandler(handler)


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        name = record.name if record.name != "root" else _package(record.pathname)
        _say(name.partition(".")[0], record.getMessage())


def _show(message: Warning | str, category: type[Warning], filename: str, *_: Any, **__: Any) -> None:
    # a warning of ours may name the line of ours, or of a library, that called
    ours = category.__module__.partition(".")[0] == "labkit"
    _say("labkit" if ours else _package(filename), str(message))


def _package(filename: str) -> str:
    """The library that a source file is part of; "Python" where it is in none."""
    path = Path(filename)
    if path.is_relative_to(Path(labkit.__file__).parent):
        return "labkit"
    parts = path.parts
    if "site-packages" in parts[:-1]:
        return Path(parts[len(parts) - parts[::-1].index("site-packages")]).stem
    return "Python"


def _say(who: str, message: str) -> None:
    """A line on standard error, above a progress bar where there is one."""
    text = " ".join(message.split())
    line = printable(f"labkit: {text}" if who == "labkit" else f"{who} warns: {shorten(text, 300)}")
    if "tqdm" in sys.modules:
        sys.modules["tqdm"].tqdm.write(line, file=sys.stderr)
    else:
        print(line, file=sys.stderr)
