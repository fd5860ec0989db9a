"""Files that are either the old one or the new one, never half of one; folders that one process writes to at a time.

Readers need no lock, since a file appears at once and whole. What a killed process left is taken away by the next one
that writes the same file.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout
from platformdirs import user_cache_dir

from labkit.errors import DataError, quote

LOCK = ".labkit-lock"
CHUNK = 1 << 20
PACKAGE_DIR = Path(__file__).resolve().parent


# --------------------------------------------------------------------------------------------------------------- places


def shipped_dir(name: str) -> Path:
    """A folder that ships, "notebooks" or "data_manifests": inside an installed package, beside it in a checkout."""
    inside = PACKAGE_DIR / name
    return inside if inside.is_dir() else PACKAGE_DIR.parent / name


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path that a person gave: ~ and ~name stand for home folders; where there is no such home, for themselves."""
    if not os.fsdecode(path).startswith("~"):  # as ./~root does not, which Path would shorten
        return Path(path)
    try:
        return Path(path).expanduser()
    except RuntimeError:  # a folder that is really called ~odd
        return Path(path)


def cache_dir() -> Path:
    """Where features and downloads are kept: $LABKIT_CACHE, else the user's cache folder.

    Raises:
        DataError: neither is set, and the user has no home folder.
    """
    given = os.environ.get("LABKIT_CACHE")
    return user_path(given) if given else own_dir()


def own_dir() -> Path:
    """The user's own cache folder, also where $LABKIT_CACHE is shared by many.

    Raises:
        DataError: the user has no home folder.
    """
    try:
        folder = Path(user_cache_dir("labkit"))
    except RuntimeError:
        folder = Path("~")
    if folder.is_absolute():
        return folder
    raise DataError(  # older platformdirs give ~ as it is
        "this user has no home folder to keep features in. Set the environment variable LABKIT_CACHE to a folder "
        "(and LABKIT_RESULTS to a file, for notebooks)."
    )


