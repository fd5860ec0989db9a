"""`labkit reproduce`: a paper's table again, from plan to page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from labkit.cli import options
from labkit.cli.parser import Parser, Several, examples
from labkit.errors import DataError, printable, shown


def add(commands: argparse._SubParsersAction[Parser]) -> None:
    """Give the command to the parser of `labkit`."""
    parser = commands.add_parser(
        "reproduce",
        help="a paper's table again: plan, features, sweep or preset, choice without labels, results",
        description="Make the rows of a paper's table, with zero-shot, K-means and a linear probe beside them. First a "
        "plan: downloads, gigabytes, hours. Stop it with Ctrl-C, or kill it: the same command goes on, also on another "
        "machine that the output folder was copied to. A dataset that cannot be had is said and skipped.",
        epilog=examples(
            "labkit reproduce turtle --datasets digits,fashion-mini      nothing to fetch",
            "labkit reproduce turtle --profile paper --plan              what all 26 rows would take",
            "labkit reproduce must --datasets dtd --profile standard --out runs/must",
            "labkit report runs/a runs/b --out both.html                 two machines' rows on one page",
        ),
    )
    parser.add_argument("paper", choices=("turtle", "must"), help="whose table")
    parser.add_argument(
        "--datasets", action=Several, metavar="ID", help="rows to make, with commas (default: all of the paper's)"
    )
    parser.add_argument(
        "--profile",
        choices=options.PROFILES,
        default="pocket",
        help="models and settings: pocket (default) rehearses on a laptop, paper is what was published",
    )
    parser.add_argument(
        "--out", type=options.path, metavar="DIR", help="folder for results and fits (default: runs/PAPER-PROFILE)"
    )
    parser.add_argument(
        "--features",
        type=options.path,
        metavar="DIR",
        help="folder for features in shards, which need not fit into memory; `labkit features ID --profile PROFILE "
        "--out DIR` makes them on several GPUs (default: whole, in the cache)",
    )
    parser.add_argument("--plan", action="store_true", help="say what it would take, and do nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask before downloads")
    parser.set_defaults(
        run=run,
        when_stopped="What is finished is kept in the output folder, features in the cache or where --features says: "
        "the same command goes on from there, also on another machine that the folder is copied to.",
    )


def run(arguments: argparse.Namespace) -> int:
    from labkit.papers.plan import make_plan
    from labkit.papers.report import sections
    from labkit.papers.reproduce import expect_alone, reproduce
    from labkit.papers.results import FILE, read_rows

    expect_alone()
    out = arguments.out or Path("runs", f"{arguments.paper}-{arguments.profile}")
    plan = make_plan(
        arguments.paper, out, datasets=arguments.datasets, profile=arguments.profile, features=arguments.features
    )
    print(*map(printable, plan.lines()), sep="\n", flush=True)
    if arguments.plan:
        return 0
    if plan.downloads and not arguments.yes and not _agreed():
        print("Nothing was done.")
        return 0
    done = reproduce(
        arguments.paper,
        out,
        datasets=arguments.datasets,
        profile=arguments.profile,
        features=arguments.features,
        progress=True,
    )
    if (out / FILE).exists():
        for section in sections(read_rows(out)):
            asked = [one.dataset for one in plan.work if one.dataset in set(section.frame["dataset"])]
            if asked and (section.paper, section.profile) == (arguments.paper, arguments.profile):
                print("", *map(printable, section.lines(asked)), sep="\n")
        print(f"The tables with plots: {shown(out / 'report.html')}")
    if done.failed:
        print(printable(f"labkit: skipped, for the reasons above: {', '.join(done.failed)}"), file=sys.stderr)
    return 1 if done.failed else 0


def _agreed() -> bool:
    if not sys.stdin.isatty():
        raise DataError("nothing was done yet: there are downloads, and no terminal to ask on. Add --yes.")
    print("Download and go on? [y/n] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
