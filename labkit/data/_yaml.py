"""YAML from people one does not know: small, shallow, and without what makes much of little."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

from labkit.errors import quote, shorten

MAX_BYTES = 1_000_000
MAX_DEPTH = 32
LONGEST_NUMBER = 40  # characters


def parse(content: bytes) -> Any:
    """The data in a YAML file.

    Raises:
        ValueError: it is not valid YAML, or holds an alias, more than 32 levels or a value that cannot be made; the
            message is one line.
    """
    try:
        return yaml.load(content.decode("utf-8"), Loader=_Loader)
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        # what it quotes may be as long as the file; the words around it are no more than this
        words = ", ".join(shorten(text, 100) for text in (error.context, error.problem) if text)
        raise ValueError(f"{place}{words}") from error
    except yaml.YAMLError as error:
        raise ValueError(shorten(" ".join(str(error).split()), 100)) from error
    except Exception as error:  # an escape or a directive with a number that is none
        raise ValueError(f"{type(error).__name__}: {shorten(str(error), 100)}") from error


class _Loader(yaml.SafeLoader):
    """YAML's safe loader without dates (they are text); its traps are errors, as is a key that is given twice."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (as its base class has it)
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            problem = f"{'*' if isinstance(event, yaml.AliasEvent) else '&'}{shorten(event.anchor)} is not allowed here"
            raise yaml.MarkedYAMLError(None, None, f"{problem}; write the value out", event.start_mark)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            problem = f"more than {MAX_DEPTH} levels within each other"
            raise yaml.MarkedYAMLError(None, None, problem, event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        number = node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
        if number and len(node.value) > LONGEST_NUMBER:
            problem = f"the number {quote(node.value)} has {len(node.value)} characters"
            raise yaml.MarkedYAMLError(None, None, problem, node.start_mark)
        try:
            return super().construct_object(node, deep)
        except yaml.YAMLError:
            raise
        except Exception as error:  # whatever int(), float() and others say to a value or a tag that is none
            problem = f"the value {quote(node.value)} cannot be read; put text in quotes"
            raise yaml.MarkedYAMLError(None, None, problem, node.start_mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key in [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]:
            if key.value in seen:
                raise yaml.MarkedYAMLError(None, None, f"the key {quote(key.value)} is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)
