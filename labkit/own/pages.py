"""What the pages share: templates, and a policy that lets a browser run no script but a page's own."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shlex
import urllib.parse
from pathlib import Path
from typing import Any

import jinja2

from labkit._pages import templates
from labkit.errors import shown


def template(name: str) -> jinja2.Template:
    """A template of `labkit.own`, which escapes every value."""
    return templates("labkit.own").get_template(name)


def source(*names: str) -> str:
    """Style sheets or scripts of `labkit.own`, one after another."""
    environment = templates("labkit.own")
    assert environment.loader is not None
    return "".join(environment.loader.get_source(environment, name)[0] for name in names)


def policy_hash(text: str) -> str:
    """What a Content-Security-Policy calls an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def script_json(data: Any) -> str:
    """JSON that may stand in a <script> element: nothing in it ends the element or opens a comment."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def apply_command(out: Path) -> list[str]:
    """The command that carries out a review that a browser saved, in parts between which a line may break."""
    return ["labkit apply", "~/Downloads/review.json", "--to", shlex.quote(shown(out))]


def link(path: Path, out: Path) -> str:
    """The address of a file, relative to a page in the folder `out`, whatever bytes its name holds."""
    try:
        relative = os.path.relpath(os.path.abspath(path), os.path.abspath(out))  # noqa: PTH100 (links stay as they are)
    except ValueError:  # on another drive
        return path.absolute().as_uri()
    return urllib.parse.quote(os.fsencode(Path(relative).as_posix()))
