"""A backbone's name that is none: which one was meant? "resnet50" is timm's, "clip-vitb32" nearly one of ours."""

from __future__ import annotations

from collections.abc import Iterable

from labkit.errors import nearest, suggestion

MOST = 3  # suggestions


def ask_which(given: str, known: Iterable[str]) -> str:
    """A question with the nearest of the known names and of those of timm and open_clip; "" where none is near.

    Args:
        given: what was asked for.
        known: the names that are labkit's own.
    """
    import open_clip
    import timm

    kind, _, rest = given.partition(":")
    if kind == "open_clip" and rest:
        return suggestion(_pretrained(rest.partition("/")[0])[:MOST])
    wanted = (rest if kind == "timm" and rest else given).lower()
    ours = {name.lower(): name for name in known}
    if wanted.replace("_", "-") in ours:
        return suggestion([ours[wanted.replace("_", "-")]])
    of_timm = {name: f"timm:{name}" for tag in timm.list_models(pretrained=True) for name in [tag.partition(".")[0]]}
    if wanted.partition(".")[0] in of_timm:
        return suggestion([f"timm:{wanted}"])
    if kind != "timm":
        found = nearest(wanted, ours.values(), most=MOST, cutoff=0.7)
        found = found or [ours[name] for name in ours if wanted and name.startswith(wanted)]
        models = {name.lower(): name for name in open_clip.list_models()}
        if wanted in models:
            found = _pretrained(models[wanted])[:1] + found
        if found:
            return suggestion(found[:MOST])
    return suggestion([of_timm[name] for name in nearest(wanted, of_timm, most=MOST, cutoff=0.75)])


def _pretrained(model: str) -> list[str]:
    """Names for an open_clip model, or for the nearest, with weights."""
    import open_clip

    for name in nearest(model, open_clip.list_models(), most=MOST):
        if tags := open_clip.list_pretrained_tags_by_model(name):
            return [f"open_clip:{name}/{tag}" for tag in tags]
    return []
