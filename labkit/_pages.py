"""What all pages are made with: the templates of a wing, and text written atomically."""

from __future__ import annotations

import base64
import functools
import os

import jinja2

from labkit._files import atomic_write


@functools.cache
def templates(wing: str) -> jinja2.Environment:
    """The templates of a wing, such as "labkit.course", which escape every value; `base64` makes text of bytes."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(wing),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
    return environment


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write text atomically; odd bytes, which an output or a name may hold, are escaped.

    Raises:
        OSError: as `atomic_write` does.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
