"""The errors that labkit raises: each says what was given, what was expected and what to do."""

from __future__ import annotations

import difflib
import itertools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

LONGEST_QUOTE = 60  # characters of anything given that an error message repeats


class LabkitError(Exception):
    """Base class of every error that labkit raises on purpose."""


class ManifestError(LabkitError, ValueError):
    """A data manifest is missing, malformed or contradicts itself."""


class DataError(LabkitError, ValueError):
    """A dataset, an image or a feature file is missing, damaged or of the wrong shape."""


class BackboneError(LabkitError, ValueError):
    """A backbone is unknown, or its weights are neither on this machine nor reachable."""


class FitError(LabkitError, ValueError):
    """The input or the settings of an estimator cannot be fitted."""


class CheckpointError(LabkitError, ValueError):
    """A saved model cannot be read back."""


class CollapseWarning(UserWarning):
    """Every restart left at least one of the requested clusters empty."""


def quote(value: object) -> str:
    """Anything as at most 60 printable characters, for an error message; a large value costs no more than a small."""
    try:
        text = _brief(value, depth=2)
    except Exception:  # an object that cannot even be looked at
        text = f"<{type(value).__name__}>"
    return shorten(text)


def shorten(text: str, limit: int = LONGEST_QUOTE) -> str:
    """A text of at most `limit` characters, of which the middle may be left out; what does not print is escaped."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in _ends(text, limit + 1))
    return text if len(text) <= limit else f"{text[: limit // 2]}…{text[len(text) - (limit - 1) // 2 :]}"


def reason(error: BaseException) -> str:
    """An error of another library in a few words for a message of ours: its kind, and what the innermost says.

    Libraries of the network wrap one error into another, and each repeats the address and the connection.
    """
    inner = error
    for _ in range(10):
        wrapped = [part for part in (getattr(inner, "reason", None), *inner.args) if isinstance(part, BaseException)]
        if not wrapped:
            break
        inner = wrapped[0]
    text = re.sub(r"^(<[^>]*>|HTTPS?Connection(Pool)?\([^)]*\)): ", "", " ".join(str(inner).split()))
    return shorten(f"{type(error).__name__}: {text}" if text else type(error).__name__, 300)


def nearest(given: str, known: Iterable[str], *, most: int = 1, cutoff: float = 0.6) -> list[str]:
    """The known names that are most like a given one, at most `most`, the nearest first; capitals do not count.

    `cutoff` is the least likeness, from 0 to 1, of `difflib.get_close_matches`.
    """
    by_lower = {name.lower(): name for name in known}
    return [by_lower[name] for name in difflib.get_close_matches(given.lower(), by_lower, n=most, cutoff=cutoff)]


def suggestion(names: Sequence[str]) -> str:
    """The end of a message about a name that is none: " Did you mean a or b?"; "" without names."""
    return f" Did you mean {' or '.join(names)}?" if names else ""


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """The nearest of the known names as a question, " Did you mean 'a'?"; "" where none is near."""
    return suggestion([repr(name) for name in nearest(given, known)])


def printable(text: str) -> str:
    """Text for a terminal: what would steer it is written as \\x1b; lines stay lines."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def shown(name: str | os.PathLike[str]) -> str:
    """A path or its part as text that any file can hold: bytes of it that are not UTF-8 read \\xe9."""
    try:
        return os.fsencode(name).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # no file can have this name
        return os.fspath(name).encode("utf-8", "backslashreplace").decode()


def _ends(text: str, limit: int) -> str:
    half = (limit + 1) // 2
    return text if len(text) <= 2 * half else text[:half] + text[-half:]


def _brief(value: object, depth: int) -> str:
    """Like repr(), but of a few items only, and never an unknown object's own repr(), which may be of any length."""
    if isinstance(value, str):
        return str.__repr__(_ends(value, 2 * LONGEST_QUOTE))
    if isinstance(value, bytes):
        return bytes.__repr__(value[:LONGEST_QUOTE])
    if isinstance(value, os.PathLike):
        return _brief(os.fspath(value), depth)
    if value is None or isinstance(value, bool | float | complex | range):
        return float.__repr__(value) if isinstance(value, float) else repr(value)
    if isinstance(value, int):
        return int.__repr__(value) if value.bit_length() < 512 else f"a whole number of {value.bit_length()} bits"
    if isinstance(value, type):
        return value.__name__
    if isinstance(value, Mapping):
        pairs = [f"{_brief(key, depth - 1)}: {_brief(item, depth - 1)}" for key, item in _first(value.items(), depth)]
        return f"{{{_joined(pairs, len(value))}}}"
    if isinstance(value, list | tuple | set | frozenset):
        left, right = ("[", "]") if isinstance(value, list) else ("(", ")") if isinstance(value, tuple) else ("{", "}")
        items = [_brief(item, depth - 1) for item in _first(value, depth)]
        return f"{left}{_joined(items, len(value))}{right}" if value else repr(type(value)())
    shape = getattr(value, "shape", None)
    if shape == () and callable(getattr(value, "item", None)):  # NumPy's numbers
        return _brief(value.item(), depth)  # type: ignore[attr-defined]
    if isinstance(shape, tuple):  # of arrays and tensors
        return f"{type(value).__name__} of shape {tuple(shape)} and type {getattr(value, 'dtype', 'mixed')}"
    return f"<{type(value).__name__}>"


def _first(items: Iterable[Any], depth: int) -> list[Any]:
    return list(itertools.islice(items, 6 if depth > 0 else 0))


def _joined(items: list[str], n: int) -> str:
    return ", ".join(items + ["…"] * (n > len(items)))
