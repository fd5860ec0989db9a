"""A backbone's name that is none: which one was meant? "resnet50" is timm's, "clip-vitb32" nearly one of ours."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MOST = 3  # suggestions


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """A question with the nearest of the known names and of those of timm and open_clip; "" where none is near.

    Args:
        given: what was asked for.
        known: the names that are labkit's own.
    """
    import open_clip
    import timm

    kind, _, rest = given.partition(":")
    if kind == "open_clip" and rest:
        return _question(_pretrained(rest.partition("/")[0]))
    wanted = (rest if kind == "timm" and rest else given).lower()
    ours = {name.lower(): name for name in known}
    if wanted.replace("_", "-") in ours:
        return _question([ours[wanted.replace("_", "-")]])
    of_timm = {name: f"timm:{name}" for tag in timm.list_models(pretrained=True) for name in [tag.partition(".")[0]]}
    if wanted.partition(".")[0] in of_timm:
        return _question([f"timm:{wanted}"])
    if kind != "timm":
        found = _near(wanted, ours, 0.7) or [ours[name] for name in ours if wanted and name.startswith(wanted)]
        models = {name.lower(): name for name in open_clip.list_models()}
        if wanted in models:
            found = _pretrained(models[wanted])[:1] + found
        if found:
            return _question(found)
    return _question(_near(wanted, of_timm, 0.75))


def _pretrained(model: str) -> list[str]:
    """Names for an open_clip model, or for the nearest, with weights."""
    import open_clip

    models = {name.lower(): name for name in open_clip.list_models()}
    for name in _near(model.lower(), models, 0.6):
        if tags := open_clip.list_pretrained_tags_by_model(name):
            return [f"open_clip:{name}/{tag}" for tag in tags]
    return []


def _near(wanted: str, names: dict[str, str], cutoff: float) -> list[str]:
    return [names[near] for near in difflib.get_close_matches(wanted, names, n=MOST, cutoff=cutoff)]


def _question(names: list[str]) -> str:
    return f" Did you mean {' or '.join(names[:MOST])}?" if names else ""
