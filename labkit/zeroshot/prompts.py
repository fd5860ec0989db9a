"""Prompts: the words and sentences that name the classes of a dataset for an image-text model.

Several words a class in several sentence templates (Radford et al., ICML 2021, section 3.1.4). The words are synonyms,
or the members of a coarse class (CHiLS: Novack et al., ICML 2023). They are written from what the classes mean; where
labels were looked at on the way, the file says so.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from labkit.data.manifests import load_manifest, read_yaml, validate
from labkit.data.schema import Manifest, Strict
from labkit.errors import DataError, ManifestError, did_you_mean, quote

TEMPLATES = ("a photo of a {}.",)


@dataclass(frozen=True)
class Prompts:
    """The words for each class, and the sentences that they are put into.

    Attributes:
        classes: C names.
        names: for each class its names, at least one.
        templates: sentences with one {} each, the place of a name.
        relation: what the names of a class are to each other. "synonyms" name one thing, and their mean stands for it;
            "members" are the things that a coarse class holds, and each is a candidate of its own.
    """

    classes: Sequence[str]
    names: Sequence[Sequence[str]]
    templates: Sequence[str] = TEMPLATES
    relation: Literal["synonyms", "members"] = "synonyms"

    def __post_init__(self) -> None:
        texts = [*self._several(self.classes), *self._several(self.templates)]
        names = [self._several(of_class) for of_class in self._several(self.names)]
        if len(names) != len(self.classes) or not all(isinstance(text, str) for text in chain(texts, *names)):
            raise DataError(
                f"the names of the classes {quote(self.classes)} are {quote(self.names)}. Expected a list of texts "
                "for each class: Prompts.from_words makes it."
            )

    def _several(self, given: Any) -> list[Any]:
        """What is given in a list or the like, or a DataError."""
        if isinstance(given, str) or not isinstance(given, Sequence):
            raise DataError(
                f"the prompts hold {quote(given)}. Expected a list: Prompts.from_words makes prompts of your words."
            )
        return list(given)

    @classmethod
    def from_words(
        cls,
        classes: Sequence[str] | Mapping[str, Sequence[str]],
        templates: Sequence[str] = TEMPLATES,
        *,
        relation: Literal["synonyms", "members"] = "synonyms",
    ) -> Prompts:
        """Prompts from names of classes, or from a mapping of each class to its names.

        Raises:
            DataError: classes, names or templates are missing, no texts, the same twice, or in no order (a set).
        """
        if isinstance(classes, str) or isinstance(templates, str):
            raise DataError(
                f"got the text {quote(classes if isinstance(classes, str) else templates)}. Expected lists: "
                'Prompts.from_words(["cat", "dog"], ["a photo of a {}."]).'
            )
        names = _in_order(classes)
        if names is None or len(set(names)) != len(names):
            raise DataError(
                f"the classes are {quote(classes)}. Expected a different text for each, in a list; where a class has "
                'several names, a mapping: {"ball": ["ball", "sphere"], "star": ["star"]}.'
            )
        given = classes if isinstance(classes, Mapping) else {name: [name] for name in names}
        several = {name: _in_order(given[name]) or [] for name in names}
        for name, of_class in several.items():
            if not of_class:
                raise DataError(
                    f"the names of {quote(name)} are {quote(given[name])}. Expected a list of at least one text."
                )
        if not all("{}" in sentence for sentence in _in_order(templates) or [""]):
            raise DataError(f"the templates are {quote(templates)}. Expected sentences with {{}} in them, in a list.")
        if not isinstance(relation, str) or relation not in ("synonyms", "members"):
            raise DataError(f'relation is {quote(relation)}. Expected "synonyms" or "members".')
        return cls(names, list(several.values()), templates, relation)

    def texts(self, i: int) -> list[str]:
        """All sentences for class i: every template with every name."""
        return [template.replace("{}", name) for template in self.templates for name in self.names[i]]


def _in_order(texts: Any) -> list[str] | None:
    """Texts that are not blank as a list; None for everything else, and for sets, whose order differs from run to run.

    Of a mapping, its keys.
    """
    if isinstance(texts, str | set | frozenset) or not isinstance(texts, Collection) or getattr(texts, "ndim", 1) != 1:
        return None
    several = list(texts)
    return several if all(isinstance(text, str) and text.strip() for text in several) else None


class _PromptFile(Strict):
    what: ClassVar[str] = "file of prompts"
    templates: list[Annotated[str, Field(pattern=r"^[^{}]*\{\}[^{}]*$")]] = Field(
        min_length=1, description="a list of sentences with one {} each, such as 'a photo of a {}.' (in quotes)"
    )
    relation: Literal["synonyms", "members"] = Field(
        default="synonyms",
        description="'synonyms' (names of one thing) or 'members' (things that a coarse class holds)",
    )
    classes: dict[str, Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]] = Field(
        description="for every class of the manifest a list of its names, each text ('7' and 'no' need quotes)"
    )


def load_prompts(manifest: Manifest | str | Path) -> Prompts:
    """The prompts of a dataset: from the file that its manifest names, else its class names in "a photo of a {}."

    Args:
        manifest: a manifest, or what `load_manifest` takes.

    Raises:
        ManifestError: the file is missing or malformed, its classes are not the manifest's, or there are no classes.
    """
    manifest = manifest if isinstance(manifest, Manifest) else load_manifest(manifest)
    if not manifest.classes:
        raise ManifestError(
            f"{manifest.id} has no classes to name. Make prompts of your words: Prompts.from_words(['cat', …])."
        )
    if manifest.prompts is None:
        return Prompts.from_words(manifest.classes)
    path = Path(manifest.prompts)
    if not os.path.isfile(path):  # noqa: PTH113 (says no where pathlib raises)
        raise ManifestError(f"there is no file of prompts {path}. Correct `prompts` in the manifest {manifest.id}.")
    given = validate(path, read_yaml(path, _PromptFile), _PromptFile)
    problems = [
        f"`classes` lacks {name!r}: add it with its names." for name in manifest.classes if name not in given.classes
    ]
    for name in given.classes:
        if name not in manifest.classes:
            problems.append(f"`classes.{name}`: no class of {manifest.id}.{did_you_mean(name, manifest.classes)}")
    if not problems and list(given.classes) != manifest.classes:
        problems = [f"`classes` is in another order than in the manifest: expected {', '.join(manifest.classes)}."]
    if problems:
        raise ManifestError(f"{path} does not fit the manifest {manifest.id}:\n  " + "\n  ".join(problems))
    return Prompts(manifest.classes, list(given.classes.values()), given.templates, given.relation)
