"""From bytes to an object: JSON and YAML, and the fields that stand in it twice, which strict field validation asks about.

Owns: decode_json (json_text.py has Go's leniencies and words), decode_yaml (yaml_text.py has the dialect).
check_types lives in type_check.py and is offered here too. Called by: the apiserver's handlers, add-ons.
Never does: know kinds; types come with a Schema.
"""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

from k1s.api.errors import bad_request
from k1s.api.json_text import check_depth, parse_json
from k1s.api.type_check import check_types as check_types
from k1s.api.type_check import find_type_error as find_type_error

Object = dict[str, Any]

_SPACED_COLON = re.compile(rb'"\s+:')
# Escapes that could make a string's text look like the end of a key in one writing and not in the other.
_TRICKY_ESCAPE = re.compile(rb"\\u00(?:22|3[aA])")
_KEY_END = b'":'


# The Go type that upstream looks for a body's kind with, as its decoder names it.
_KIND_TYPE = 'struct { APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }'


def decode_json(body: bytes) -> tuple[Object, list[str]]:
    """The object, and the paths of fields that stand in it twice (the last one counts)."""
    try:
        obj = parse_json(body)
        twice = not _surely_unique(body, obj)
    except ValueError as error:
        raise bad_request(f"couldn't get version/kind; json parse error: {error}") from None
    return as_object(obj), (duplicate_fields(body) if twice else [])


def as_object(value: Any) -> Object:
    """Raises ApiError 400 if a decoded body is no object; null is an empty one."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise bad_request(
            f"couldn't get version/kind; json parse error: json: cannot unmarshal {go_kind(value)} "
            f"into Go value of type {_KIND_TYPE}"
        )
    return value


def go_kind(value: Any) -> str:
    """What Go's decoder calls a value."""
    kinds: dict[type, str] = {bool: "bool", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    return kinds.get(type(value), "null")


def _surely_unique(body: bytes, obj: Any) -> bool:
    """A cheap proof that no key stands twice: the text has no more key ends than the parsed object, written out again.

    Holds because every key of the text contributes one `":`, and a duplicate is lost in parsing. Where white space or escapes
    spoil the count the answer is False and the slow way decides. ValueError if the object is too deep.
    """
    try:
        again = orjson.dumps(obj)
    except TypeError:
        raise ValueError("exceeded max depth") from None
    if _SPACED_COLON.search(body) or _TRICKY_ESCAPE.search(body):
        return False
    return body.count(_KEY_END) == again.count(_KEY_END)


class _Pairs(dict[str, Any]):
    """A parsed object that remembers which of its keys came more than once."""

    twice: tuple[str, ...] = ()


def _pairs(items: list[tuple[str, Any]]) -> _Pairs:
    out = _Pairs(items)
    if len(out) != len(items):
        seen: set[str] = set()
        out.twice = tuple(dict.fromkeys(key for key, _ in items if key in seen or seen.add(key)))  # type: ignore[func-returns-value]
    return out


def duplicate_fields(body: bytes) -> list[str]:
    """Paths of duplicate fields by a second, slower parse."""
    found: list[str] = []
    _collect(json.loads(body.decode("utf-8", "replace"), object_pairs_hook=_pairs), "", found)
    return found


def _collect(value: Any, path: str, found: list[str]) -> None:
    if isinstance(value, _Pairs):
        for key, child in value.items():
            below = f"{path}.{key}" if path else key
            if key in value.twice:
                found.append(below)
            _collect(child, below, found)
    elif isinstance(value, list):
        for index, child in enumerate(value):
            _collect(child, f"{path}[{index}]", found)


def decode_yaml(body: bytes) -> tuple[Object, list[str]]:
    """As decode_json, for YAML as Kubernetes reads it: dates stay strings, keys become strings.

    What stands twice is told in the words of Go's YAML: `line 3: key "a" already set in map`.
    """
    from k1s.api.yaml_text import load_yaml_strictly

    try:
        value, complaints = load_yaml_strictly(body)
        check_depth(value)
    except ValueError as error:
        raise bad_request(str(error)) from None
    return as_object(value), complaints
