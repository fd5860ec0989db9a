"""Kill a sort and its undo, and see that no image is lost and that the next command ends as an undisturbed one.

    python -m tests.faults.sorts --points        before each link, rename, folder, sync and removal
    python -m tests.faults.sorts --random 60     at random moments

Prints a line a kill, and ends with status 1 where one went wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from labkit.own.clustering import Clustering
from labkit.own.sorting import carry_out, plan_sort, undo_sort
from labkit.own.undo_file import read_undo
from tests.unit.own.results import make_result

# A progress bar takes a lock that processes share, which one that is killed may hold for ever.
tqdm.monitor_interval = 0
tqdm.set_lock(threading.RLock())
KILLED = 9
EVENTS = ("fsync", "link", "mkdir", "rename", "replace", "rmdir", "symlink", "unlink")
FILES = ("a.jpg", "b/a.jpg", "b/c/d.jpg", "e.jpg")
ELSEWHERE = Path("/dev/shm")  # another file system, where there is one

Tree = dict[str, str]


def tree(root: Path) -> Tree:
    """Every file and folder below a folder, hidden ones as well, with a digest of what it holds."""
    found = {
        str(path.relative_to(root)): "folder"
        if path.is_dir() and not path.is_symlink()
        else ("link " if path.is_symlink() else "") + hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
    }
    if "undo.json" in found:  # whether the folder was there before is not known where a run was killed right after
        found["undo.json"] = repr(read_undo(root).steps)
    return found


def in_a_fork(work: Callable[[], object], *, point: int = 0, seconds: float = 0.0) -> int:
    """The work in a process of its own, killed before this event, the first being 1, or after so many seconds."""
    pid = os.fork()
    if pid == 0:
        try:
            if point:
                _die_at(point)
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    if seconds:
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return KILLED if status == -signal.SIGKILL else status


def _die_at(point: int) -> None:
    passed = 0

    def dying(act: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*args: Any, **kwargs: Any) -> Any:
            nonlocal passed
            passed += 1
            if passed == point:
                os._exit(KILLED)
            return act(*args, **kwargs)

        return instead

    for name in EVENTS:
        setattr(os, name, dying(getattr(os, name)))


def judge(result: Clustering, new: Path, how: str, before: Tree, sorted_: tuple[Tree, Tree], *, again: bool) -> str:
    """What is wrong after a kill, once the sort is given again or else undone; "" where nothing is."""
    held = {*tree(result.root).values(), *(tree(new).values() if new.exists() else ())}
    lost = set(before.values()) - held - {"folder"}
    if lost:
        return f"{len(lost)} images are lost"
    if again:
        if in_a_fork(lambda: _all_done(carry_out(plan_sort(result, new, how)).left)):
            return "the sort cannot be given again"
        return "" if (tree(result.root), tree(new)) == sorted_ else "it is not sorted as undisturbed"
    if new.exists() and any(new.iterdir()) and in_a_fork(lambda: _all_done(undo_sort(new).left)):
        return "it cannot be undone"
    if tree(result.root) != before:
        return "not all is back"
    return f"left behind: {list(tree(new))}" if new.exists() and any(new.iterdir()) else ""


def _all_done(left: dict[Path, str]) -> None:
    if left:
        raise AssertionError(left)


def cases() -> Iterator[tuple[str, str, Path | None]]:
    """How, and on which file system: beside the images, or another one."""
    for how in ("copy", "link", "move"):
        yield f"{how} beside", how, None
    if ELSEWHERE.is_dir() and ELSEWHERE.stat().st_dev != Path(tempfile.gettempdir()).stat().st_dev:
        yield "move elsewhere", "move", ELSEWHERE


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", action="store_true", help="kill before every event, one after the other")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only at each N-th of these")
    parser.add_argument("--random", type=int, default=0, metavar="N", help="kill at N random moments of each case")
    parser.add_argument("--only", metavar="CASE", help="of copy, link and move beside, and move elsewhere")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(argv)
    rng, failed, kills = random.Random(given.seed), 0, 0
    for name, how, elsewhere in cases():
        if given.only not in (None, name):
            continue
        with tempfile.TemporaryDirectory() as place, tempfile.TemporaryDirectory(dir=elsewhere) as other:
            new = Path(other, "new")

            def fresh(root: Path = Path(place, "photos"), new: Path = new) -> Clustering:
                shutil.rmtree(root, ignore_errors=True)
                shutil.rmtree(new, ignore_errors=True)
                return make_result(root, FILES, [0, 0, 1, -1], {0: "shoes"})

            result = fresh()
            before, began = tree(result.root), time.monotonic()
            _all_done(carry_out(plan_sort(result, new, how)).left)
            sorted_, seconds = (tree(result.root), tree(new)), time.monotonic() - began

            def sort(result: Clustering = result, new: Path = new, how: str = how) -> None:
                carry_out(plan_sort(result, new, how))

            def undo(new: Path = new) -> None:
                undo_sort(new)

            moments: list[dict[str, Any]] = []
            if given.points:
                moments += [{"point": point} for point in range(1, 200, given.every)]
            moments += [{"seconds": rng.uniform(0.001, 1.5 * seconds)} for _ in range(given.random)]
            for work in (sort, undo):
                for again in (True, False):
                    for moment in moments:
                        fresh()
                        if work is undo:
                            sort()
                        status = in_a_fork(work, **moment)
                        if "point" in moment and status == 0:
                            break
                        said = judge(result, new, how, before, sorted_, again=again)
                        kills, failed = kills + 1, failed + bool(said or status not in (0, KILLED))
                        then = "sorted again" if again else "undone"
                        print(f"{name}: {work.__name__} killed at {moment}, {then}: {said or 'whole'}", flush=True)
    print(f"{kills - failed} of {kills} whole")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
