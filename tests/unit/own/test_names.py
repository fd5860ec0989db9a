"""Names of found clusters: with words, without, none of these; and the lines that tell them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from labkit.errors import BackboneError, DataError
from labkit.own.names import lines, name_found
from labkit.spaces.backbones import load_backbone
from labkit.zeroshot.nouns import read_nouns

NOUNS, _ = read_nouns()
DIM = 256


def place(text: str) -> np.ndarray:
    """Where the model below puts a text: a direction of its word."""
    word = re.sub(r"^a photo of a |\.$", "", text)
    return np.random.default_rng(list(word.encode())).normal(size=DIM)


class Model:
    """An image-text model in which every word is a random direction, and images lie where their word is."""

    name, dim, fingerprint, dtype, logit_scale = "made-up", DIM, "made-up", torch.float32, 100.0

    def encode_text(self, texts: list[str]) -> torch.Tensor:
        rows = np.stack([place(text) for text in texts])
        return torch.from_numpy(rows / np.linalg.norm(rows, axis=1, keepdims=True)).float()


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Any:
    import labkit.own.names as module
    from labkit.zeroshot.classifier import text_classifier

    monkeypatch.setattr(module, "text_classifier", lambda *given: text_classifier(*given, cache=False))
    return Model()


def images(*words: str, each: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Labels as probabilities and features of a cluster of images for each word."""
    rng = np.random.default_rng(0)
    features = np.concatenate([place(word) + 0.3 * rng.normal(size=(each, DIM)) for word in words])
    return np.repeat(np.eye(len(words)), each, axis=0), features


def test_words_that_fit_are_given_and_may_be_given_twice(model: Any) -> None:
    probs, features = images("dog", "shoe", "lamp")
    probs = np.concatenate([probs, np.zeros((36, 1))], axis=1)
    probs[:6] = [0, 0, 0, 1]
    found = name_found(probs, model, features, ["lamp", "dog", "shoe"])
    assert found.names == ["dog", "shoe", "lamp", "dog"]
    assert (found.confidence > 0.5).all()
    assert found.confidence.shape == (4,)
    assert [ideas[0] for ideas in found.suggestions] == found.names


def test_none_of_these(model: Any) -> None:
    probs, features = images("dog", "shoe", "lamp")
    found = name_found(probs, model, features, ["dog", "piano"])
    assert found.names == ["dog", "", ""]
    assert np.isnan(found.confidence).tolist() == [False, True, True]
    assert found.suggestions[1][0] == "shoe"


def test_without_words_there_are_suggestions_only(model: Any) -> None:
    probs, features = images("dog", "tadpole")
    found = name_found(probs, model, features)
    assert found.names == ["", ""]
    assert np.isnan(found.confidence).all()
    assert [len(ideas) for ideas in found.suggestions] == [3, 3]
    assert [ideas[0] for ideas in found.suggestions] == ["dog", "tadpole"]
    assert all(set(ideas) <= set(NOUNS) for ideas in found.suggestions)


def test_an_empty_cluster_has_nothing(model: Any) -> None:
    probs, features = images("dog", "shoe")
    found = name_found(np.insert(probs, 1, 0.0, axis=1), model, features, ["dog", "shoe"])
    assert found.names == ["dog", "", "shoe"]
    assert found.suggestions[1] == []


def test_the_lines() -> None:
    clusters = pd.DataFrame(
        {
            "cluster": [0, 1, 2, 4],
            "size": [1056, 12, 1, 3],
            "name": ["dog", "", "cat", "mine"],
            "name_confidence": [0.834, np.nan, 0.5, np.nan],
            "suggestions": [["dog"], ["lizard", "frog", "newt"], [], []],
        }
    )
    assert lines(clusters, True) == [
        "cluster 0 (1,056 images): dog, confidence 0.83",
        "cluster 1 (12 images): none of these; perhaps lizard, frog, newt",
        "cluster 2 (1 image): cat, confidence 0.50",
        "cluster 4 (3 images): mine",
    ]
    assert lines(clusters[1:2], False) == ["cluster 1 (12 images): perhaps lizard, frog, newt"]


def test_errors(model: Any) -> None:
    probs, features = images("dog", "shoe")
    with pytest.raises(DataError, match="different text"):
        name_found(probs, model, features, ["dog", "dog"])
    with pytest.raises(DataError, match="different text"):
        name_found(probs, model, features, {"dog", "shoe"})  # type: ignore[arg-type]
    with pytest.raises(DataError, match="same images"):
        name_found(probs, model, features[1:], ["dog"])
    with pytest.raises(BackboneError):
        name_found(probs, load_backbone("pixels"), features, ["dog"])


def test_with_pocket_clip_twice_the_same() -> None:
    backbone = load_backbone("pocket-clip", device="cpu")
    rng = np.random.default_rng(0)
    probs, features = np.repeat(np.eye(3), 5, axis=0), rng.normal(size=(15, backbone.dim))
    once, again = (name_found(probs, backbone, features, ["dog", "cat"]) for _ in range(2))
    assert once.names == again.names
    assert once.suggestions == again.suggestions
    np.testing.assert_array_equal(once.confidence, again.confidence)
