"""`labkit run`: the notebook series."""

from __future__ import annotations

import argparse
import sys

from labkit.cli import options
from labkit.cli.parser import Parser, Several, examples


def add(commands: argparse._SubParsersAction[Parser]) -> None:
    """Give the command to the parser of `labkit`."""
    parser = commands.add_parser(
        "run",
        help="run the notebook series and collect its results",
        description="Run the notebooks one after another, and write pages and results.json into a folder.",
        epilog=examples(
            "labkit run",
            "labkit run --only 04,05 --out runs/turtle",
            "labkit run --profile standard        models and datasets for one small GPU",
        ),
    )
    parser.add_argument("--profile", default="pocket", help="pocket (default), photos, standard, paper or auto")
    parser.add_argument(
        "--out", default="runs/latest", type=options.path, help="folder for results (default: %(default)s)"
    )
    parser.add_argument(
        "--only", nargs="+", action=Several, default=[], metavar="NN", help="numbers of the notebooks to run: 02,03"
    )
    parser.set_defaults(run=run, when_stopped="The pages of the notebooks that had ended are in the output folder.")


def run(arguments: argparse.Namespace) -> int:
    from labkit.course.report import describe_failure
    from labkit.course.series import run_series

    report = run_series(arguments.out, profile=arguments.profile, only=arguments.only)
    for failure in report["failures"]:
        print(f"FAILED {describe_failure(failure)}", file=sys.stderr)
    seconds = sum(timing["seconds"] for timing in report["timings"].values())
    print(f"{len(report['timings'])} notebooks in {seconds:.0f} s, {len(report['results'])} results, ", end="")
    print(f"{len(report['failures'])} failed. See {arguments.out / 'index.html'}")
    return 1 if report["failures"] else 0
