"""Files that are downloaded, checked and unpacked into a folder: what is half done is never taken for whole.

A journal in the folder says which files are unpacked to the end; it is there before the first file of the dataset is.
A download that was cut off goes on where it was.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from labkit._files import CHUNK, atomic_write, file_sha256, locked_folder, temporary_folder
from labkit.data.folders import data_dir
from labkit.data.layouts import layout_paths
from labkit.data.schema import Archive, ArchiveFile, Manifest
from labkit.data.unpacking import merge, unpack
from labkit.errors import DataError, reason, shown

logger = logging.getLogger(__name__)

JOURNAL = ".labkit-archive.json"  # in the folder of the dataset
DOWNLOADS = ".labkit-downloads"  # a folder beside it
CONNECT, READ = 15, 60  # seconds that a server has to answer, and to send the next bytes
TRIES = 5  # of one download that breaks off, as long as each one brings some bytes


@dataclass(frozen=True)
class ArchiveState:
    """How much of a dataset of archives is on the disk.

    Attributes:
        missing: the files that are still to be downloaded or unpacked; none where all is there.
        begun: whether some of the dataset is there, be it a part of a file.
        by_hand: whether somebody else than labkit put the data there: all that the layout names is there, and no
            journal.
    """

    missing: list[ArchiveFile]
    begun: bool
    by_hand: bool


def archive_state(source: Archive) -> ArchiveState:
    """What is there of a dataset; looks at the disk only."""
    root = data_dir() / source.path
    whole = all(holds_something(path) for path in layout_paths(source.layout, root))
    journal = root / JOURNAL
    if not journal.exists():
        return ArchiveState([] if whole else source.files, begun=holds_something(root), by_hand=whole)
    done = _read_journal(journal)
    missing = [file for file in source.files if not _is_done(file, done)]
    if not missing and not whole:  # somebody took the data away
        missing = source.files
    return ArchiveState(missing, begun=True, by_hand=False)


def fetch_archive(manifest: Manifest, source: Archive) -> Path:
    """The folder of a dataset, into which its files are downloaded and unpacked where they are not there.

    A file of the right name that somebody put into the folder is taken instead of a download.

    Raises:
        DataError: an address is dead, a file has another digest or is damaged, or there is no room; the message quotes
            `note` of the manifest.
    """
    root = data_dir() / source.path
    missing = archive_state(source).missing
    if not missing:
        return root
    if manifest.stand_in:
        raise DataError(f"the stand-in of {manifest.id} in {shown(root)} is not complete. Write the stand-ins again.")
    try:
        with locked_folder(root, wait=True):
            for file in archive_state(source).missing:  # another process may have fetched some meanwhile
                _bring(manifest, file, root)
            with contextlib.suppress(OSError):
                (root / DOWNLOADS).rmdir()
    except OSError as error:
        raise DataError(
            f"{manifest.id} cannot be written to {shown(root)} ({error}). Make room, or set LABKIT_DATA to another "
            "folder."
        ) from error
    return root


def file_name(file: ArchiveFile) -> str:
    """What a file is called here."""
    return file.name or file.url.partition("?")[0].rstrip("/").rpartition("/")[2]


def holds_something(path: Path) -> bool:
    """Whether there is a file, or a folder with more in it than hidden files."""
    try:
        with os.scandir(path) as entries:
            return any(not entry.name.startswith(".") for entry in entries)
    except NotADirectoryError:  # a file, or something that would lie in a file
        return path.is_file()
    except OSError:
        return False


def _read_journal(journal: Path) -> dict[str, dict[str, Any]]:
    try:
        done = json.loads(journal.read_text(encoding="utf-8"))["done"]
        return done if isinstance(done, dict) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # then everything is done again


def _is_done(file: ArchiveFile, done: dict[str, dict[str, Any]]) -> bool:
    """Whether this file is unpacked; not where the manifest now names another digest of the same kind."""
    known = done.get(file_name(file))
    if not isinstance(known, dict):
        return False
    return all(
        getattr(file, kind) is None or known.get(kind) is None or getattr(file, kind) == known[kind]
        for kind in ("sha256", "md5")
    )


def _write_journal(root: Path, done: dict[str, dict[str, Any]]) -> None:
    with atomic_write(root / JOURNAL) as path:
        path.write_text(json.dumps({"format": 1, "done": done}, indent=1), encoding="utf-8")


def _bring(manifest: Manifest, file: ArchiveFile, root: Path) -> None:
    """Download one file, check it, unpack it, and note that this is done."""
    name = file_name(file)
    done = _read_journal(root / JOURNAL)
    done.pop(name, None)
    _write_journal(root, done)  # before anything of the dataset is there
    by_hand = root / name
    path = by_hand if by_hand.is_file() and file.unpack else root / DOWNLOADS / name
    try:
        digest = _download(manifest, file, path)
        with temporary_folder(root, f".{name[:40]}.") as folder:
            content = folder / "content"
            content.mkdir()
            if file.unpack:
                unpack(path, content, progress=True)
                for inner in file.inner:
                    within = folder / "inner"
                    within.mkdir(exist_ok=True)
                    unpack(content / inner, within, progress=True)
                    (content / inner).unlink()
                    merge(within, (content / inner).parent)
            else:
                path.replace(content / name)
            merge(content, root / file.into)
    except FileNotFoundError as error:
        raise DataError(
            f"{name} does not hold {shown(str(error.filename))}, which the manifest {manifest.id} names as an archive "
            "within it. Correct `source.files.inner`."
        ) from error
    except DataError as error:
        note = f" Note: {manifest.note.strip()}" if manifest.note and manifest.note.strip() not in str(error) else ""
        raise DataError(f"{error}{note}") from error
    _write_journal(root, {**done, name: {"url": file.url, "sha256": digest, "md5": file.md5}})
    if path != by_hand:
        path.unlink(missing_ok=True)


def _download(manifest: Manifest, file: ArchiveFile, path: Path) -> str | None:
    """Bring a file to `path`, unless it is there, and check it; returns its SHA-256 where that is known."""
    import pooch

    known = f"sha256:{file.sha256}" if file.sha256 else f"md5:{file.md5}" if file.md5 else None
    pooch.get_logger().setLevel(logging.WARNING)  # it tells of every file where that lies
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file() and known is None:
            return file_sha256(path)
        resuming = _Resuming(path.with_name(f"{path.name}.part"), checked=file.sha256 is not None)
        pooch.retrieve(file.url, known_hash=known, fname=path.name, path=path.parent, downloader=resuming)
    except Exception as error:  # no network, no such host, no such page, another digest: all kinds
        note = f" Note: {manifest.note.strip()}" if manifest.note else ""
        raise DataError(
            f"{file.url} of {manifest.id} cannot be fetched ({reason(error)}). "
            "Connect to the network and try again: what is downloaded stays. Or put the file, from elsewhere "
            f"(homepage: {manifest.homepage}), at {shown(path.parent.parent / path.name)}.{note}"
        ) from error
    if known is not None:
        return file.sha256
    digest = file_sha256(path)
    logger.warning("nobody published a digest of %s, so it is not checked; its sha256 is %s", path.name, digest)
    return digest


@contextlib.contextmanager
def _no_warning() -> Iterator[None]:
    """Of urllib3, that a certificate is not looked at, which we have said."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@dataclass
