"""The command line: a module for each command, which has `add` (its options) and `run` (its work).

Heavy modules are imported by the command that needs them, so that `labkit --help` answers at once.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, cast

import labkit
from labkit.cli import (
    apply,
    cluster,
    datasets,
    export,
    features,
    must,
    options,
    predict,
    report,
    reproduce,
    run,
    sort,
    zeroshot,
)
from labkit.cli.parser import Parser, examples
from labkit.cli.terminal import Words, fill_closed_streams, plain_warnings
from labkit.errors import DataError, LabkitError, printable

COMMANDS = (  # in the order of the help
    *(cluster, apply, sort, export, predict, zeroshot, must),  # your own images
    *(datasets, features, reproduce, report, run),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0 done, 1 not all of it, 2 bad input, 130 interrupted."""
    # Threads that spin for long while they wait stall on a busy machine; read when torch is loaded, so it is set here.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    fill_closed_streams()
    out, err = Words(sys.stdout), Words(sys.stderr)
    with contextlib.redirect_stdout(cast(IO[str], out)), contextlib.redirect_stderr(cast(IO[str], err)):
        with plain_warnings():
            status = _answer(argv)
        out.flush()
        if out.failure is not None and not isinstance(out.failure, BrokenPipeError) and status == 0:
            print(f"labkit: all is done, but standard output cannot be written ({out.failure}).", file=sys.stderr)
            status = 2
        err.flush()
    return status


def make_parser() -> Parser:
    """The parser of `labkit`, with all commands."""
    parser = Parser(
        "labkit",
        description="Unsupervised transfer: from images to labels, no labels. `labkit COMMAND --help` has the options "
        "of a command, and examples.",
        epilog=examples(
            "labkit cluster photos                        groups, a page to look at them, a table",
            "labkit must photos --words cat,dog,horse     self-training of an image-text model",
            "labkit run                                   the notebook series",
        )
        + "\n\nexit status: 0 done, 1 a notebook, a dataset or a file failed, 2 bad input, 130 interrupted",
    )
    parser.add_argument("--version", action="version", version=f"labkit {labkit.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser


def _answer(argv: Sequence[str] | None) -> int:
    when_stopped = ""
    try:
        arguments = make_parser().parse_args(argv)
        when_stopped = arguments.when_stopped
        _expect_here()
        options.ask_hub_early(arguments)
        return arguments.run(arguments)
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
    try:
        tempfile.gettempdir()
    except OSError as error:  # PyTorch asks for it when it is loaded
        raise DataError(
            "no temporary file can be written: the disk may be full. Make room, or set TMPDIR to another folder."
        ) from error
