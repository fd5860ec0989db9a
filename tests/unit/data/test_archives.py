"""Archives: fetched, checked, unpacked; cut off at any moment, hostile or dead, they are never taken for whole."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import logging
import os
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image

import labkit.data.archives
import labkit.data.unpacking
from labkit.data.archives import JOURNAL, archive_state
from labkit.data.datasets import load_dataset
from labkit.data.folders import data_dir
from labkit.data.presence import presence
from labkit.data.schema import Archive, Manifest
from labkit.data.unpacking import unpack
from labkit.errors import DataError


@pytest.fixture(autouse=True)
def no_data_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "data"))


class Server:
    """Serves files from memory; may break off after some bytes, and knows which ranges were asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.break_after: list[int] = []  # bytes of an answer, for the next answers
        self.ranges, self.etags = True, True
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name, wanted = self.path.lstrip("/"), self.headers.get("Range")
                server.asked.append((name, wanted))
                content = server.files.get(name)
                if content is None:
                    self.send_error(404)
                    return
                etag = f'"{hashlib.md5(content).hexdigest()}"'
                start = 0
                if wanted and server.ranges and self.headers.get("If-Range") in (None, etag):
                    start = int(wanted.removeprefix("bytes=").rstrip("-"))
                    if start >= len(content):
                        self.send_error(416)
                        return
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                if server.etags:
                    self.send_header("ETag", etag)
                self.send_header("Content-Length", str(len(content) - start))
                self.end_headers()
                rest = content[start:]
                self.wfile.write(rest[: server.break_after.pop(0)] if server.break_after else rest)

            def log_message(self, *args: object) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/{name}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


def png(level: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 5), level, dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


IMAGES = {f"all/{split}/{name}/{i}.png": png(40 * i) for split in ("a", "b") for name in ("x", "y") for i in range(2)}


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 2, 3, 4, 6)), content)
    return buffer.getvalue()


def tarred(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), 1_577_934_246
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def manifest(files: list[dict], **changes: Any) -> Manifest:
    layout = {"kind": "folders", "train": "all/a", "test": "all/b"}
    return Manifest.model_validate(
        {
            "id": "mine",
            "title": "Mine",
            "task": "any",
            "classes": ["x", "y"],
            "splits": {split: {"size": 4, "how": "x"} for split in ("train", "test")},
            "source": {"kind": "archive", "path": "mine", "files": files, "layout": layout},
            "note": "The old address is dead; a copy is on Mars.",
            **dict.fromkeys(("license", "citation", "homepage"), "https://example.org/home"),
            **changes,
        }
    )


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def state(found: Manifest) -> str:
    return presence(found).state


# what is meant to happen


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("all.zip", zipped),
        ("all.tar.gz", tarred),
        ("all.tgz", tarred),
        ("all.tar", lambda files: tarred(files, "w")),
        ("all.tar.xz", lambda files: tarred(files, "w:xz")),
    ],
)
def test_an_archive_is_fetched_once_and_unpacked(server: Server, name: str, pack: Callable) -> None:
    server.files[name] = pack(IMAGES)
    found = manifest([{"url": server.url(name) + "?download=1", "sha256": sha256(server.files[name])}])
    server.files[f"{name}?download=1"] = server.files.pop(name)
    assert state(found) == "not here"
    train = load_dataset(found)
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert train[1][0].getpixel((0, 0)) == (40, 40, 40)
    assert (data_dir() / "mine/all/a/x/1.png").stat().st_mtime == 1_577_934_246  # which is 2020-01-02 03:04:06 UTC
    load_dataset(found, "test")
    assert len(server.asked) == 1
    assert state(found) == "here"
    left = {path.name for path in (data_dir() / "mine").iterdir()}
    assert left == {"all", JOURNAL}


