"""Zero-shot: weights from sentences, probabilities against plain NumPy, centering, and errors."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone

from labkit.errors import BackboneError, DataError, FitError
from labkit.spaces.backbones import load_backbone
from labkit.zeroshot.classifier import ZeroShot, text_classifier
from labkit.zeroshot.prompts import Prompts

RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(3, 6)).astype(np.float32)
FEATURES = RNG.normal(size=(20, 6)).astype(np.float32) + 2
PROMPTS = Prompts(["cat", "dog"], [["cat", "kitten"], ["dog"]], ["a {}.", "the {}"])


@dataclass
class Texts:
    """Stands for a backbone: a text's embedding is a function of its letters, of length 1."""

    name: str = "fake:texts"
    dim: int = 8
    fingerprint: str = "0" * 64
    dtype: torch.dtype = torch.float32
    logit_scale: float = 7.0
    asked: list[list[str]] = field(default_factory=list)

    def encode_text(self, texts: list[str]) -> torch.Tensor:
        self.asked.append(texts)
        return torch.tensor(np.stack([self.embed(text) for text in texts]), dtype=torch.float32)

    @staticmethod
    def embed(text: str) -> np.ndarray:
        x = np.random.default_rng([ord(letter) for letter in text]).normal(size=8)
        return x / np.linalg.norm(x)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# weights


def test_a_weight_is_the_normalised_mean_of_the_sentences() -> None:
    weights = text_classifier(Texts(), PROMPTS)
    sentences = [["a cat.", "a kitten.", "the cat", "the kitten"], ["a dog.", "the dog"]]
    for weight, texts in zip(weights, sentences, strict=True):
        mean = np.mean([Texts.embed(text) for text in texts], axis=0)
        np.testing.assert_allclose(weight, mean / np.linalg.norm(mean), atol=1e-6)
    assert weights.dtype == np.float32


def test_weights_are_computed_once_and_again_when_something_changed(own_cache: Path) -> None:
    backbone = Texts()
    first = text_classifier(backbone, PROMPTS)
    np.testing.assert_array_equal(text_classifier(backbone, PROMPTS), first)
    assert len(backbone.asked) == 1
    for other, prompts in (
        (Texts(fingerprint="1" * 64), PROMPTS),
        (Texts(dtype=torch.bfloat16), PROMPTS),
        (Texts(), Prompts(["cat", "dog"], [["cat"], ["kitten", "dog"]], PROMPTS.templates)),  # the same words
        (Texts(), Prompts(PROMPTS.classes, PROMPTS.names, ["a {}."])),
    ):
        text_classifier(other, prompts)
        assert len(other.asked) == 1
    assert len(list(own_cache.rglob("*.safetensors"))) == 5


def test_a_damaged_cache_is_computed_again(own_cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = text_classifier(Texts(), PROMPTS)
    (path,) = own_cache.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-3])
    np.testing.assert_array_equal(text_classifier(Texts(), PROMPTS), first)
    assert "computed again" in caplog.text


def test_without_a_cache_nothing_is_written(own_cache: Path) -> None:
    text_classifier(Texts(), PROMPTS, cache=False)
    assert not own_cache.exists()


@pytest.mark.parametrize("prompts", [Prompts([], []), Prompts(["cat"], [[]]), Prompts(["cat"], [["cat"]], [])])
def test_prompts_without_sentences(prompts: Prompts) -> None:
    with pytest.raises(DataError, match="a class without a sentence"):
        text_classifier(Texts(), prompts)


def test_a_backbone_without_texts() -> None:
    with pytest.raises(BackboneError, match="'pixels' has no text tower"):
        text_classifier(load_backbone("pixels", device="cpu"), PROMPTS)


def test_a_real_model_from_prompts_to_probabilities(pocket_models: Path) -> None:
    backbone = load_backbone("pocket-vit", device="cpu")
    weights = text_classifier(backbone, PROMPTS)
    assert weights.shape == (2, backbone.dim)
    np.testing.assert_allclose(np.linalg.norm(weights, axis=1), 1, atol=1e-5)
    features = backbone.encode_image(torch.randint(0, 256, (4, 48, 48, 3), dtype=torch.uint8)).numpy()
    assert ZeroShot(weights, backbone.logit_scale).predict_proba(features).shape == (4, 2)


# classification


def oracle(features: np.ndarray, weights: np.ndarray, scale: float) -> np.ndarray:
    """Softmax of the scaled cosines, one by one."""
    probs = np.zeros((len(features), len(weights)))
    for i, x in enumerate(features.astype(np.float64)):
        for c, w in enumerate(weights.astype(np.float64)):
            probs[i, c] = np.exp(scale * (x @ w) / np.sqrt(x @ x) / np.sqrt(w @ w))
        probs[i] /= probs[i].sum()
    return probs


