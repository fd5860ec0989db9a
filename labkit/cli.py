"""The command line: `labkit run` the notebooks, `cluster` a folder of images, `must` to self-train, `datasets`.

Heavy modules are imported by the command that needs them, so that `labkit --help` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from labkit._parser import make_parser
from labkit._terminal import Words, fill_closed_streams
from labkit.errors import DataError, LabkitError, printable

if TYPE_CHECKING:
    from labkit.zeroshot.naming import Names


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0 done, 1 a notebook failed, 2 bad input, 130 interrupted."""
    # Threads that spin for long while they wait stall on a busy machine; read when torch is loaded, so it is set here.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    fill_closed_streams()
    out, err = Words(sys.stdout), Words(sys.stderr)
    with contextlib.redirect_stdout(cast(IO[str], out)), contextlib.redirect_stderr(cast(IO[str], err)):
        status = _answer(argv)
        out.flush()
        if out.failure is not None and not isinstance(out.failure, BrokenPipeError) and status == 0:
            print(f"labkit: all is done, but standard output cannot be written ({out.failure}).", file=sys.stderr)
            status = 2
        err.flush()
    return status


def _answer(argv: Sequence[str] | None) -> int:
    when_stopped = ""
    try:
        arguments = make_parser(WORK).parse_args(argv)
        when_stopped = arguments.when_stopped
        _expect_here()
        return arguments.command(arguments)
    except SystemExit as done:  # argparse has said what is wrong, or given the help
        return int(done.code or 0)
    except LabkitError as error:
        print(f"labkit: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"labkit: interrupted. {when_stopped}", file=sys.stderr)
        return 130


def _expect_here() -> None:
    try:
        Path.cwd()
    except OSError as error:  # libraries would end the process
        raise DataError(f"the folder that labkit was started in is gone or closed ({error}). Go to another.") from error


def _run(arguments: argparse.Namespace) -> int:
    from labkit.course.report import describe_failure
    from labkit.course.series import run_series

    report = run_series(arguments.out, profile=arguments.profile, only=arguments.only)
    for failure in report["failures"]:
        print(f"FAILED {describe_failure(failure)}", file=sys.stderr)
    seconds = sum(timing["seconds"] for timing in report["timings"].values())
    print(f"{len(report['timings'])} notebooks in {seconds:.0f} s, {len(report['results'])} results, ", end="")
    print(f"{len(report['failures'])} failed. See {arguments.out / 'index.html'}")
    return 1 if report["failures"] else 0


def _given_words(arguments: argparse.Namespace, least: int) -> tuple[list[str] | None, Path | None]:
    """The vocabulary of --words, at least so many, and the file that it is from; None where there is none."""
    from labkit.own.files import read_words, words_file

    if arguments.words is None:
        return None, None
    return read_words(arguments.words, least), words_file(arguments.words)


def _cluster(arguments: argparse.Namespace) -> int:
    if not os.path.isdir(arguments.folder):  # noqa: PTH112 (says no where pathlib raises)
        raise DataError(f"{arguments.folder} is not a folder. Expected a folder of images.")
    if arguments.sheet and arguments.sheet.suffix not in (".html", ".png"):
        raise DataError(f"the contact sheet is {arguments.sheet}. Expected a name that ends in .html or .png.")
    if arguments.classes < 2:
        raise DataError(f"--classes is {arguments.classes}. Expected a whole number of at least 2.")
    words, file = _given_words(arguments, arguments.classes)
    from labkit.own.cluster import cluster_folder

    found = cluster_folder(
        arguments.folder,
        arguments.classes,
        backbones=arguments.backbone,
        out=arguments.out,
        sheet=arguments.sheet,
        words=words,
        words_file=file,
        n_restarts=arguments.restarts,
        seed=arguments.seed,
    )
    if words and found.names:
        _print_names(words, found.names)
    print(f"{found.n_images} images in {found.n_clusters} clusters: {arguments.out}")
    if arguments.sheet:
        print(f"contact sheet: {arguments.sheet}")
    return 0


def _print_names(words: list[str], names: Names) -> None:
    for cluster, (word, margin) in enumerate(zip(names.assignment, names.margins, strict=True)):
        doubt = "" if margin >= 0 else ", another word fits it better: look before you believe it"
        print(f"cluster {cluster}: {words[word]} (margin {margin:+.2f}{doubt})")
    print(
        "The margin is how far a word is ahead of the next best, in nats of mean log-probability. It compares only the"
    )
    print("words that were given: where none of them fits, one may still be far ahead.")


def _must(arguments: argparse.Namespace) -> int:
    from labkit.own.self_train import plan, self_train

    words, file = _given_words(arguments, 2)
    planned = plan(
        arguments.data,
        arguments.backbone,
        preset=arguments.preset,
        epochs=arguments.epochs,
        batch_size=arguments.batch,
        threshold=arguments.threshold,
        words=words,
        words_file=file,
    )
    if int(os.environ.get("RANK", "0")) == 0:  # of several processes, which accelerate numbers, one speaks
        print(*planned.settings, sep="\n", flush=True)
    trained = self_train(
        planned,
        out=arguments.out,
        spaces=arguments.space,
        from_turtle=arguments.initial_labels == "turtle",
        seed=arguments.seed,
    )
    if trained is None:
        return 0
    print(*trained.story, f"See {arguments.out}", sep="\n")
    return 0


def _datasets(arguments: argparse.Namespace) -> int:
    from labkit.data.manifests import list_manifests, load_manifest

    rows = [("id", "classes", "images", "source", "license", "title")]
    for manifest in map(load_manifest, list_manifests()):
        sizes = ", ".join(f"{name} {split.size:,}" for name, split in manifest.splits.items())
        rows.append(
            (manifest.id, str(manifest.n_classes), sizes, manifest.source.kind, manifest.license, manifest.title)
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


WORK = {"run": _run, "cluster": _cluster, "must": _must, "datasets": _datasets}

if __name__ == "__main__":
    sys.exit(main())
