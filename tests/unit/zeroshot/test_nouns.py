"""The shipped nouns: what the list must and must not hold, and its license."""

from __future__ import annotations

import re

from labkit.zeroshot.nouns import FILE, read_nouns


def test_there_are_some_thousand_everyday_words_first() -> None:
    nouns, n_everyday = read_nouns()
    assert 2000 < len(nouns) < 4000
    assert len(set(nouns)) == len(nouns)
    assert all(re.fullmatch(r"[a-z]+([ -][a-z]+)*", noun) for noun in nouns)
    assert nouns[:n_everyday] == sorted(nouns[:n_everyday])
    assert nouns[n_everyday:] == sorted(nouns[n_everyday:])
    assert {"dog", "shoe", "t-shirt", "apple", "tree"} <= set(nouns[:n_everyday])
    assert {"abbey", "tadpole"} <= set(nouns[n_everyday:])


def test_nothing_that_a_class_should_not_read() -> None:
    nouns, _ = read_nouns()
    assert not set(nouns) & {"ass", "cock", "bong", "brothel", "fetus", "marijuana", "concentration camp", "tampon"}


def test_the_license_lies_beside_them() -> None:
    text = FILE.with_name("NOUNS_LICENSE").read_text("utf-8")
    assert "Princeton University" in text
    assert "without fee or" in text
