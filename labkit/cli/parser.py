"""A parser that answers a typo with the nearest option or command, and whose help ends with examples."""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Sequence
from typing import Any, NoReturn

from labkit.errors import nearest, printable, quote, suggestion

WIDTH = 80  # of a description, which argparse leaves as it is so that examples keep their lines


def examples(*commands: str) -> str:
    """The end of a command's help: for `epilog`."""
    return "examples:\n" + "\n".join(f"  {command}" for command in commands)


class Parser(argparse.ArgumentParser):
    """The parser of `labkit` and, as argparse makes them of the same class, of its commands."""

    def __init__(self, *args: Any, **named: Any) -> None:
        self.commands: dict[str, Parser] = {}
        self.needs_command = False
        named.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        if named.get("description"):
            named["description"] = textwrap.fill(named["description"], WIDTH, break_on_hyphens=False)
        super().__init__(*args, **named)

    @property
    def options(self) -> list[str]:
        return list(self._option_string_actions)  # those of groups as well

    def add_subparsers(self, **named: Any) -> argparse._SubParsersAction[Parser]:  # type: ignore[override]
        action = super().add_subparsers(**named)
        self.commands, self.needs_command = action.choices, named.get("required", False)
        return action

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        given = list(sys.argv[1:] if args is None else args)
        self._expect_known(given)
        return super().parse_args(given, namespace)

    def error(self, message: str) -> NoReturn:
        """Say in one line what is wrong, and exit with 2."""
        message = re.sub(r"^the following arguments are required: ", "missing: ", message)
        message = re.sub(r"^argument (-\S+/)?(?=\S+: )", "", message)
        message = re.sub(r"invalid (?:int|float) value: (.*)", r"\1 is not a number", message)
        text = " ".join(message.split()).rstrip(".")
        self.exit(2, printable(f"labkit: {text}{'' if text.endswith('?') else '.'} See {self.prog} --help\n"))

    def _expect_known(self, given: list[str]) -> None:
        """Before argparse, which would first miss an option that is there and misspelled."""
        if not self.commands:
            return self._expect_options(given)
        position = next((i for i, text in enumerate(given) if not text.startswith("-")), len(given))
        self._expect_options(given[:position])
        if position == len(given):
            if self.needs_command and not {"-h", "--help", "--version"} & set(given):
                self.error(f"a command is missing. Expected one of {', '.join(self.commands)}")
            return
        command = self.commands.get(given[position])
        if command is None:
            near = suggestion(nearest(given[position], self.commands))
            known = "" if near else f" Expected one of {', '.join(self.commands)}"
            self.error(f"there is no command {quote(given[position])}.{near}{known}")
        command._expect_known(given[position + 1 :])

    def _expect_options(self, given: list[str]) -> None:
        for text in given:
            if text == "--":
                return
            name = text.partition("=")[0]
            if not re.match(r"--?[a-zA-Z][\w-]*$", name) or any(option.startswith(name) for option in self.options):
                continue
            long = f"--{name.lstrip('-')}"
            starts = [option for option in self.options if option.startswith(long)]
            self.error(f"{name} is no option here.{suggestion(starts[:1] or nearest(long, self.options))}")


class Several(argparse.Action):
    """An option that may be repeated, and takes several values with commas between them: a list."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        given = values if isinstance(values, list) else [values]
        parts = [part.strip() for text in given for part in text.split(",") if part.strip()]
        if not parts:
            raise argparse.ArgumentError(self, "it is empty. Expected at least one name")
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest, [*(before or []), *parts])
