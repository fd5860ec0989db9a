"""Files that a person gives or asks for: a vocabulary, places to write to, tables."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from labkit._files import atomic_write, expect_writable, open_regular, user_path
from labkit.errors import DataError, quote, shown

LARGEST_VOCABULARY = 1_000_000  # bytes
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet takes a cell that begins so for a formula


# ---------------------------------------------------------------------------------------------------------------- words


def words_file(given: str) -> Path | None:
    """The file that --words names; None where it is a list. A file of that very name wins over a list."""
    path = user_path(given) if given else None
    return path if path is not None and os.path.lexists(path) else None


def read_words(given: str, least: int) -> list[str]:
    """The vocabulary in a file, a word a line, or in a comma list; at least so many different words."""
    path = words_file(given)
    if path is not None:
        lines = _read_lines(path)
    elif "," in given:
        lines = given.split(",")
    else:
        raise DataError(
            f"--words is {quote(given)}, which is neither a list nor a file. Expected words with commas "
            "between them, such as cat,dog,bird, or a file with a word a line."
        )
    words = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    odd = [word for word in words if word != shown(word)]
    if odd:
        raise DataError(f"the word {shown(odd[0])} is not UTF-8. Expected words in UTF-8.")
    if len(words) < least:
        raise DataError(f"--words has {len(words)} different words. Expected at least {least}: add some.")
    return words


def _read_lines(path: Path) -> list[str]:
    try:
        with open_regular(path) as file:
            content = file.read(LARGEST_VOCABULARY + 1)
        if len(content) > LARGEST_VOCABULARY:
            raise OSError(f"it is larger than {LARGEST_VOCABULARY // 1_000_000} MB")
        return content.decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"the file of words {quote(str(path))} cannot be read ({error}). Expected a word a line in UTF-8, or a "
            "list such as cat,dog,bird instead of the file."
        ) from error


# --------------------------------------------------------------------------------------------------------------- places


def expect_places(places: Mapping[str, Path], keep: Mapping[str, Iterable[Path]], images: Path | None = None) -> None:
    """Raise before the work what writing would raise after it, and where it would replace what was given.

    Args:
        places: the file that each option asks for.
        keep: files that were given, by what they are.
        images: the folder of a person's images, in which nothing is written.

    Raises:
        DataError: two options name one file, a file that was given would be replaced, or a place cannot be written or
            lies within the folder of the images.
    """
    option_of: dict[str, str] = {}
    for option, path in places.items():
        other = option_of.setdefault(_real(path), option)
        if other != option:
            raise DataError(f"{other} and {option} are the same file, {path}. Expected two different ones.")
    for what, paths in keep.items():
        for path in paths:
            if (replacing := option_of.get(_real(path))) is not None:
                raise DataError(f"{replacing} would replace {path}, which is {what}. Choose another place.")
    for option, path in places.items():
        if images is not None and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(images)):
            raise DataError(
                f"{option} is {shown(path)}, which lies in {shown(images)}, the folder of the images, where nothing is "
                "changed. Choose another place."
            )
        made = [folder for folder in path.parents if not os.path.lexists(folder)]
        with explain_unwritable(path):
            expect_writable(path)
        for folder in made:  # which that made; there is nothing to write yet
            with contextlib.suppress(OSError):
                folder.rmdir()


def _real(path: Path) -> str:
    """What a path leads to, in a form that is the same for all its spellings, also where case does not count."""
    return os.path.realpath(path).casefold()


@contextlib.contextmanager
def explain_unwritable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error}). Choose another place.") from error


def write_file(path: Path, content: bytes) -> None:
    """Write a file, atomically.

    Raises:
        DataError: it cannot be written.
    """
    with explain_unwritable(path), atomic_write(path) as temporary:
        temporary.write_bytes(content)


# --------------------------------------------------------------------------------------------------------------- tables


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV in UTF-8."""
    write_file(path, csv_text([header, *rows]).encode())


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """A CSV with a line for each row, but for line breaks in a cell, which are quoted whatever they are."""
    lines = []
    for row in rows:
        line = io.StringIO(newline="")
        csv.writer(line, lineterminator="\r\n").writerow(row)  # quotes what is in the end of a line, and nothing else
        lines.append(line.getvalue().removesuffix("\r\n") + "\n")
    return "".join(lines)


def file_cell(path: Path, root: Path) -> str:
    """An image file in a table: its path below the folder of the images, which no spreadsheet takes for a formula."""
    name = shown(path.relative_to(root).as_posix() if path.is_relative_to(root) else path)
    return f"./{name}" if name.startswith(FORMULA) else name


def word_cell(word: str) -> str:
    """A word in a table, which no spreadsheet takes for a formula."""
    return f"'{word}" if word.startswith(FORMULA) else word
