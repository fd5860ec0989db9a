"""Archives are unpacked into a folder of their own, which nothing in them can lead out of; then they are moved as one.

Refused are links, devices, names that lead elsewhere, and archives that unpack to far more than they are.
"""

from __future__ import annotations

import calendar
import contextlib
import gzip
import lzma
import os
import shutil
import stat
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm.auto import tqdm

from labkit._files import CHUNK, open_regular
from labkit.errors import DataError, quote, shorten, shown

TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
MOST_TIMES, MOST_BESIDE = 200, 100 << 20  # an archive may unpack to so many times its size, and so many bytes beside
MOST_ENTRIES = 10_000_000
RAR = {  # programs that unpack it, with what they are called with
    "bsdtar": ["-x", "-f", "{archive}", "-C", "{folder}"],
    "unrar": ["x", "-o+", "-idq", "-p-", "{archive}", "{folder}/"],
    "7zz": ["x", "-y", "-bd", "-o{folder}", "{archive}"],
    "7z": ["x", "-y", "-bd", "-o{folder}", "{archive}"],
    "unar": ["-quiet", "-no-directory", "-output-directory", "{folder}", "{archive}"],
}


class _RefusedError(ValueError):
    """The archive holds what no archive of images holds."""


def unpack(archive: Path, folder: Path, *, progress: bool = False) -> None:
    """Unpack an archive into an empty folder: .zip, .tar (plain or .gz, .bz2, .xz), .gz of one file, or .rar.

    Files keep the times that the archive has for them. For .rar one of the programs bsdtar, unrar, 7zz, 7z and unar
    must be installed.

    Raises:
        DataError: the archive is damaged or cut off, is of another kind, or holds what is refused.
        OSError: the folder cannot be written to.
    """
    name = archive.name.lower()
    try:
        if name.endswith(TARS):
            _write(_of_tar(archive), archive, folder, progress)
        elif name.endswith(".zip"):
            _write(_of_zip(archive), archive, folder, progress)
        elif name.endswith(".gz"):
            _write(_of_gzip(archive), archive, folder, progress)
        elif name.endswith(".rar"):
            _rar(archive, folder)
        else:
            raise DataError(
                f"{shown(archive)} is no archive that labkit unpacks. Expected .zip, .tar, .tar.gz, .tar.bz2, .tar.xz, "
                ".gz or .rar, or `unpack: false` in the manifest."
            )
    except _RefusedError as error:
        raise DataError(f"{shown(archive)} is not unpacked: {error}. Fetch it from a place that you trust.") from error
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, gzip.BadGzipFile, EOFError,
            NotImplementedError, RuntimeError, ValueError) as error:  # fmt: skip
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{shown(archive)} cannot be unpacked ({type(error).__name__}: {shorten(str(error), 200)}). It is damaged "
            "or cut off: delete it and fetch it again."
        ) from error


def merge(source: Path, target: Path) -> None:
    """Move all files in one folder into another, each at once; those that are there already are replaced."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        place = target / path.name
        if path.is_dir() and place.is_dir():
            merge(path, place)
        else:
            path.replace(place)


# an entry of an archive: its name, its declared size, its time, and how it is opened (None for a folder)
_Entry = tuple[str, int, float, Callable[[], Any] | None]


def _write(entries: Iterator[_Entry], archive: Path, folder: Path, progress: bool) -> None:
    limit = MOST_BESIDE + MOST_TIMES * archive.stat().st_size
    limit = min(limit, shutil.disk_usage(folder).free + MOST_BESIDE)
    written = n = 0
    bar = tqdm(desc=f"unpacking {archive.name}", unit=" files", disable=not progress, leave=False)
    with contextlib.closing(bar):
        for name, size, time, opened in entries:
            n += 1
            if written + max(size, 0) > limit or n > MOST_ENTRIES:
                raise _RefusedError(f"it holds more than {limit:,} bytes or {MOST_ENTRIES:,} files")
            place = folder / _safe(name)
            if opened is None:
                place.mkdir(parents=True, exist_ok=True)
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.closing(opened() or _missing(name)) as source, place.open("wb") as target:
                while chunk := source.read(CHUNK):
                    written += len(chunk)
                    if written > limit:
                        raise _RefusedError(f"it holds more than {limit:,} bytes")
                    target.write(chunk)
            os.utime(place, (time, time))
            bar.update()


def _missing(name: str) -> Any:
    raise ValueError(f"{quote(name)} has no content")


def _safe(name: str) -> PurePosixPath:
    """The path of an entry below the folder."""
    pure = PurePosixPath(name.replace("\\", "/"))
    odd = "\0" in name or pure.is_absolute() or ".." in pure.parts or (len(name) > 1 and name[1] == ":")
    if odd:
        raise _RefusedError(f"it names {quote(name)}, which leads out of the folder")
    return pure


def _of_tar(archive: Path) -> Iterator[_Entry]:
    with open_regular(archive) as file, tarfile.open(fileobj=file, mode="r:*") as tar:
        for member in tar:
            if member.isdir():
                yield member.name, 0, member.mtime, None
            elif member.isreg():
                yield member.name, member.size, member.mtime, lambda member=member: tar.extractfile(member)  # type: ignore[misc]
            else:
                raise _RefusedError(f"{quote(member.name)} is a link or a device, not a file")
            tar.members = []  # type: ignore[attr-defined]  # which would grow with every file


def _of_zip(archive: Path) -> Iterator[_Entry]:
    with open_regular(archive) as file, zipfile.ZipFile(file) as packed:
        for info in packed.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _RefusedError(f"{quote(info.filename)} is a link or a device, not a file")
            time = calendar.timegm((*info.date_time, 0, 0, 0))
            opened = None if info.is_dir() else lambda info=info: packed.open(info)
            yield info.filename, info.file_size, time, opened


def _of_gzip(archive: Path) -> Iterator[_Entry]:
    with open_regular(archive) as file, gzip.open(file) as packed:
        yield archive.name[:-3], 0, archive.stat().st_mtime, lambda: packed


def _rar(archive: Path, folder: Path) -> None:
    found = next((name for name in RAR if shutil.which(name)), None)
    if found is None:
        raise DataError(
            f"{shown(archive)} is a .rar file, and none of the programs {', '.join(RAR)} is installed. Install one "
            "(Debian: apt install libarchive-tools; conda install libarchive; brew install libarchive)."
        )
    command = [part.format(archive=archive.absolute(), folder=folder.absolute()) for part in RAR[found]]
    done = subprocess.run(
        [str(shutil.which(found)), *command], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        raise ValueError(f"{found} says {shorten((done.stderr or done.stdout).strip(), 150)}")
    for path, folders, names in os.walk(folder):
        for name in folders + names:
            mode = os.lstat(f"{path}/{name}").st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise _RefusedError(f"{quote(name)} is a link or a device, not a file")
