"""How files are written: atomically, where they were meant to be, and with nothing left beside them."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from labkit import _files
from labkit._files import (
    LOCK,
    atomic_write,
    cache_dir,
    expect_writable,
    locked_folder,
    open_regular,
    own_dir,
    temporary_folder,
    user_path,
)
from labkit.errors import DataError

IS_ROOT = hasattr(os, "getuid") and os.getuid() == 0


def write(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, "utf-8")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# -------------------------------------------------------------------------------------------------------------- writing


def test_an_error_names_the_file_that_was_asked_for_and_no_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with pytest.raises(PermissionError) as caught, atomic_write(path) as temporary:
        raise PermissionError(13, "Permission denied", str(temporary))
    assert str(caught.value) == f"[Errno 13] Permission denied: '{path}'"
    with pytest.raises(OSError, match="another") as caught, atomic_write(path):
        raise OSError(5, "of another file", str(tmp_path / "b.csv"))
    assert caught.value.filename == str(tmp_path / "b.csv")
    long = tmp_path / ("x" * 300 + ".csv")
    with pytest.raises(OSError, match="too long") as caught:
        expect_writable(long)
    assert caught.value.filename == str(long)


def test_a_file_appears_whole_and_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("half", "utf-8")
        assert not path.exists()
        assert temporary.parent.parent == path.parent  # the same file system, so that a rename is one step
        temporary.write_text("whole", "utf-8")
    assert path.read_text("utf-8") == "whole"
    assert names(path.parent) == ["a.txt"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError()])
def test_where_the_block_raises_the_file_is_as_it_was(error: BaseException, tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "old")

    def fail() -> None:
        with atomic_write(tmp_path / "a.txt") as temporary:
            temporary.write_text("half", "utf-8")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert (tmp_path / "a.txt").read_text("utf-8") == "old"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o755])
def test_a_file_keeps_its_mode(mode: int, tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "old")
    (tmp_path / "a.txt").chmod(mode)
    write(tmp_path / "a.txt", "new")
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == mode
    (tmp_path / "plain").touch()
    write(tmp_path / "b.txt", "new")
    assert (tmp_path / "b.txt").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.skipif(not IS_ROOT, reason="only root can give files away")
def test_a_file_keeps_its_owner(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "old")
    os.chown(tmp_path / "a.txt", 4242, 4243)
    write(tmp_path / "a.txt", "new")
    assert ((tmp_path / "a.txt").stat().st_uid, (tmp_path / "a.txt").stat().st_gid) == (4242, 4243)


def test_what_a_link_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    for name in ("old.txt", "new.txt"):  # the second does not exist yet
        (tmp_path / name).symlink_to(tmp_path / "far" / name)
    write(tmp_path / "far" / "old.txt", "old")
    for name in ("old.txt", "new.txt"):
        write(tmp_path / name, "new")
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / "far" / name).read_text("utf-8") == "new"
    assert names(tmp_path / "far") == ["new.txt", "old.txt"]


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/null")


def unix_socket(path: Path) -> None:
    with contextlib.chdir(path.parent) if hasattr(contextlib, "chdir") else contextlib.nullcontext():
        server = socket.socket(socket.AF_UNIX)
        server.bind(path.name if hasattr(contextlib, "chdir") else str(path))
        server.close()


def read_only(path: Path) -> None:
    path.write_text("old", "utf-8")
    path.chmod(0o444)


def link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def below_a_file(path: Path) -> None:
    path.parent.joinpath("file").touch()
    path.symlink_to(path.parent / "file" / "a.txt")


@pytest.mark.parametrize("make", [pipe, device, unix_socket, read_only, link_to_itself, below_a_file, Path.mkdir])
@pytest.mark.parametrize("check", [expect_writable, lambda path: write(path, "new")])
def test_what_is_no_file_of_ours_to_write_stays(
    make: Callable[[Path], None], check: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "a.txt"
    make(path)
    before = path.lstat()
    with pytest.raises(OSError, match=r"a\.txt|file|null"):
        check(path)
    after = path.lstat()
    assert (before.st_ino, before.st_mode, before.st_mtime_ns) == (after.st_ino, after.st_mode, after.st_mtime_ns)
    assert set(names(tmp_path)) <= {"a.txt", "file"}


def test_a_name_that_is_too_long_is_known_before(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="name too long"):
        expect_writable(tmp_path / ("a" * 300))
    expect_writable(tmp_path / ("ä" * 120))
    assert names(tmp_path) == []


# ----------------------------------------------------------------------------------------------------- killed and swept


KILLED = """
import os, sys, labkit._files as f
with f.atomic_write(sys.argv[1]) as temporary:
    temporary.write_bytes(b"half"); os._exit(9)