class _Resuming:
    """Downloads for pooch; what was cut off stays in a file `part`, and the next call goes on from there.

    Attributes:
        part: where that is.
        checked: whether a SHA-256 will tell if it is the right file, whoever sent it: then a server whose certificate
            is faulty will do.
    """

    part: Path
    checked: bool
    _verify: bool = True

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        import requests
        from urllib3.exceptions import HTTPError

        for left in reversed(range(TRIES)):
            before = self._size()
            try:
                self._go_on(url)
                break
            except requests.exceptions.SSLError:
                if not self.checked or not self._verify:
                    raise
                logger.warning("%s has a faulty certificate; the file is known by its sha256", url)
                self._verify = False
            except (requests.RequestException, HTTPError, ConnectionError, TimeoutError):
                if not left or self._size() <= before:  # an answer such as 404, or no bytes any more
                    raise
                time.sleep(1)
        self.part.replace(output_file)
        self._known.unlink(missing_ok=True)

    @property
    def _known(self) -> Path:
        return self.part.with_name(f"{self.part.name}.json")

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _go_on(self, url: str) -> None:
        import requests

        offset, version, verify = self._size(), self._version(url), self._verify
        headers = {"Accept-Encoding": "identity", "User-Agent": "labkit"}
        if offset and version:
            headers |= {"Range": f"bytes={offset}-", "If-Range": version}
        with (
            contextlib.nullcontext() if verify else _no_warning(),
            requests.get(url, headers=headers, stream=True, timeout=(CONNECT, READ), verify=verify) as answer,
        ):
            if answer.status_code == 416:  # all was there but for the renaming, or the file became shorter
                self.part.unlink()
                return self._go_on(url)
            answer.raise_for_status()
            goes_on = answer.status_code == 206 and answer.headers.get("Content-Range", "").startswith(
                f"bytes {offset}-"
            )
            if not goes_on:
                offset = 0
                self.part.unlink(missing_ok=True)  # before what is known of it
            rest = int(answer.headers.get("Content-Length", -1))
            if rest > shutil.disk_usage(self.part.parent).free:
                raise OSError(f"there is no room for {rest:,} bytes in {shown(self.part.parent)}")
            strong = answer.headers.get("ETag", "")
            version = answer.headers.get("Last-Modified", "") if strong.startswith("W/") or not strong else strong
            self._known.write_text(json.dumps({"url": url, "version": version}), encoding="utf-8")
            bar = tqdm(
                desc=self.part.stem, initial=offset, total=offset + rest if rest >= 0 else None, unit="B",
                unit_scale=True, leave=False,
            )  # fmt: skip
            got = 0
            with contextlib.closing(bar), self.part.open("ab" if offset else "wb") as target:
                for chunk in answer.raw.stream(CHUNK, decode_content=False):
                    got += target.write(chunk)
                    bar.update(len(chunk))
        if 0 <= rest != got:
            raise ConnectionError(f"it broke off after {offset + got:,} of {offset + rest:,} bytes")

    def _version(self, url: str) -> str:
        """The version that the server gave for the file that `part` is the beginning of; "" where that is not known."""
        try:
            known = json.loads(self._known.read_text(encoding="utf-8"))
            return str(known["version"]) if known["url"] == url else ""
        except (OSError, ValueError, KeyError, TypeError):
            return ""
