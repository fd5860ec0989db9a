"""The Hugging Face hub: whether it answers at all, its cache alone while it does not; a cache in the data folder."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from labkit.data.folders import data_dir
from labkit.errors import reason

PATIENCE = 4.0  # seconds that the hub has to answer before it counts as out of reach
STANDS = 60.0  # seconds that an answer stands, for the next model of the same command


class _Question:
    """A question to the hub, asked in a thread: looking up a name may take longer than any timeout of the request."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint, self.asked = endpoint, time.monotonic()
        self._answered = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        from huggingface_hub import get_session

        with contextlib.suppress(Exception):  # no name, no route, refused, too slow: kinds of several libraries
            get_session().head(self.endpoint, timeout=PATIENCE)
            self._answered.set()

    def answer(self) -> bool:
        self._thread.join(max(0.0, self.asked + PATIENCE - time.monotonic()))
        return self._answered.is_set()

    def stands(self, endpoint: str) -> bool:
        return self.endpoint == endpoint and time.monotonic() - self.asked < STANDS


_last: list[_Question] = []  # at most one


def ask_hub() -> None:
    """Ask the hub whether it is there and go on at once: `hub_answers` then knows it the sooner."""
    from huggingface_hub import constants

    if not constants.HF_HUB_OFFLINE and not (_last and _last[0].stands(constants.ENDPOINT)):
        _last[:] = [_Question(constants.ENDPOINT)]


def hub_answers() -> bool:
    """Whether the hub answers within `PATIENCE` seconds of the question, which may have been asked before."""
    ask_hub()
    return bool(_last) and _last[0].answer()


@contextlib.contextmanager
def cache_only_if_unreachable() -> Iterator[None]:
    """While the hub is out of reach, look into its cache alone: else each file is asked for six times, for a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or hub_answers():
        yield
        return
    # as the user would set it; open_clip, timm and datasets have no argument for it
    switches = [constants, *(sys.modules[name] for name in ("datasets.config",) if name in sys.modules)]
    for switch in switches:
        switch.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for switch in switches:
            switch.HF_HUB_OFFLINE = False  # type: ignore[attr-defined]


def hub_problem(error: Exception, manifest_id: str) -> str:
    """The end of a message about what could not be had from the hub: why, in brackets, and what to do."""
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalEntryNotFoundError

    if isinstance(error, LocalEntryNotFoundError | ConnectionError):  # what libraries raise while they look no further
        if constants.HF_HUB_OFFLINE:
            return "(HF_HUB_OFFLINE is set). Unset it and connect to the network once."
        if not hub_answers():
            return "(it does not answer). Connect to the network once."
    return (
        f"({reason(error)}). Connect to the network once (where it has terms, after `hf auth login`); if the hub has "
        f"no such dataset, split or column, correct `source` in the manifest {manifest_id}."
    )


def data_hub() -> Path:
    """The folder for datasets of the hub below the data folder, in the layout of the hub's own cache."""
    return data_dir() / "hub"


def find_snapshot(repo: str, revision: str | None) -> Path | None:
    """The folder of a dataset in `data_hub`, of a commit, tag or branch or of the main one; None where there is none.

    What it holds may not be all of it. Looks at the disk only.
    """
    folder = data_hub() / f"datasets--{repo.replace('/', '--')}"
    root = folder / "snapshots" / (revision or "main")
    if root.is_dir():
        return root
    try:
        commit = (folder / "refs" / (revision or "main")).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    root = folder / "snapshots" / commit
    return root if commit.isalnum() and root.is_dir() else None
