"""`labkit report`: results of reproductions as a page; those of several machines together."""

from __future__ import annotations

import argparse

from labkit.cli import options
from labkit.cli.parser import Parser, examples
from labkit.errors import printable, shown


def add(commands: argparse._SubParsersAction[Parser]) -> None:
    """Give the command to the parser of `labkit`."""
    parser = commands.add_parser(
        "report",
        help="what `labkit reproduce` found, as a page; several runs together",
        description="Put results of `labkit reproduce` beside the published numbers: a table here, and a page that "
        "needs no network. Of several runs the rows are merged; of the same row the last one given counts.",
        epilog=examples(
            "labkit report runs/turtle-paper --out paper.html",
            "labkit report laptop/results.jsonl cluster/results.jsonl --out both.html",
        ),
    )
    parser.add_argument(
        "runs", nargs="+", type=options.path, metavar="RUN", help="folders of runs, or their results.jsonl"
    )
    parser.add_argument("--out", required=True, type=options.path, metavar="PAGE", help="the page, an HTML file")
    parser.set_defaults(run=run, when_stopped="")


def run(arguments: argparse.Namespace) -> int:
    from labkit.papers.page import write_report

    for section in write_report(arguments.runs, arguments.out):
        print(*map(printable, section.lines()), "", sep="\n")
    print(f"See {shown(arguments.out)}")
    return 0