def test_probabilities_against_the_oracle() -> None:
    classifier = ZeroShot(WEIGHTS, 7.0)
    expected = oracle(FEATURES, WEIGHTS, 7.0)
    np.testing.assert_allclose(classifier.predict_proba(FEATURES), expected, rtol=1e-4)
    np.testing.assert_array_equal(classifier.predict(FEATURES), expected.argmax(1))
    assert classifier.predict(FEATURES).dtype == np.int64


def test_centered_probabilities_against_the_oracle() -> None:
    unit = FEATURES / np.linalg.norm(FEATURES, axis=1, keepdims=True)
    weights = WEIGHTS / np.linalg.norm(WEIGHTS, axis=1, keepdims=True)
    seen, new = unit[:12], unit[12:]
    expected = oracle(new - seen.mean(0), weights - weights.mean(0), 7.0)
    classifier = ZeroShot(WEIGHTS, 7.0, center=True).fit(FEATURES[:12])
    np.testing.assert_allclose(classifier.predict_proba(FEATURES[12:]), expected, rtol=1e-3)
    assert (classifier.predict(FEATURES) != ZeroShot(WEIGHTS, 7.0).predict(FEATURES)).any()


def test_what_all_pictures_share_favors_no_class_when_centered() -> None:
    classes = np.eye(3, 6)
    true = np.arange(30) % 3
    pictures = classes[true] + 5 * np.array([0, 1, 0, 0, 0, 1.0]) + RNG.normal(scale=0.05, size=(30, 6))
    assert (ZeroShot(classes).predict(pictures) == 1).all()
    assert (ZeroShot(classes, center=True).fit(pictures).predict(pictures) == true).all()


def test_fit_changes_nothing_without_center() -> None:
    plain, fitted = ZeroShot(WEIGHTS), ZeroShot(WEIGHTS).fit(FEATURES)
    np.testing.assert_array_equal(plain.predict_proba(FEATURES), fitted.predict_proba(FEATURES))


def test_fit_ignores_labels() -> None:
    with_labels = ZeroShot(WEIGHTS, center=True).fit(FEATURES, RNG.integers(0, 3, 20))
    np.testing.assert_array_equal(with_labels.mean_, ZeroShot(WEIGHTS, center=True).fit(FEATURES).mean_)


def test_the_length_of_features_and_weights_does_not_matter() -> None:
    lengths = RNG.uniform(0.1, 10, (20, 1))
    probs = ZeroShot(WEIGHTS).predict_proba(FEATURES)
    np.testing.assert_allclose(ZeroShot(3 * WEIGHTS).predict_proba(lengths * FEATURES), probs, rtol=1e-3)


def test_the_probability_of_a_coarse_class_is_that_of_its_members_together() -> None:
    class_of = [1, 0, 1]
    members, classes = ZeroShot(WEIGHTS, 7.0), ZeroShot(WEIGHTS, 7.0, class_of=class_of)
    probs = members.predict_proba(FEATURES)
    expected = np.stack([probs[:, 1], probs[:, 0] + probs[:, 2]], 1)
    np.testing.assert_allclose(classes.predict_proba(FEATURES), expected, rtol=1e-5)
    assert classes.top_k(FEATURES, 2)[0].shape == (20, 2)
    np.testing.assert_allclose(
        ZeroShot(WEIGHTS, 7.0, class_of=[0, 1, 2]).logits(FEATURES), members.logits(FEATURES), rtol=1e-5
    )


def test_of_prompts_synonyms_have_one_weight_and_members_each_their_own() -> None:
    backbone = Texts()
    synonyms = ZeroShot.from_prompts(backbone, PROMPTS, center=True)
    np.testing.assert_array_equal(synonyms.weights, text_classifier(backbone, PROMPTS))
    assert (synonyms.logit_scale, synonyms.class_of, synonyms.center) == (backbone.logit_scale, None, True)
    members = ZeroShot.from_prompts(backbone, replace(PROMPTS, relation="members"))
    assert members.class_of is not None
    np.testing.assert_array_equal(members.class_of, [0, 0, 1])
    np.testing.assert_array_equal(
        members.weights, text_classifier(backbone, Prompts.from_words(["cat", "kitten", "dog"], PROMPTS.templates))
    )


