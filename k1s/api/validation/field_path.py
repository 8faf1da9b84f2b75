"""Paths such as .spec['a-b'].c, followed through a structural schema.

Owns: resolved(). Called by: rule_check and rule_tree (fieldPath), definitions (selectableFields).
Source: ValidFieldPath in apiextensions-apiserver/pkg/apiserver/schema/cel/validation.go.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from k1s.api.meta import Object

_TOKEN = re.compile(r"'(?:[^'\\]|\\.)*'|[.\[\]]|[^.\[\]]+", re.DOTALL)
_NOWHERE = "does not refer to a valid field"
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "'": "'", "\\": "\\"}


class PathError(ValueError):
    """The path leads nowhere, or is none."""


def _unescaped(text: str) -> str:
    def one(match: re.Match[str]) -> str:
        found = _ESCAPES.get(match.group(1))
        if found is None:
            raise PathError(f"invalid string literal: invalid escape char {match.group()}")
        return found

    return re.sub(r"\\(.)", one, text)


def _next(tokens: Iterator[str]) -> str:
    token = next(tokens, None)
    if token is None:
        raise PathError("unexpected end of JSON path")
    return token


def resolved(text: str, schema: Object, *, keys: bool = True) -> tuple[tuple[str, ...], Object]:
    """The path's elements (keys of maps in brackets), and the schema it leads to. `keys`: brackets are allowed.

    Raises PathError."""
    path: list[str] = []
    tokens = iter(_TOKEN.findall(text))
    for token in tokens:
        if token == "[":
            if not keys:
                raise PathError("array notation is not allowed")
            quoted = _next(tokens)
            if len(quoted) < 2 or quoted[0] != "'" or quoted[-1] != "'":
                raise PathError(f"expected single quoted string but got {quoted}")
            name = _unescaped(quoted[1:-1])
        elif token == ".":
            name = _next(tokens)
        else:
            raise PathError(f"expected [ or . but got: {token}")
        schema = _into(schema, name, path)
        if token == "[":
            closing = _next(tokens)
            if closing != "]":
                raise PathError(f"expected ] but got {closing}")
    return tuple(path), schema


def _into(schema: Object, name: str, path: list[str]) -> Object:
    properties, more = schema.get("properties"), schema.get("additionalProperties")
    if properties:
        if name not in properties:
            raise PathError(_NOWHERE)
        path.append(name)
        return properties[name] or {}
    if more is None:
        raise PathError(_NOWHERE)
    path.append(f"[{name}]")
    return more if isinstance(more, dict) else {}


def shown(path: tuple[str, ...]) -> str:
    """As it stands in the field of a fault, behind that of its node."""
    return "".join(part if part.startswith("[") else f".{part}" for part in path)