# -------------------------------------------------------------------------------------------------------------- reading


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file to read bytes from, and nothing else: a pipe or a device would wait for ever, or act.

    Raises:
        OSError: there is no such file, or it is no regular file.
    """
    expect_regular(path)
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # it was replaced in between
            raise _not_a_file(path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def expect_regular(path: str | os.PathLike[str]) -> None:
    """Raise an OSError where there is no file, or a folder, pipe, socket or device instead of one."""
    mode = os.stat(path).st_mode  # noqa: PTH116 (paths with odd bytes as well)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", os.fspath(path))
    if not stat.S_ISREG(mode):
        raise _not_a_file(path)


def _not_a_file(path: str | os.PathLike[str]) -> OSError:
    return OSError(errno.EINVAL, "it is a pipe, a socket or a device, not a file", os.fspath(path))


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Hexadecimal SHA-256 digest of a file's content."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


# -------------------------------------------------------------------------------------------------------------- writing


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield the path of a temporary file; when the block ends well, sync it and rename it to `path`.

    When the block raises, `path` is as it was. A file that is replaced keeps its mode and, where we may give it away,
    its owner; where `path` is a link, what it leads to is replaced. Folders above are made.

    Raises:
        OSError: there is something else than a file, a file that may not be written, or the folder cannot be.
    """
    target, before = _target(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _spoken_of(target), temporary_folder(target.parent, _prefix(target)) as folder:
        temporary = folder / target.name
        temporary.touch(exist_ok=False)
        mode = (before or temporary.stat()).st_mode
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        if before is not None and hasattr(os, "chown"):
            with contextlib.suppress(OSError):  # only root can give files away
                os.chown(temporary, before.st_uid, before.st_gid)
        temporary.chmod(stat.S_IMODE(mode))  # some writers (safetensors) make the file anew, for its owner only
        temporary.replace(target)
    sync_folder(target.parent)


def expect_writable(path: str | os.PathLike[str]) -> None:
    """Raise the OSError that `atomic_write` would raise, before the work that is to be written."""
    target, _ = _target(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _spoken_of(target), temporary_folder(target.parent, _prefix(target)) as folder:
        (folder / target.name).touch()  # its name may be too long


@contextlib.contextmanager
def _spoken_of(target: Path) -> Iterator[None]:
    """Errors of the temporary file name the file that it would become, which is the one that a person knows."""
    try:
        yield
    except OSError as error:
        if str(error.filename).startswith(str(target.parent / _prefix(target))):
            raise OSError(error.errno, error.strerror, str(target)) from error
        raise


def sweep(path: str | os.PathLike[str]) -> None:
    """Remove what killed writers of this file left beside it, as the next writer would; for files that have none."""
    _sweep(Path(path).parent, _prefix(Path(path)))


def _prefix(target: Path) -> str:
    return f".{target.name[:40]}."


def _target(path: str | os.PathLike[str]) -> tuple[Path, os.stat_result | None]:
    """What a path leads to, and what is there now."""
    try:
        target = Path(
            os.path.realpath(user_path(os.fspath(path) or "\0"))
        )  # a link to itself stays one, and stat says so
    except (TypeError, ValueError) as error:
        raise OSError(errno.EINVAL, "it is no path", quote(path)) from error
    try:
        before = target.stat()
    except FileNotFoundError:
        return target, None
    if stat.S_ISDIR(before.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(target))
    if not stat.S_ISREG(before.st_mode):
        raise _not_a_file(target)
    if not before.st_mode & 0o222 or not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, "the file there is read-only", str(target))
    return target, before


def sync_folder(folder: Path) -> None:
    """Let a rename survive a power cut, where the system can sync folders."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# ---------------------------------------------------------------------------------------------------- folders and locks


@contextlib.contextmanager
def temporary_folder(parent: str | os.PathLike[str], prefix: str) -> Iterator[Path]:
    """A folder of this process alone in `parent`, gone after the block; as are those that killed processes left there.

    Its owner holds a lock within it, which the system takes from a process that dies.
    """
    _sweep(Path(parent), prefix)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        lock = FileLock(folder / LOCK)
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            lock.acquire()
        if lock.is_locked and (folder / LOCK).exists():
            break
        lock.release()  # another process took the folder for abandoned before the lock was there
    try:
        yield folder
    finally:
        _remove(folder)
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)  # where an open lock file cannot be removed


def _sweep(parent: Path, prefix: str) -> None:
    """Remove temporary folders that nobody holds."""
    ours = re.compile(re.escape(prefix) + r"[a-z0-9_]{8}")
    with contextlib.suppress(OSError):
        for old in [path for path in parent.iterdir() if ours.fullmatch(path.name)]:
            with contextlib.suppress(OSError, Timeout):
                if not (old / LOCK).exists():
                    old.rmdir()  # killed before it had the lock, so it is empty
                    continue
                with FileLock(old / LOCK, timeout=0):
                    _remove(old)


def _remove(folder: Path) -> None:
    """Remove a temporary folder, its lock last: a folder without one that is not empty would stay."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != LOCK:
                path.unlink()
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def locked_folder(folder: str | os.PathLike[str], *, wait: bool) -> Iterator[None]:
    """Make a folder, and be the only process that writes to it within the block.

    Raises:
        OSError: another process holds it and we do not wait, or it cannot be made or written to.
    """
    lock = FileLock(Path(folder, LOCK), timeout=-1 if wait else 0)
    while not lock.is_locked:
        Path(folder).mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except (FileNotFoundError, FileExistsError):  # another process made it or took it away just now
            continue
        except Timeout as error:
            raise BlockingIOError(errno.EAGAIN, "another process is writing to it", os.fspath(folder)) from error
    ours = _inode(Path(folder, LOCK))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows removes it itself, afterwards
            if ours is not None and ours == _inode(Path(folder, LOCK)):
                Path(folder, LOCK).unlink()  # who waits for it sees that, and makes a new one
        lock.release()


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
