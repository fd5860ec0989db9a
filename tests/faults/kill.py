"""Kill a chain of work, run it again, and see whether it ends as if it had not been killed.

    python -m tests.faults.kill --random 60      at random moments, over all chains
    python -m tests.faults.kill --points         at each sync, rename, folder and file that it makes or removes

Each chain runs in a fork of this process, which has imported all and computed nothing. Prints a line a kill, and ends
with status 1 where one was not as undisturbed, or a temporary file was left.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from labkit import _saved
from tests import tiny
from tests.faults.scenarios import SCENARIOS, enter, outcome, prepare

KILLED = 9


def die_at(point: int) -> None:
    """Let this process die at this event, the first being 1."""
    passed = 0

    def dying(what: Callable[..., Any], half: Callable[..., object] | None = None) -> Callable[..., Any]:
        def instead(*args: Any, **kwargs: Any) -> Any:
            nonlocal passed
            passed += 1
            if passed == point:
                if half is not None:
                    half(*args, **kwargs)
                os._exit(KILLED)
            return what(*args, **kwargs)

        return instead

    def half_file(tensors: Any, path: Path, *rest: Any) -> None:
        save_file(tensors, path, *rest)
        os.truncate(path, path.stat().st_size // 2)

    save_file = _saved.save_file
    _saved.save_file = dying(save_file, half_file)
    os.fsync, os.replace, os.unlink = dying(os.fsync), dying(os.replace), dying(os.unlink)
    tempfile.mkdtemp, shutil.rmtree = dying(tempfile.mkdtemp), dying(shutil.rmtree)  # type: ignore[assignment]


def run(name: str, folder: Path, tiny_files: Path, *, point: int = 0, seconds: float = 0.0) -> int:
    """The chain in a process of its own, killed at this point or after so many seconds; its exit status."""
    pid = os.fork()
    if pid == 0:
        try:
            enter(folder, tiny_files)
            if point:
                die_at(point)
            SCENARIOS[name](folder)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    if seconds:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return KILLED if status == -signal.SIGKILL else status


def compare(name: str, folder: Path, tiny_files: Path, undisturbed: dict[str, str]) -> str:
    """What is different once a killed chain has been run again; nothing where all is as undisturbed."""
    status = run(name, folder, tiny_files)
    if status:
        return f"the next run ended with status {status}"
    found = outcome(folder)
    other = sorted(path for path in found.keys() | undisturbed.keys() if found.get(path) != undisturbed.get(path))
    return f"not as undisturbed: {', '.join(other)}" if other else ""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--random", type=int, default=0, metavar="N", help="kill at N random moments")
    parser.add_argument("--points", action="store_true", help="kill at every event, one after the other")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only at each N-th of these")
    parser.add_argument("--only", nargs="+", default=list(SCENARIOS), choices=list(SCENARIOS), metavar="CHAIN")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(argv)
    # A progress bar takes a lock that processes share, which one that is killed may hold for ever.
    tqdm.monitor_interval = 0
    tqdm.set_lock(threading.RLock())
    torch.set_num_threads(1)  # so that a fork has no threads that it lost
    rng, failed, kills = random.Random(given.seed), 0, 0
    with tempfile.TemporaryDirectory(prefix="kills-") as place:
        tiny_files = Path(place, "tiny")
        tiny_files.mkdir()
        tiny.write_model(tiny_files)

        def fresh(name: str) -> Path:
            shutil.rmtree(Path(place, "work"), ignore_errors=True)
            prepare(Path(place, "work"))
            return Path(place, "work")

        known: dict[str, tuple[dict[str, str], float]] = {}
        for name in [*given.only, *given.only]:  # twice: the second time all is warm, as it is for those to be killed
            folder, began = fresh(name), time.monotonic()
            if run(name, folder, tiny_files):
                print(f"{name} fails undisturbed")
                return 1
            known[name] = outcome(folder), time.monotonic() - began

        def judge(name: str, where: str, folder: Path) -> None:
            nonlocal failed, kills
            said = compare(name, folder, tiny_files, known[name][0])
            kills, failed = kills + 1, failed + bool(said)
            print(f"{name}, killed {where}: {said or 'as undisturbed'}", flush=True)

        for name in given.only if given.points else ():
            for point in range(1, 10_000, given.every):
                folder = fresh(name)
                if run(name, folder, tiny_files, point=point) != KILLED:
                    break
                judge(name, f"at event {point}", folder)
        for i in range(given.random):
            name = given.only[i % len(given.only)]
            folder, after = fresh(name), rng.uniform(0.001, known[name][1])
            status = run(name, folder, tiny_files, seconds=after)
            ended = "" if status == KILLED else f" (it had ended with status {status})"
            failed += status not in (0, KILLED)
            judge(name, f"after {after:.3f} s{ended}", folder)
    print(f"{kills - failed} of {kills} as undisturbed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