def test_of_several_threads_one_fetches(server: Server) -> None:
    content = server.files["all.zip"] = zipped(IMAGES)
    found = manifest([{"url": server.url("all.zip"), "sha256": sha256(content)}])
    with ThreadPoolExecutor(4) as pool:
        sizes = list(pool.map(lambda split: len(load_dataset(found, split)), ["train", "test"] * 2))
    assert sizes == [4] * 4
    assert len(server.asked) == 1


def test_archives_within_archives_and_files_of_several_addresses(server: Server) -> None:
    half = {name: content for name, content in IMAGES.items() if name.startswith("all/a")}
    inner = {name.removeprefix("all/"): content for name, content in IMAGES.items() if name.startswith("all/b")}
    server.files["one.zip"] = zipped(half)
    server.files["two.zip"] = zipped({"nested/two.tar.gz": tarred({f"b{n[1:]}": c for n, c in inner.items()})})
    server.files["list.txt"] = b"hello"
    server.files["big.csv.gz"] = gzip.compress(b"1,2")
    files = [
        {"url": server.url("one.zip"), "sha256": sha256(server.files["one.zip"])},
        {"url": server.url("two.zip"), "md5": hashlib.md5(server.files["two.zip"]).hexdigest(), "into": "all"},
        {"url": server.url("list.txt"), "sha256": sha256(b"hello"), "unpack": False, "into": "lists", "name": "l.txt"},
        {"url": server.url("big.csv.gz"), "sha256": sha256(server.files["big.csv.gz"])},
    ]
    files[1]["inner"] = ["nested/two.tar.gz"]
    layout = {"kind": "folders", "train": "all/a", "test": "all/nested/b"}
    source = {"kind": "archive", "path": "mine", "files": files, "layout": layout}
    found = manifest(files, source=source)
    assert len(load_dataset(found, "test")) == 4
    assert (data_dir() / "mine/lists/l.txt").read_bytes() == b"hello"
    assert (data_dir() / "mine/big.csv").read_bytes() == b"1,2"
    assert not (data_dir() / "mine/all/nested/two.tar.gz").exists()


def test_data_that_somebody_put_there_is_not_fetched(server: Server) -> None:
    found = manifest([{"url": server.url("all.zip")}])
    with zipfile.ZipFile(io.BytesIO(zipped(IMAGES))) as archive:
        archive.extractall(data_dir() / "mine")
    assert state(found) == "here"
    assert len(load_dataset(found)) == 4
    assert not server.asked


def test_a_file_that_somebody_put_there_is_taken_instead_of_a_dead_address(server: Server) -> None:
    content = zipped(IMAGES)
    found = manifest([{"url": server.url("all.zip"), "sha256": sha256(content)}])
    with pytest.raises(DataError, match=r"404.*put the file, .* at (\S+)\. Note: The old address is dead") as caught:
        load_dataset(found)
    place = Path(str(caught.value).split(" at ")[1].split(". Note")[0])
    assert state(found) == "partly"
    place.write_bytes(content)
    assert len(load_dataset(found)) == 4
    assert place.exists()


