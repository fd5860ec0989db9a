"""Nouns for things that one can see, which clusters are named with where no words are given.

Some thousand words from WordNet (Fellbaum, WordNet: An Electronic Lexical Database, 1998), whose license lies beside
them in NOUNS_LICENSE; labkit/pocket/recipe/nouns.py chose them. They are a suggestion and no complete vocabulary.
"""

from __future__ import annotations

from pathlib import Path

FILE = Path(__file__).with_name("nouns.txt")


def read_nouns() -> tuple[list[str], int]:
    """The shipped nouns, all different, in small letters, and how many of them, the first, are everyday words."""
    everyday, _, others = FILE.read_text("utf-8").partition("\n\n")
    first = everyday.splitlines()
    return first + others.splitlines(), len(first)
