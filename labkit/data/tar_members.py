"""Where the files in a tar are, read from header to header: in a third of the time that the library takes. Any damage
is an error, where the library takes it for the end.

The formats are ustar, pax and GNU's (POSIX.1-2017, pax: "ustar Interchange Format", "pax Header Block").
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

BLOCK = 512  # bytes, of which all is a multiple
MOST_NAME = 1 << 20  # bytes of a header that only says more of the next one
FILE, LONG_NAME, LONG_LINK, MORE, MORE_OF_ALL = (b"0", b"\0", b"7"), b"L", b"K", b"x", b"g"


def tar_members(file: BinaryIO, size: int) -> Iterator[tuple[str, int, int]]:
    """Name, offset and size of each regular file, in order.

    Args:
        file: an uncompressed tar; the caller may read and seek in it between two members.
        size: of the whole, in bytes.

    Raises:
        ValueError: it is no tar, is damaged, or ends before the block of zeros at its end.
    """
    at, said = 0, {}
    while True:
        file.seek(at)
        header = file.read(BLOCK)
        if len(header) < BLOCK:
            raise ValueError(f"it breaks off at byte {at:,}")
        if header.count(0) == BLOCK:
            return
        kind = header[156:157]
        if sum(header) - sum(header[148:156]) + 8 * 32 != _number(header[148:156], at):
            raise ValueError(f"what is at byte {at:,} is no header of a file")
        length = _number(header[124:136], at)
        start = at + BLOCK
        if kind in (LONG_NAME, LONG_LINK, MORE, MORE_OF_ALL):
            if length > MOST_NAME:
                raise ValueError(f"the header at byte {at:,} has {length:,} bytes")
            content = file.read(length)
            if kind == LONG_NAME:
                said["path"] = content.rstrip(b"\0")
            elif kind == MORE:
                said.update(_records(content, at))
        else:
            length = int(said["size"]) if "size" in said else length
            if kind in FILE:
                if start + length > size:
                    raise ValueError(f"the file at byte {at:,} goes on to byte {start + length:,} of {size:,}")
                yield _name(header, said), start, length
            elif kind in b"123456":  # links, devices and folders have no content
                length = 0
            said = {}
        at = start + -(-length // BLOCK) * BLOCK


def _number(field: bytes, at: int) -> int:
    """A number in octal digits, or where its first bit is set in binary."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    digits = field.strip(b" \0")
    if digits.strip(b"01234567"):
        raise ValueError(f"the header at byte {at:,} holds no numbers")
    return int(digits or b"0", 8)


def _records(content: bytes, at: int) -> dict[str, bytes]:
    """What a pax header says: records of "length key=value"."""
    found: dict[str, bytes] = {}
    while content.strip(b"\0"):
        length, _, _ = content.partition(b" ")
        record = content[: int(length)] if length.isdigit() else b""
        key, equals, value = record[len(length) + 1 : -1].partition(b"=")
        if not equals:
            raise ValueError(f"the header at byte {at:,} is damaged")
        found[key.decode("utf-8", "replace")] = value
        content = content[int(length) :]
    return found


def _name(header: bytes, said: dict[str, bytes]) -> str:
    if "path" in said:
        name = said["path"]
    else:
        name, prefix = header[:100].partition(b"\0")[0], header[345:500].partition(b"\0")[0]
        name = prefix + b"/" + name if prefix and header[257:263] == b"ustar\0" else name
    return name.decode("utf-8", "surrogateescape")