"""


def test_the_next_writer_removes_what_a_killed_one_left_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    others = [tmp_path / name for name in (".a.txt.mine", ".a.txt.backup12.txt", ".b.txt.abcdefgh")]
    for other in others:
        other.mkdir()
        (other / "precious").touch()
    (tmp_path / ".a.txt.abcdefgh").mkdir()  # one of ours by its name, and not empty: without a lock it is somebody's
    (tmp_path / ".a.txt.abcdefgh" / "precious").touch()
    for _ in range(3):
        assert subprocess.run([sys.executable, "-c", KILLED, str(path)]).returncode == 9
    assert len(names(tmp_path)) == 5  # the second swept what the first had left, and so on
    write(path, "whole")
    assert names(tmp_path) == sorted([".a.txt.abcdefgh", "a.txt", *(other.name for other in others)])
    assert all((folder / "precious").exists() for folder in others)


def test_what_a_living_process_writes_is_not_swept(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a.txt") as first:
        first.write_text("first", "utf-8")
        write(tmp_path / "a.txt", "second")
        assert first.exists()
    assert (tmp_path / "a.txt").read_text("utf-8") == "first"


def test_many_writers_and_sweepers_at_once_lose_nothing(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def work(k: int) -> None:
        try:
            for i in range(30):
                write(tmp_path / "a.txt", f"{k} {i} " * 1000)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert names(tmp_path) == ["a.txt"]
    assert len(set((tmp_path / "a.txt").read_text("utf-8").split())) <= 2


def test_a_temporary_folder_goes_with_its_content(tmp_path: Path) -> None:
    with temporary_folder(tmp_path, "labkit-") as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "a").touch()
    assert names(tmp_path) == []


# ---------------------------------------------------------------------------------------------------------------- locks


HOLDER = """
import sys, time, labkit._files as f
with f.locked_folder(sys.argv[1], wait=False):
    print("held", flush=True); sys.stdin.read()
"""


def test_a_locked_folder_is_held_by_one_and_free_when_its_holder_dies(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(BlockingIOError, match="another process is writing to it"), locked_folder(tmp_path, wait=False):
        pass
    holder.kill()
    holder.wait()
    with locked_folder(tmp_path, wait=False):
        assert names(tmp_path) == [LOCK]
    assert names(tmp_path) == []


# ---------------------------------------------------------------------------------------------------- reading and paths


@pytest.mark.parametrize("make", [pipe, device, unix_socket, link_to_itself, Path.mkdir])
@pytest.mark.timeout(10)
def test_only_files_are_read(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "a.txt")
    with pytest.raises(OSError, match=r"a\.txt"):
        open_regular(tmp_path / "a.txt")


def test_a_file_that_becomes_a_pipe_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "a.txt")
    monkeypatch.setattr(_files, "expect_regular", lambda path: None)  # it was a file when that was looked at
    with pytest.raises(OSError, match="a pipe"):
        open_regular(tmp_path / "a.txt")


def test_home_is_expanded_where_there_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/a") == tmp_path / "a"
    assert user_path("./~root/a") == Path("./~root/a")
    assert user_path("~nobody-of-this-name/a") == Path("~nobody-of-this-name/a")
    monkeypatch.setenv("LABKIT_CACHE", "~/cache")
    assert cache_dir() == tmp_path / "cache"


def test_what_is_written_below_a_tilde_lands_at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    write(Path("~/deep/a.txt"), "new")
    write(Path("~nobody-of-this-name.txt"), "new")
    assert names(tmp_path) == ["home", "~nobody-of-this-name.txt"]
    assert names(tmp_path / "home" / "deep") == ["a.txt"]


def no_home(name: str) -> str:
    raise RuntimeError("Could not determine home directory.")


@pytest.mark.parametrize("answer", [no_home, lambda name: "~/.cache/labkit"])  # of newer and of older platformdirs
def test_who_has_no_home_is_told_what_to_set(answer: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LABKIT_CACHE", raising=False)
    monkeypatch.setattr(_files, "user_cache_dir", answer)
    for place in (cache_dir, own_dir):
        with pytest.raises(DataError, match=r"no home folder.*LABKIT_CACHE"):
            place()


def test_a_temporary_folder_is_removed_with_its_lock_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    removed, unlink = [], os.unlink

    def noted(path: str | Path, **where: int) -> None:
        removed.append(Path(path).name)
        unlink(path, **where)

    monkeypatch.setattr(os, "unlink", noted)
    with _files.temporary_folder(tmp_path, ".a.") as folder:
        (folder / "below").mkdir()
        for name in ("z", "below/y"):
            (folder / name).touch()
    assert sorted(removed[:2]) == ["y", "z"]
    assert removed[2] == _files.LOCK
    assert list(tmp_path.iterdir()) == []
