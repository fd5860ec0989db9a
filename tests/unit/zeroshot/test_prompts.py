"""Prompts: the shipped files fit their manifests, and a wrong one is explained."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from pathlib import Path

import pytest
import yaml

from labkit.data.manifests import list_manifests, load_manifest, manifests_dir
from labkit.data.schema import Manifest
from labkit.errors import DataError, ManifestError
from labkit.zeroshot.prompts import Prompts, load_prompts

GOOD = {"templates": ["a photo of a {}.", "{}"], "classes": {"cat": ["cat", "kitten"], "dog": ["dog"]}}


def manifest(folder: Path, prompts: object = GOOD) -> Manifest:
    """A manifest with two classes beside a file of prompts."""
    data = {
        "id": "mine",
        "title": "Mine",
        "task": "any",
        "classes": ["cat", "dog"],
        "splits": {"train": {"size": 2, "how": "all"}},
        "source": {"kind": "folder", "path": "pictures"},
        "prompts": "words/mine.yaml",
        **dict.fromkeys(("license", "citation", "homepage"), "unknown"),
    }
    (folder / "words").mkdir(exist_ok=True)
    text = prompts if isinstance(prompts, str) else yaml.safe_dump(prompts, sort_keys=False)
    (folder / "words" / "mine.yaml").write_text(text, encoding="utf-8")
    (folder / "mine.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    return load_manifest(folder / "mine.yaml")


@pytest.mark.parametrize("name", list_manifests())
def test_every_shipped_dataset_has_prompts_that_fit(name: str) -> None:
    prompts = load_prompts(name)
    assert prompts.classes == load_manifest(name).classes
    assert load_manifest(name).prompts is not None
    words = Counter(word.lower() for word in chain(*prompts.names))
    # CLIP's authors call two pairs of ImageNet's classes by one word
    both = {"missile": 2, "sunglasses": 2} if name == "imagenet" else {}
    assert {word: n for word, n in words.items() if n > 1} == both, "a word that names two classes, or one twice"
    for template in prompts.templates:
        assert template.count("{}") == 1


def test_no_file_of_prompts_is_left_over() -> None:
    used = {load_manifest(name).prompts for name in list_manifests()}
    assert used == {str(path) for path in manifests_dir().resolve().glob("prompts/*.yaml")}


def test_synonyms_and_members() -> None:
    assert "sweater" in load_prompts("fashion-mini").names[2]
    assert load_prompts("fashion-mini") == load_prompts("fashion-mnist")
    emoji = load_prompts("emoji-unseen")
    assert {"dog", "cat", "bird", "fish"} <= set(emoji.names[emoji.classes.index("animal")])
    assert all(len(words) >= 20 for words in emoji.names)
    assert (emoji.relation, load_prompts("fashion-mini").relation) == ("members", "synonyms")
    assert "the number seven" in load_prompts("digits").texts(7)


def test_texts_are_every_template_with_every_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.yaml"
    manifest(tmp_path)
    monkeypatch.chdir("/")  # the file is found beside the manifest
    prompts = load_prompts(path)
    assert prompts.texts(0) == ["a photo of a cat.", "a photo of a kitten.", "cat", "kitten"]
    assert prompts.texts(1) == ["a photo of a dog.", "dog"]


def test_words_are_synonyms_unless_the_file_says_members(tmp_path: Path) -> None:
    assert load_prompts(manifest(tmp_path)).relation == "synonyms"
    assert load_prompts(manifest(tmp_path, {"relation": "members", **GOOD})).relation == "members"


def test_a_word_may_hold_braces() -> None:
    assert Prompts.from_words(["{x}"]).texts(0) == ["a photo of a {x}."]


def test_prompts_of_names_or_of_names_with_words() -> None:
    assert Prompts.from_words(["cat", "dog"]) == Prompts(["cat", "dog"], [["cat"], ["dog"]])
    given = {"ball": ["ball", "sphere"], "star": ("star",)}
    assert Prompts.from_words(given, ["{}"], relation="members") == Prompts(
        ["ball", "star"], [["ball", "sphere"], ["star"]], ["{}"], "members"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ball"], r"got the text 'ball'. Expected lists"),
        ([["ball"], "a photo of a {}."], "got the text 'a photo"),
        ([[]], None),
        ([["cat", "cat"]], "Expected a different text for each"),
        ([[["ball", "sphere"], ["star"]]], r'a mapping: \{"ball"'),
        ([["cat", " "]], "Expected a different text"),
        ([{"ball": "sphere"}], "the names of 'ball' are 'sphere'"),
        ([{"ball": []}], "Expected a list of at least one text"),
        ([["cat"], []], r"the templates are \[\]"),
        ([["cat"], ["a photo"]], r"sentences with \{\} in them"),
    ],
)
def test_prompts_of_what_are_no_words(arguments: list, message: str | None) -> None:
    if message is None:
        assert Prompts.from_words(*arguments).classes == []  # `text_classifier` says what is missing
        return
    with pytest.raises(DataError, match=message):
        Prompts.from_words(*arguments)


def test_without_a_file_the_class_names_are_the_words(tmp_path: Path) -> None:
    bare = Manifest.model_validate(manifest(tmp_path).model_dump() | {"prompts": None})
    assert load_prompts(bare) == Prompts(["cat", "dog"], [["cat"], ["dog"]], ("a photo of a {}.",))


def test_no_classes_no_prompts(tmp_path: Path) -> None:
    bare = Manifest.model_validate(manifest(tmp_path).model_dump() | {"classes": []})
    with pytest.raises(ManifestError, match=r"mine has no classes to name.*Prompts\.from_words"):
        load_prompts(bare)


def test_a_missing_file(tmp_path: Path) -> None:
    mine = manifest(tmp_path)
    (tmp_path / "words" / "mine.yaml").unlink()
    with pytest.raises(ManifestError, match=r"no file of prompts .*words/mine\.yaml\. Correct `prompts`"):
        load_prompts(mine)


CLASSES = GOOD["classes"]


@pytest.mark.parametrize(
    ("changes", "named", "cure"),
    [
        ({"templates": []}, "`templates`: got []", "one {} each"),
        ({"templates": ["a photo."]}, "`templates.0`: got 'a photo.'", "one {} each"),
        ({"templates": ["{} and {}"]}, "`templates.0`", "one {} each"),
        ({"templates": ["a photo of a {name}."]}, "`templates.0`", "one {} each"),
        ({"templates": [{"a": None}]}, "`templates.0`", "in quotes"),
        (
            {"templats": ["{}"]},
            "`templats`: unknown key. Did you mean 'templates'?",
            "Allowed here: templates, relation, classes",
        ),
        ({"relation": "parts"}, "`relation`: got 'parts'", "'synonyms' (names of one thing) or 'members'"),
        ({"classes": {"cat": ["cat"]}}, "`classes` lacks 'dog'", "add it with its names"),
        ({"classes": {**CLASSES, "dogs": ["x"]}}, "`classes.dogs`: no class of mine.", "Did you mean 'dog'?"),
        ({"classes": dict(reversed(CLASSES.items()))}, "in another order", "expected cat, dog"),
        ({"classes": {"cat": [], "dog": ["dog"]}}, "`classes.cat`: got []", "a list of its names"),
        ({"classes": {"cat": "cat", "dog": ["dog"]}}, "`classes.cat`: got 'cat'", "a list of its names"),
        ({"classes": {"cat": [7], "dog": ["dog"]}}, "`classes.cat.0`: got 7", "need quotes"),
        ({"classes": {7: ["seven"]}}, "`classes.7", "need quotes"),
    ],
)
def test_error_names_file_key_and_cure(tmp_path: Path, changes: dict, named: str, cure: str) -> None:
    mine = manifest(tmp_path, GOOD | changes)
    with pytest.raises(ManifestError) as caught:
        load_prompts(mine)
    assert str(tmp_path / "words" / "mine.yaml") in str(caught.value)
    assert named in str(caught.value)
    assert cure in str(caught.value)


def test_templates_are_needed(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"`templates` is missing: add a list of sentences"):
        load_prompts(manifest(tmp_path, {"classes": CLASSES}))


@pytest.mark.parametrize(("text", "message"), [("a: [", "not valid YAML"), ("- a", "holds list, expected a mapping")])
def test_text_that_holds_no_prompts(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        load_prompts(manifest(tmp_path, text))
