"""`labkit sort`: the images in a folder for each cluster, and back."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from labkit.cli import options
from labkit.cli.parser import examples
from labkit.errors import DataError, printable, shown

if TYPE_CHECKING:
    from labkit.own.sorting import SortResult


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Give the command to the parser of `labkit`."""
    parser = commands.add_parser(
        "sort",
        help="put the images into a folder for each cluster, or back",
        description="Copy, link or move the images of a result into a folder for each cluster, named by the cluster's "
        "name; images that a review rejected go to the folder rejected. Shows first what it would do, and asks. "
        "Nothing is replaced, and --undo puts all back.",
        epilog=examples(
            "labkit sort clusters --to sorted --copy",
            "labkit sort clusters --to sorted --move --yes",
            "labkit sort --undo sorted",
        ),
    )
    parser.add_argument("out", nargs="?", type=options.path, help="the folder that `labkit cluster` wrote")
    parser.add_argument("--to", type=options.path, metavar="NEW", help="a folder that is new or empty")
    parser.add_argument("--copy", dest="how", action="append_const", const="copy", help="copies; the images stay")
    parser.add_argument("--link", dest="how", action="append_const", const="link", help="symbolic links to the images")
    parser.add_argument("--move", dest="how", action="append_const", const="move", help="the images themselves")
    parser.add_argument("--undo", type=options.path, metavar="NEW", help="put back what was sorted into this folder")
    parser.add_argument(
        "--yes", action="store_true", help="do not show a preview and ask; needed where there is no terminal"
    )
    parser.set_defaults(run=run, when_stopped="The same command goes on from there; labkit sort --undo puts all back.")


def run(arguments: argparse.Namespace) -> int:
    if arguments.undo is not None:
        return _undo(arguments)
    if arguments.out is None or arguments.to is None or len(arguments.how or []) != 1:
        raise DataError(
            "sort needs the folder that `labkit cluster` wrote, --to NEW, and one of --copy, --link and --move; or "
            "--undo NEW. Example: labkit sort clusters --to sorted --copy"
        )
    from labkit.own.clustering import load_clustering
    from labkit.own.sorting import carry_out, plan_sort

    plan = plan_sort(load_clustering(arguments.out), arguments.to, arguments.how[0])
    if not arguments.yes:
        print(*map(printable, plan.preview()), sep="\n", flush=True)
        if not sys.stdin.isatty():
            raise DataError("nothing was done yet: there is no terminal to ask on. Give the same command with --yes.")
        print("Go on? [y/n] ", end="", flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            print("Nothing was done.")
            return 0
    done = carry_out(plan, progress=True)
    _say(done, f"{done.done:,} of {len(plan.steps):,} images are in {shown(arguments.to)}", "could not be put there")
    print(f"undo: labkit sort --undo {shown(arguments.to)}")
    return 1 if done.left else 0


def _undo(arguments: argparse.Namespace) -> int:
    if arguments.out is not None or arguments.to is not None or arguments.how is not None:
        raise DataError("--undo takes the folder that was sorted into, and nothing else: labkit sort --undo NEW")
    from labkit.own.sorting import undo_sort

    undone = undo_sort(arguments.undo, progress=True)
    _say(undone, f"{undone.done:,} images are as they were before the sort", "are kept")
    return 1 if undone.left else 0


def _say(done: SortResult, line: str, what: str, n: int = 10) -> None:
    print(printable(line))
    if done.left:
        print(f"{len(done.left):,} {what}:")
        rows: list[tuple[Path, str]] = list(done.left.items())[:n]
        print(*(printable(f"  {shown(path)}: {reason}") for path, reason in rows), sep="\n")
    if len(done.left) > n:
        print(f"  and {len(done.left) - n:,} more")
