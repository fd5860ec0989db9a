"""The errors that labkit raises: each says what was given, what was expected and what to do."""

from __future__ import annotations

import reprlib

LONGEST_QUOTE = 60  # characters of anything given that an error message repeats

_short = reprlib.Repr()
_short.maxstring = _short.maxlong = _short.maxother = LONGEST_QUOTE
_short.maxlist = _short.maxtuple = _short.maxset = _short.maxfrozenset = _short.maxdict = _short.maxarray = 4
_short.maxlevel = 3


def quote(value: object) -> str:
    """Anything as at most 60 printable characters, for an error message; a large value costs no more than a small."""
    try:
        text = _short.repr(value)
    except Exception:  # whatever an object's own repr does
        text = f"<{type(value).__name__}>"
    text = text.encode("ascii" if not text.isprintable() else "utf-8", "backslashreplace").decode()
    return text if len(text) <= LONGEST_QUOTE else f"{text[: LONGEST_QUOTE - 1]}…"


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