def test_without_a_digest_it_says_so(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.files["all.zip"] = zipped(IMAGES)
    with caplog.at_level(logging.WARNING):
        load_dataset(manifest([{"url": server.url("all.zip")}]))
    assert f"nobody published a digest of all.zip, so it is not checked; its sha256 is {sha256(zipped(IMAGES))}" in (
        caplog.text
    )


# what is cut off


def test_a_download_that_breaks_off_goes_on_where_it_was(server: Server) -> None:
    content = server.files["all.zip"] = zipped(IMAGES)
    server.break_after = [500, 300]
    found = manifest([{"url": server.url("all.zip"), "sha256": sha256(content)}])
    assert len(load_dataset(found)) == 4
    assert server.asked == [("all.zip", None), ("all.zip", "bytes=500-"), ("all.zip", "bytes=800-")]


def test_a_download_goes_on_in_the_next_process(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    content = server.files["all.zip"] = zipped(IMAGES)
    found = manifest([{"url": server.url("all.zip"), "sha256": sha256(content)}])
    server.break_after = [500, 0]
    with pytest.raises(DataError, match="what is downloaded stays"):
        load_dataset(found)
    assert state(found) == "partly"
    assert len(load_dataset(found)) == 4
    assert server.asked[-1] == ("all.zip", "bytes=500-")


@pytest.mark.parametrize("change", ["content", "no ranges", "no etags", "all was there"])
def test_a_download_starts_again_where_going_on_would_mix_two_files(server: Server, change: str) -> None:
    content = server.files["all.zip"] = zipped(IMAGES)
    server.etags = change != "no etags"
    server.break_after = [500, 0]
    with pytest.raises(DataError):
        load_dataset(manifest([{"url": server.url("all.zip")}]))
    if change == "content":
        server.files["all.zip"] = content = zipped(dict(reversed(IMAGES.items())))
    if change == "all was there":
        part = next((data_dir() / "mine").glob(".labkit-downloads/*.part"))
        part.write_bytes(content)
    server.ranges = change != "no ranges"
    assert len(load_dataset(manifest([{"url": server.url("all.zip"), "sha256": sha256(content)}]))) == 4


@pytest.mark.parametrize("moment", ["unpack", "merge", "_write_journal"])
def test_an_unpacking_that_is_killed_is_not_taken_for_whole(
    server: Server, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Even where all folders of the layout are there already."""
    content = server.files["all.zip"] = zipped(IMAGES)
    found = manifest([{"url": server.url("all.zip"), "sha256": sha256(content)}])
    real = getattr(labkit.data.archives, moment)

    def killed(*args: Any, **kwargs: Any) -> None:
        if moment == "_write_journal" and not args[1]:
            real(*args, **kwargs)
            return
        if moment == "merge":
            for split in "ab":  # moved are one image of each class
                for name in "xy":
                    (data_dir() / f"mine/all/{split}/{name}").mkdir(parents=True, exist_ok=True)
                    shutil.copy(args[0] / f"all/{split}/{name}/0.png", data_dir() / f"mine/all/{split}/{name}/0.png")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(labkit.data.archives, moment, killed)
        with pytest.raises(KeyboardInterrupt):
            load_dataset(found)
    assert state(found) == "partly"
    assert len(load_dataset(found)) == 4
    assert len(server.asked) == 1
    assert state(found) == "here"


def test_a_file_with_another_digest_is_not_unpacked(server: Server) -> None:
    server.files["all.zip"] = zipped(IMAGES)
    found = manifest([{"url": server.url("all.zip"), "sha256": "0" * 64}])
    with pytest.raises(DataError, match=r"hash.*does not match.*Note: The old address is dead"):
        load_dataset(found)
    assert not (data_dir() / "mine" / "all").exists()
    assert state(found) == "partly"


def test_a_page_instead_of_an_archive(server: Server) -> None:
    server.files["all.zip"] = b"<html>We have moved</html>"
    with pytest.raises(DataError, match=r"all\.zip cannot be unpacked.*Note: The old address is dead"):
        load_dataset(manifest([{"url": server.url("all.zip")}]))


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(DataError, match=r"127\.0\.0\.1:9/all\.zip of mine cannot be fetched .*Note: The old address"):
        load_dataset(manifest([{"url": "http://127.0.0.1:9/all.zip"}]))


@pytest.mark.parametrize("known", ["sha256", "md5"])
def test_a_faulty_certificate_will_do_where_the_sha256_is_known(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, known: str
) -> None:
    content = server.files["all.zip"] = zipped(IMAGES)
    real, verified = requests.get, []

    def get(url: str, *, verify: bool, **options: Any) -> Any:
        verified.append(verify)
        if verify:
            raise requests.exceptions.SSLError("certificate verify failed")
        return real(url, verify=verify, **options)

    monkeypatch.setattr(requests, "get", get)
    digest = {"sha256": sha256(content), "md5": hashlib.md5(content).hexdigest()}[known]
    found = manifest([{"url": server.url("all.zip"), known: digest}])
    if known == "sha256":
        assert len(load_dataset(found)) == 4
        assert verified == [True, False]
        assert "has a faulty certificate; the file is known by its sha256" in caplog.text
    else:
        with pytest.raises(DataError, match="certificate verify failed"):
            load_dataset(found)
        assert verified == [True]


def test_no_room_for_it(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files["all.zip"] = zipped(IMAGES)
    real = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real._replace(free=100))
    with pytest.raises(DataError, match="no room for"):
        load_dataset(manifest([{"url": server.url("all.zip")}]))


def test_a_file_that_somebody_put_there_is_nothing_to_download(server: Server) -> None:
    content = zipped(IMAGES)  # the server has none
    found = manifest([{"url": server.url("all.zip"), "sha256": sha256(content)}])
    assert state(found) == "not here"
    (data_dir() / "mine").mkdir(parents=True)
    (data_dir() / "mine" / "all.zip").write_bytes(content)
    assert presence(found).why.endswith("to be unpacked when it is first read")
    assert state(found) == "here"
    assert len(load_dataset(found)) == 4
    assert "unpacked" not in presence(found).why


def test_data_that_was_taken_away_is_fetched_again(server: Server) -> None:
    content = server.files["all.zip"] = zipped(IMAGES)
    found = manifest([{"url": server.url("all.zip"), "sha256": sha256(content)}])
    load_dataset(found)
    shutil.rmtree(data_dir() / "mine" / "all" / "b")
    assert state(found) == "partly"
    assert len(load_dataset(found, "test")) == 4


def test_another_digest_in_the_manifest_fetches_again_and_another_address_does_not(server: Server) -> None:
    content = server.files["all.zip"] = server.files["copy.zip"] = zipped(IMAGES)
    load_dataset(manifest([{"url": server.url("all.zip"), "sha256": sha256(content)}]))
    moved = manifest([{"url": server.url("copy.zip"), "name": "all.zip", "sha256": sha256(content)}])
    assert isinstance(moved.source, Archive)
    assert not archive_state(moved.source).missing
    other = manifest([{"url": server.url("all.zip"), "sha256": "1" * 64}])
    assert isinstance(other.source, Archive)
    assert len(archive_state(other.source).missing) == 1


def test_a_damaged_journal_means_that_all_is_done_again(server: Server) -> None:
    content = server.files["all.zip"] = zipped(IMAGES)
    found = manifest([{"url": server.url("all.zip"), "sha256": sha256(content)}])
    load_dataset(found)
    for damaged in ("{", "[]", json.dumps({"done": 3}), json.dumps({"done": {"all.zip": 3}})):
        (data_dir() / "mine" / JOURNAL).write_text(damaged)
        assert state(found) == "partly"
    assert len(load_dataset(found)) == 4


# what is hostile


def tar_with(member: tarfile.TarInfo, content: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def linked(kind: bytes, name: str = "all/link", target: str = "/etc/passwd") -> bytes:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return tar_with(member)


def zip_with_a_link() -> bytes:
    info = zipfile.ZipInfo("all/link")
    info.external_attr = (0o120777) << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(info, "/etc/passwd")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tar", tar_with(tarfile.TarInfo("../evil.png"), b"x"), "leads out of the folder"),
        ("a.tar", tar_with(tarfile.TarInfo("/tmp/evil.png"), b"x"), "leads out of the folder"),
        ("a.tar", tar_with(tarfile.TarInfo("all/../../evil.png"), b"x"), "leads out of the folder"),
        ("a.zip", zipped({"../evil.png": b"x"}), "leads out of the folder"),
        ("a.zip", zipped({"..\\evil.png": b"x"}), "leads out of the folder"),
        ("a.zip", zipped({"/evil.png": b"x"}), "leads out of the folder"),
        ("a.zip", zipped({"C:/evil.png": b"x"}), "leads out of the folder"),
        ("a.tar", linked(tarfile.SYMTYPE), "is a link or a device"),
        ("a.tar", linked(tarfile.LNKTYPE), "is a link or a device"),
        ("a.tar", linked(tarfile.FIFOTYPE), "is a link or a device"),
        ("a.tar", linked(tarfile.CHRTYPE), "is a link or a device"),
        ("a.zip", zip_with_a_link(), "is a link or a device"),
        ("a.zip", zipped(IMAGES)[:-40], "damaged or cut off"),
        ("a.tar.gz", tarred(IMAGES)[:-40], "damaged or cut off"),
        ("a.tar", tarred(IMAGES, "w")[:3000], "damaged or cut off"),
        ("a.gz", gzip.compress(b"x" * 100)[:-9], "damaged or cut off"),
        ("a.7z", b"7z", "no archive that labkit unpacks"),
    ],
)
def test_what_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    folder = tmp_path / "deep" / "folder"
    folder.mkdir(parents=True)
    with pytest.raises(DataError, match=message):
        unpack(tmp_path / name, folder)
    assert not list(tmp_path.rglob("evil*"))
    assert not Path("/tmp/evil.png").exists()
    assert not any(path.is_symlink() for path in folder.rglob("*"))


@pytest.mark.parametrize("name", ["bomb.gz", "bomb.tar.gz", "bomb.zip"])
def test_archives_that_unpack_to_far_more_than_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(labkit.data.unpacking, "MOST_BESIDE", 1 << 16)
    zeros = bytes(8 << 20)
    packed = zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED)
    packed.writestr("zeros", zeros)
    packed.close()
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(zeros))
    (tmp_path / "bomb.tar.gz").write_bytes(tarred({"zeros": zeros}))
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="holds more than"):
        unpack(tmp_path / name, tmp_path / "out")
    assert sum(path.stat().st_size for path in (tmp_path / "out").iterdir()) < 4 << 20


def test_a_hostile_archive_leaves_nothing_in_the_dataset(server: Server) -> None:
    server.files["all.tar"] = tarred(IMAGES, "w")[:-10240] + linked(tarfile.SYMTYPE)
    found = manifest([{"url": server.url("all.tar")}])
    with pytest.raises(DataError, match=r"is a link or a device.*Note: The old address"):
        load_dataset(found)
    assert not (data_dir() / "mine" / "all").exists()
    assert not [path for path in (data_dir() / "mine").iterdir() if path.name.startswith(".all")]


# .rar, by a program


def program(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


def test_rar_without_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    (tmp_path / "a.rar").write_bytes(b"Rar!")
    with pytest.raises(DataError, match=r"none of the programs bsdtar, unrar, .* is installed\. Install one"):
        unpack(tmp_path / "a.rar", tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="programs are shell scripts here")
@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("unrar", '[ "$1" = x ] && echo hi > "$6/file"', None),
        ("7z", 'echo hi > "${4#-o}/file"', None),
        ("bsdtar", "echo broken archive >&2; exit 3", "bsdtar says broken archive"),
        ("unar", 'ln -s /etc/passwd "$4/link"', "is a link or a device"),
    ],
)
def test_rar_by_a_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, body: str, message: str | None
) -> None:
    program(tmp_path / "bin", name, body)
    system = [path for path in ("/usr/bin", "/bin") if not shutil.which(name, path=path)]
    monkeypatch.setattr(labkit.data.unpacking, "RAR", {name: labkit.data.unpacking.RAR[name]})
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / "bin"), *(system or ["/usr/bin"])]))
    (tmp_path / "a.rar").write_bytes(b"Rar!")
    (tmp_path / "out").mkdir()
    if message is None:
        unpack(tmp_path / "a.rar", tmp_path / "out")
        assert (tmp_path / "out" / "file").read_text() == "hi\n"
    else:
        with pytest.raises(DataError, match=message):
            unpack(tmp_path / "a.rar", tmp_path / "out")
