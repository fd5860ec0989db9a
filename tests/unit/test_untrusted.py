"""Files and values that nobody vouches for: an answer at once, never a hang, a traceback or the machine's memory."""

from __future__ import annotations

import numpy as np
import pytest

from labkit.errors import quote, shorten, shown


class Evil(dict):
    def items(self):  # type: ignore[no-untyped-def]
        raise RuntimeError("no")


class Long:
    def __repr__(self) -> str:
        pytest.fail("the repr of an unknown object was built")


ENDLESS: list = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("cat", "'cat'"),
        ({"train": True}, "{'train': True}"),
        ([], "[]"),
        (set(), "set()"),
        (ENDLESS, "[[[…]]]"),
        (list(range(10**6)), "[0, 1, 2, 3, 4, 5, …]"),
        (10**5000, "a whole number of 16610 bits"),  # Python refuses to write its digits
        (np.int64(4), "4"),
        (np.float64(0.5), "0.5"),
        (np.zeros((3, 4)), "ndarray of shape (3, 4) and type float64"),
        (Evil(a=1), "<Evil>"),
        (Long(), "<Long>"),
    ],
    ids=lambda value: type(value).__name__,  # pytest cannot write all of them
)
def test_quotes(value: object, expected: str) -> None:
    assert quote(value) == expected


@pytest.mark.parametrize("text", ["x" * 10**7, "\ud800\n\x1b[31m" * 40, "'" * 61, "\u202e" * 30, b"\xff" * 10**7])
def test_a_quote_is_short_printable_and_can_be_written(text: str | bytes) -> None:
    assert len(quote(text)) <= 60
    assert quote(text).isprintable()
    quote(text).encode()


def test_a_shortened_text_keeps_its_ends() -> None:
    assert shorten("cat") == "cat"
    assert shorten("a\nb") == "a\\nb"
    assert shorten("a" * 30 + "b" * 10**6 + "c" * 30, 21) == "aaaaaaaaaa…cccccccccc"


def test_bytes_of_a_name_that_are_no_text() -> None:
    assert shown("r\udce9s") == "r\\xe9s"
    assert shown("rés") == "rés"
