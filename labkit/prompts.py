"""Prompts: the words and sentences that name the classes of a dataset for an image-text model.

Several words a class in several sentence templates (Radford et al., ICML 2021, section 3.1.4). The words are synonyms,
or the members of a coarse class (CHiLS: Novack et al., ICML 2023). They are written from what the classes mean, never
from labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from labkit.errors import ManifestError
from labkit.manifests import Manifest, Strict, closest, load_manifest, read_yaml, validate

TEMPLATES = ("a photo of a {}.",)


@dataclass(frozen=True)
class Prompts:
    """The words for each class, and the sentences that they are put into.

    Attributes:
        classes: C names.
        phrases: for each class its words, at least one.
        templates: sentences with one {} each, the place of a word.
        words: what the words of a class are to each other. "synonyms" are names of one thing, and their mean stands for
            it; "members" are the things that a coarse class holds, and each is a candidate of its own.
    """

    classes: Sequence[str]
    phrases: Sequence[Sequence[str]]
    templates: Sequence[str] = TEMPLATES
    words: Literal["synonyms", "members"] = "synonyms"

    @classmethod
    def of(cls, words: Sequence[str], templates: Sequence[str] = TEMPLATES) -> Prompts:
        """Prompts for classes that are called what they are."""
        return cls(list(words), [[word] for word in words], templates)

    def texts(self, i: int) -> list[str]:
        """All sentences for class i: every template with every word."""
        return [template.replace("{}", phrase) for template in self.templates for phrase in self.phrases[i]]


class _PromptFile(Strict):
    what: ClassVar[str] = "file of prompts"
    templates: list[Annotated[str, Field(pattern=r"^[^{}]*\{\}[^{}]*$")]] = Field(
        min_length=1, description="a list of sentences with one {} each, such as 'a photo of a {}.' (in quotes)"
    )
    words: Literal["synonyms", "members"] = Field(
        default="synonyms",
        description="'synonyms' (names of one thing) or 'members' (things that a coarse class holds)",
    )
    classes: dict[str, Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]] = Field(
        description="for every class of the manifest a list of words, each text ('7' and 'no' need quotes)"
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
            f"{manifest.id} has no classes to name. Make prompts of your words: Prompts.of(['cat', …])."
        )
    if manifest.prompts is None:
        return Prompts.of(manifest.classes)
    path = Path(manifest.prompts)
    if not path.is_file():
        raise ManifestError(f"there is no file of prompts {path}. Correct `prompts` in the manifest {manifest.id}.")
    given = validate(path, read_yaml(path, _PromptFile), _PromptFile)
    problems = [
        f"`classes` lacks {name!r}: add it with its words." for name in manifest.classes if name not in given.classes
    ]
    for name in given.classes:
        if name not in manifest.classes:
            problems.append(f"`classes.{name}`: no class of {manifest.id}.{closest(name, manifest.classes)}")
    if not problems and list(given.classes) != manifest.classes:
        problems = [f"`classes` is in another order than in the manifest: expected {', '.join(manifest.classes)}."]
    if problems:
        raise ManifestError(f"{path} does not fit the manifest {manifest.id}:\n  " + "\n  ".join(problems))
    return Prompts(manifest.classes, list(given.classes.values()), given.templates, given.words)
