"""Jobs that workers of one folder share out among themselves, on one machine or several, without a coordinator.

::

    workers/.MACHINE.abcdefgh/beat      a worker that lives: it holds a lock, and writes a number every ten seconds
    claims/000000003                    who does job 3; "… done RESULT" when it is done

A worker claims a job by making its file, which only one can. The claim of a worker that is gone is anyone's: on its own
machine the system takes its lock from it at once; on others its beat has not changed for a minute by the watcher's own
clock, so clocks need not agree. Where a worker is taken for gone and is not, a job is done twice: whoever does jobs
must write the same result, atomically, and only time is lost.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import platform
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from labkit._files import sweep, temporary_folder

logger = logging.getLogger(__name__)

BEAT = 10.0  # seconds
LOST = 60.0  # seconds without a beat after which a worker of another machine is taken for gone


class Gone(Exception):
    """Another worker has found all jobs done, and removed the folder of claims."""


class Claims:
    """One worker's view of the jobs.

    Attributes:
        results: of the jobs that are known to be done, since this worker began.
        open: the other jobs.
    """

    def __init__(self, folder: Path, own: Path, n_jobs: int) -> None:
        self._folder, self._own = folder / "claims", own
        self._workers, self._sign = own.parent, own.parent / machine_sign()
        self._watched: dict[str, tuple[str, float]] = {}
        self.results: dict[int, str] = {}
        self.open = list(range(n_jobs))
        with _gone():
            self._folder.mkdir(exist_ok=True)
            sweep(self._sign)
            kept = {path.name: _read(path) for path in self._folder.iterdir()}
        # of workers that were gone before this one began, whose results were not made from what is there now
        self._stale = {name: text for name, text in kept.items() if not self._lives(text.partition(" ")[0])}

    def take(self) -> int | None:
        """Claim a job; None where all are done, or done by others that live.

        Raises:
            Gone: the folder of claims was removed.
        """
        sweep(self._sign)
        for job in list(self.open):
            path = self._folder / f"{job:09d}"
            held = _read(path)
            _, done, result = held.partition(" done ")
            if done and self._stale.get(path.name) != held:
                self.results[job] = result
                self.open.remove(job)
            elif self._claim(path, held):
                return job
        return None

    def settle(self, job: int, result: str) -> None:
        """Tell all that a job is done, whoever has claimed it meanwhile."""
        self._put(self._folder / f"{job:09d}", f"{self._own.name} done {result}")
        self.results[job] = result
        if job in self.open:
            self.open.remove(job)

    def _claim(self, path: Path, held: str) -> bool:
        if not path.exists():
            with _gone(), contextlib.suppress(FileExistsError), path.open("x", encoding="utf-8") as file:
                file.write(self._own.name)
                return True
            return False
        owner, done, _ = held.partition(" done ")
        if owner == self._own.name or (not done and self._lives(owner or path.name)) or _read(path) != held:
            return False
        self._put(path, self._own.name)
        logger.info("%s is taken over from %s", path, owner)
        return _read(path) == self._own.name

    def _lives(self, worker: str) -> bool:
        """Whether a worker lives; or, of the name of a claim that says no worker yet, whether it may still do so."""
        folder = self._workers / worker
        if worker.startswith(".") and not folder.exists():
            return False
        beat, now = _read(folder / "beat"), time.monotonic()
        before, since = self._watched.get(worker, ("", now))
        self._watched[worker] = (beat, since if beat == before else now)
        return now - self._watched[worker][1] < LOST

    def _put(self, path: Path, text: str) -> None:
        with _gone():
            temporary = self._own / path.name
            temporary.write_text(text, "utf-8")
            temporary.replace(path)


@contextlib.contextmanager
def claims_in(folder: Path, n_jobs: int) -> Iterator[Claims]:
    """Take part in the jobs 0 to n_jobs - 1 that workers share in a folder, which is made.

    Raises:
        Gone: the folder was removed while it was being made.
        OSError: it cannot be written to.
    """
    with contextlib.ExitStack() as held:
        with _gone():
            (folder / "workers").mkdir(parents=True, exist_ok=True)
            own = held.enter_context(temporary_folder(folder / "workers", f".{machine_sign()}."))
        stopped = threading.Event()
        thread = threading.Thread(target=_beat, args=(own / "beat", stopped), daemon=True)
        thread.start()
        held.callback(thread.join)
        held.callback(stopped.set)
        yield Claims(folder, own, n_jobs)


def remove_claims(folder: Path) -> None:
    """Remove the folder, when all jobs are done; others that still look find out."""
    shutil.rmtree(folder, ignore_errors=True)


def remove_left_claims(folder: Path) -> None:
    """Remove what a worker has written while another one removed the folder, unless there is a worker again."""
    with contextlib.suppress(OSError):
        if any((folder / "workers").iterdir()):
            return
    remove_claims(folder)


def machine_sign() -> str:
    """Tells the machine that this process runs on, since it was started, from others that share a folder."""
    try:
        started = Path("/proc/sys/kernel/random/boot_id").read_text("utf-8")  # the same in all containers
    except OSError:
        started = f"{platform.node()} {uuid.getnode()}"
    return hashlib.sha256(started.encode()).hexdigest()[:12]


def _beat(path: Path, stopped: threading.Event) -> None:
    count = 0
    while True:
        with contextlib.suppress(OSError):  # what does not come across once may do so the next time
            path.write_text(f"{os.getpid()} {count}", "utf-8")
        count += 1
        if stopped.wait(BEAT):
            return


@contextlib.contextmanager
def _gone() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise Gone from error


def _read(path: Path) -> str:
    """The content of a small file; "" where there is none."""
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""
