"""Feed labkit's readers with damaged files; whatever they raise but a LabkitError is a failure, and kept.

    python -m tests.fuzz.fuzz --seconds 600      or `make fuzz`

Every target runs in a process of its own, so that a crash, a file that takes longer than ten seconds and the memory
that was needed are seen. What fails is kept in runs/fuzz; once mended it belongs into tests/fuzz/corpus/<target>,
which every run of the tests reads again.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import logging
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import torch

from labkit.errors import LabkitError
from tests.fuzz.targets import TARGETS, Target

CORPUS = Path(__file__).parent / "corpus"
LONGEST = 10.0  # seconds that a file may take
LONGEST_MESSAGE = 3000  # characters of an error, for a file with twenty problems
MEMORY = 1500  # MB that a target may need beside what it began with
TOKENS = [
    b"\0", b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"9" * 30, b"-1", b"1e999", b"nan", b"null", b"[]",
    b"{}", b"[" * 40, b"{a: " * 40, b"*a", b"&a ", b"<<: ", b"!!python/object:os.system", b"!!binary", b"!!set", b"~",
    b"0x_", b"2024-99-99", b"'", b'"', b"\n", b"\r", b": ", b"- ", b",", b"../", b"~x/", "é球".encode(),
    b"\xed\xa0\x80", b"\xef\xbb\xbf", b"true", b"1:2:3", b"? ", b"|", b"--- ", b"%YAML 9.9\n",
]  # fmt: skip


class TooLongError(Exception):
    """A file took longer than `LONGEST`."""


def mutate(seeds: list[bytes], rng: random.Random) -> bytes:
    """One of the examples, changed in one to eight places."""
    content = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        place = rng.randrange(len(content) + 1) if rng.random() < 0.6 else rng.randrange(min(len(content), 64) + 1)
        end = min(len(content), place + rng.choice((1, 1, 2, 4, 16, 200)))
        how = rng.randrange(8)
        if how == 0 and place < len(content):
            content[place] ^= 1 << rng.randrange(8)
        elif how == 1 and place < len(content):
            content[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif how == 2:
            del content[place:end]
        elif how == 3:
            content[place:place] = content[place:end] * rng.choice((1, 2, 50))
        elif how == 4:
            content[place:end] = rng.choice(TOKENS)
        elif how == 5:
            content[place:place] = rng.choice(TOKENS)
        elif how == 6:
            other = rng.choice(seeds)
            content[place:end] = other[place : place + rng.choice((4, 32, 400))]
        else:
            del content[place:]
    return bytes(content)


def inputs(name: str, seed: int) -> Iterator[bytes]:
    """The corpus of a target, its examples, and changed ones without end; the same for the same seed."""
    target, rng = TARGETS[name], random.Random(f"{name} {seed}")
    seeds, known = target.seeds(), corpus(name)
    yield from known
    yield from seeds
    while True:
        yield mutate([*seeds, *known], rng)


def corpus(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]


def try_one(target: Target, path: Path) -> str:
    """What went wrong with this file; nothing where it was read or refused as it should be."""

    def too_long(number: int, frame: FrameType | None) -> None:
        raise TooLongError

    signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
    try:
        target.read(path)
    except LabkitError as error:
        said = str(error).replace(str(path), "")
        return f"an error of {len(said)} characters: {said[:200]!r}" if len(said) > LONGEST_MESSAGE else ""
    except BaseException:
        return traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return ""


def run(name: str, *, files: int, seconds: float, seed: int, keep: Path) -> tuple[int, int, float]:
    """Feed one target; how many files, how many failed, and the MB that it needed beside what it began with."""
    target, began = TARGETS[name], time.monotonic()
    failed = done = 0
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        os.environ["LABKIT_CACHE"] = os.environ["XDG_CACHE_HOME"] = folder
        path, source = Path(folder, f"x{target.suffix}"), inputs(name, seed)
        before = None
        for content in source:
            if done >= files or time.monotonic() - began > seconds:
                break
            path.write_bytes(content)
            problem = try_one(target, path)
            done += 1
            if problem:
                failed += 1
                keep_failure(keep, name, content, problem)
            if before is None:
                before = peak()  # with all that is imported on the way
    return done, failed, peak() - (before or peak())


def keep_failure(keep: Path, name: str, content: bytes, problem: str) -> None:
    digest = hashlib.sha256(content).hexdigest()[:12]
    (keep / name).mkdir(parents=True, exist_ok=True)
    (keep / name / digest).write_bytes(content)
    print(f"{name} {digest}: {problem.strip().splitlines()[-1][:200]}", flush=True)
    (keep / name / f"{digest}.txt").write_text(problem, "utf-8")


def peak() -> float:
    """Largest memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_a_process(name: str, *, files: int, seconds: float, seed: int, keep: Path) -> bool:
    """Feed one target in a fork of this process; whether all went well."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries in C comment on every damage
        with contextlib.suppress(BaseException):
            done, failed, memory = run(name, files=files, seconds=seconds, seed=seed, keep=keep)
            os.write(write, f"{done} {failed} {memory:.0f}".encode())
            status = 0
        os._exit(status)
    os.close(write)
    with os.fdopen(read) as answer:
        said = answer.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status or not said:
        print(f"{name}: the process ended with status {status}")
        return False
    done, failed, memory = map(int, said.split())
    print(f"{name}: {done} files, {failed} failed, {memory} MB beside the start", flush=True)
    return not failed and memory <= MEMORY


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600, help="in all (default: %(default)s)")
    parser.add_argument("--files", type=int, default=10**9, help="at most, of each target")
    parser.add_argument("--only", nargs="+", default=list(TARGETS), choices=list(TARGETS), metavar="TARGET")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("runs/fuzz"), help="where failures go (default: %(default)s)")
    given = parser.parse_args(argv)
    share = given.seconds / len(given.only)
    outcomes = [
        in_a_process(name, files=given.files, seconds=share, seed=given.seed, keep=given.keep) for name in given.only
    ]
    return 0 if all(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
