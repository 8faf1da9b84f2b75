"""Literals that can be judged before there are values: patterns, durations, timestamps, lists and maps of one type.

Owns: literal_faults(). Called by: program, after the types fit. Source: cel-go/cel/validator.go.
"""

from __future__ import annotations

import re
from datetime import datetime

from k1s.api.cel.syntax import Node
from k1s.api.cel.types import DYN, same
from k1s.api.regex import faulty

_DURATION = re.compile(r"[-+]?(0|((\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h))+)\Z", re.ASCII)
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)\Z", re.ASCII)


# The items of what these are given may differ in type.
_EXEMPT = ("format",)


def literal_faults(node: Node) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    stack = [(node, False)]
    while stack:
        node, exempt = stack.pop()
        exempt = exempt or (node.kind == "call" and node.text in _EXEMPT)
        stack += [(child, exempt) for child in node.children]
        if node.kind == "call" and node.text in ("matches", "duration", "timestamp") and node.children:
            last = node.children[-1]
            if last.kind == "constant" and last.type_name == "string" and not _good(node.text, last.value):
                found.append((last.offset, f"invalid {node.text} argument"))
        elif node.kind == "list" and not exempt:
            found += _alike(node.children, node.optional)
        elif node.kind == "struct" and not node.text and not exempt:
            found += _alike(node.children[::2], ()) + _alike(node.children[1::2], node.optional)
    return found


def _alike(nodes: list[Node], optional: tuple[int, ...]) -> list[tuple[int, str]]:
    """Literals are of one type. Only the first that is not is named."""
    types = [node.type or DYN for node in nodes]
    types = [found.params[0] if index in optional and found.params else found for index, found in enumerate(types)]
    for node, found in zip(nodes, types, strict=True):
        if not same(found, types[0]):
            return [(node.offset, f"expected type '{types[0]}' but found '{found}'")]
    return []


def _good(function: str, text: str) -> bool:
    if function == "matches":
        return not faulty(text)
    if function == "duration":
        return _DURATION.match(text) is not None
    try:
        return _TIMESTAMP.match(text) is not None and bool(datetime.fromisoformat(text[:19]))
    except ValueError:
        return False