def evenly_spread(shift: float) -> np.ndarray:
    """Images of three equally frequent classes, which share something that `shift` makes look like class 1."""
    common = np.array([0, shift, 0, 0, 0, 1.0])
    return np.eye(3, 6)[np.arange(30) % 3] + common + np.random.default_rng(1).normal(scale=0.05, size=(30, 6))


def test_auto_centres_where_that_makes_the_answers_more_even() -> None:
    classes = np.eye(3, 6)
    hub, fair = (ZeroShot(classes, 10.0, center="auto").fit(evenly_spread(shift)) for shift in (5.0, 0.0))
    assert hub.centered_
    assert (hub.predict(evenly_spread(5.0)) == np.arange(30) % 3).all()
    mostly_one = np.concatenate([evenly_spread(0.0)[1::3]] * 4 + [evenly_spread(0.0)])
    decided = []
    for pictures in (evenly_spread(0.0), mostly_one):
        entropies = []
        for center in (False, True):
            said = ZeroShot(classes, 10.0, center=center).fit(pictures).predict(pictures)
            shares = np.bincount(said) / len(said)
            entropies.append(-(shares * np.log(shares)).sum())
        decided.append(ZeroShot(classes, 10.0, center="auto").fit(pictures).centered_)
        assert decided[-1] == (entropies[1] > entropies[0])
    assert False in decided
    strict = ZeroShot(classes, 10.0, center=fair.centered_).fit(evenly_spread(0.0))
    np.testing.assert_array_equal(fair.predict_proba(FEATURES), strict.predict_proba(FEATURES))


def test_top_k() -> None:
    classifier = ZeroShot(WEIGHTS, 3.0)
    best, probs = classifier.top_k(FEATURES, 2)
    assert best.shape == probs.shape == (20, 2)
    np.testing.assert_array_equal(best[:, 0], classifier.predict(FEATURES))
    assert (probs[:, 0] >= probs[:, 1]).all()
    np.testing.assert_array_equal(np.sort(classifier.top_k(FEATURES, 3)[0]), np.tile(np.arange(3), (20, 1)))
    np.testing.assert_allclose(classifier.top_k(FEATURES, 3)[1].sum(1), 1, rtol=1e-5)


def test_a_picture_without_a_feature_is_undecided() -> None:
    np.testing.assert_allclose(ZeroShot(WEIGHTS).predict_proba(np.zeros((1, 6))), 1 / 3)


def test_it_is_a_scikit_learn_estimator() -> None:
    copy = clone(ZeroShot(WEIGHTS, 7.0, center=True))
    assert copy.get_params()["logit_scale"] == 7.0
    assert not hasattr(copy, "mean_")


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: ZeroShot(WEIGHTS, center=True).predict(FEATURES), r"needs the mean image\. Call fit"),
        (lambda: ZeroShot(WEIGHTS).predict(FEATURES[:, :5]), "the features have 5 numbers each, but the weights 6"),
        (lambda: ZeroShot(WEIGHTS, center=True).fit(FEATURES[:, :5]), "5 numbers each"),
        (lambda: ZeroShot(WEIGHTS).predict(FEATURES * np.nan), "X contains NaN"),
        (lambda: ZeroShot(WEIGHTS * np.nan).predict(FEATURES), "weights contains NaN"),
        (lambda: ZeroShot(WEIGHTS).predict(FEATURES[0]), "Expected 2D array"),
        (lambda: ZeroShot(WEIGHTS).predict(FEATURES[:0]), "0 sample"),
        (lambda: ZeroShot(WEIGHTS, class_of=[0, 1]).predict(FEATURES), "number of a class for each of the 3 weights"),
        (lambda: ZeroShot(WEIGHTS, class_of=[0, 2, 2]).predict(FEATURES), "no number left out"),
        (lambda: ZeroShot(WEIGHTS, class_of=[0, 1, 1]).top_k(FEATURES, 3), "k is 3.*number of classes, 2"),
        (lambda: ZeroShot(WEIGHTS, center="always").fit(FEATURES), "center is 'always'.*\"auto\""),
        (lambda: ZeroShot(WEIGHTS, center="auto").predict(FEATURES), r"center='auto' needs the mean image"),
        (lambda: ZeroShot(WEIGHTS, 0.0).predict(FEATURES), r"logit_scale is 0\.0"),
        (lambda: ZeroShot(WEIGHTS).top_k(FEATURES, 4), "k is 4.*number of classes, 3"),
    ],
)
def test_bad_input_is_named(use: object, message: str) -> None:
    with pytest.raises(FitError, match=message):
        use()  # type: ignore[operator]
