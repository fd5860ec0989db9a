"""The hub: asked once, early, for seconds at most; nothing is asked of it while it is known to be out of reach."""

from __future__ import annotations

import socket
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from labkit.data import hub
from labkit.data.datasets import load_dataset
from labkit.errors import DataError


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A hub that takes every call and never says a word."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        yield constants.ENDPOINT


def test_a_hub_that_was_asked_early_is_not_waited_for_twice(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "PATIENCE", 0.6)
    started = time.perf_counter()
    hub.ask_hub()
    assert time.perf_counter() - started < 0.5
    time.sleep(0.6)
    started = time.perf_counter()
    assert [hub.hub_answers() for _ in range(20)] == [False] * 20
    assert time.perf_counter() - started < 0.5


def test_an_answer_stands_for_one_hub_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Session:
        def head(self, url: str, timeout: float) -> None:
            assert timeout <= 4
            asked.append(url)

    monkeypatch.setattr("huggingface_hub.get_session", Session)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "https://one.invalid")
    assert hub.hub_answers()
    assert hub.hub_answers()
    assert asked == ["https://one.invalid"]
    monkeypatch.setattr(constants, "ENDPOINT", "https://two.invalid")
    assert hub.hub_answers()
    monkeypatch.setattr(hub, "STANDS", 0.0)
    assert hub.hub_answers()
    assert asked == ["https://one.invalid", "https://two.invalid", "https://two.invalid"]


def test_offline_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_session", lambda: pytest.fail("asked"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.ask_hub()
    with hub.cache_only_if_unreachable():
        assert constants.HF_HUB_OFFLINE


def test_datasets_of_a_hub_out_of_reach(silent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = types.SimpleNamespace(HF_HUB_OFFLINE=False)

    def load(*args: object, **kwargs: object) -> None:
        assert config.HF_HUB_OFFLINE
        raise ConnectionError("offline")

    monkeypatch.setattr(hub, "PATIENCE", 0.3)
    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load))
    monkeypatch.setitem(sys.modules, "datasets.config", config)
    manifest = tmp_path / "mine.yaml"
    manifest.write_text(
        "id: mine\ntitle: t\ntask: t\nclasses: [a, b]\nsplits: {train: {size: 2, how: all}}\n"
        "source: {kind: huggingface, repo: me/mine, image: img, label: fine, splits: {train: train}}\n"
        "license: unknown\ncitation: unknown\nhomepage: unknown\n"
    )
    said = r"me/mine cannot be loaded from the Hugging Face hub \(it does not answer\)\. Connect to the network once\.$"
    with pytest.raises(DataError, match=said):
        load_dataset(manifest)
    assert not config.HF_HUB_OFFLINE
    assert not constants.HF_HUB_OFFLINE
