"""One file copied, linked or moved to a place where nothing is: whole or not there, and nothing is ever replaced."""

from __future__ import annotations

import contextlib
import errno
import filecmp
import hashlib
import os
import shutil
from pathlib import Path

from labkit._files import CHUNK, file_sha256, open_regular, sync_folder

# where an error of `os.link` is the file's or the disk's own, and not that there are no hard links
FINAL = (errno.EEXIST, errno.EXDEV, errno.ENOENT, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG)


def copy_file(source: Path, target: Path, scratch: Path) -> None:
    """Copy a file, with its times and mode, and sync it; a link is followed.

    Args:
        source: a regular file.
        target: where nothing is.
        scratch: a folder of this process alone on the target's file system.

    Raises:
        OSError: it cannot be; FileExistsError where something is there.
    """
    _copy(source, target, scratch)


def link_file(source: Path, target: Path) -> None:
    """Make a symbolic link to a file, relative where the system has a relative path between the two.

    Raises:
        OSError: it cannot be; FileExistsError where something is there.
    """
    target.symlink_to(link_text(source, target))  # never replaces


def link_text(source: Path, target: Path) -> str:
    """What a link at `target` to `source` reads."""
    place = Path(os.path.realpath(source.parent), source.name)
    try:
        return os.path.relpath(place, os.path.realpath(target.parent))
    except ValueError:  # two drives
        return str(place)


def move_file(source: Path, target: Path, scratch: Path, *, link: str | None = None) -> None:
    """Move a file; to another file system as a copy that is read back and compared before the source is removed.

    A symbolic link is moved itself, and leads to the same file afterwards.

    Args:
        source: a file, or a link to one.
        target: where nothing is.
        scratch: a folder of this process alone on the target's file system.
        link: what the link at the target is to read; None is the full path of what it leads to.

    Raises:
        OSError: it cannot be; the source is then still there. FileExistsError where something is at the target.
    """
    if source.is_symlink():
        target.symlink_to(Path(os.path.realpath(source.parent), source.readlink()) if link is None else link)
        source.unlink()
        return
    try:
        _place(source, target)
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    before = source.stat()
    digest = _copy(source, target, scratch)
    after = source.stat()
    changed = (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns)
    if changed or file_sha256(target) != digest:
        target.unlink()
        raise OSError(errno.EIO, "the copy is not what the file is now", str(source))
    sync_folder(target.parent)
    source.unlink()


def same_content(a: Path, b: Path, *, quick: bool = False) -> bool:
    """Whether two files hold the same bytes; `quick` believes equal sizes and times of change."""
    try:
        return filecmp.cmp(a, b, shallow=quick)
    except OSError:
        return False


def free_space(folder: Path) -> int:
    """Bytes that are free on the disk of a folder, which need not be there yet."""
    return shutil.disk_usage(_above(folder)).free


def size_on(source: Path, folder: Path, *, moved: bool) -> int:
    """Bytes that a file will take on the disk of a folder; none where it is moved within that disk, or is gone."""
    try:
        found = source.stat()
    except OSError:
        return 0
    return 0 if moved and found.st_dev == _above(folder).stat().st_dev else found.st_size


def size_text(n: int) -> str:
    """So many bytes, for people."""
    return f"{n / 1e9:,.1f} GB" if n >= 1e9 else f"{n / 1e6:,.1f} MB"


def _above(folder: Path) -> Path:
    """The folder, or the first above it that is there."""
    return next(path for path in (folder, *folder.absolute().parents) if path.is_dir())


def _copy(source: Path, target: Path, scratch: Path) -> str:
    """Copy, sync, and give the copy its name; the SHA-256 of what was read."""
    made, digest = scratch / "copy", hashlib.sha256()
    try:
        with open_regular(source) as read, made.open("wb") as written:
            while chunk := read.read(CHUNK):
                digest.update(chunk)
                written.write(chunk)
            written.flush()
            os.fsync(written.fileno())
        with contextlib.suppress(OSError):  # file systems without modes or times
            shutil.copystat(source, made)
        _place(made, target)
    finally:
        with contextlib.suppress(OSError):
            made.unlink(missing_ok=True)
    return digest.hexdigest()


def _place(made: Path, target: Path) -> None:
    """Give a file another name on its file system, where nothing is."""
    try:
        os.link(made, target)  # unlike a rename, never replaces
    except OSError as error:
        if error.errno in FINAL:
            raise
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "something is there", str(target)) from error
        made.rename(target)  # no hard links here
    else:
        made.unlink()
