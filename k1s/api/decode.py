"""From bytes to an object: JSON, YAML, the duplicate fields that strict field validation asks about.

Owns: decode_json, decode_yaml (k1s/api/yaml_text.py has the YAML dialect), the wording of strict decoding errors.
check_types lives in type_check.py and is offered here too. Called by: the apiserver's handlers.
Never does: know kinds; types come with a Schema.
"""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

from k1s.api.errors import ApiError, bad_request
from k1s.api.type_check import check_types as check_types
from k1s.api.type_check import find_type_error as find_type_error

Object = dict[str, Any]

_SPACED_COLON = re.compile(rb'"\s+:')
# Escapes that could make a string's text look like the end of a key in one writing and not in the other.
_TRICKY_ESCAPE = re.compile(rb"\\u00(?:22|3[aA])")
_KEY_END = b'":'


def decode_json(body: bytes) -> tuple[Object, list[str]]:
    """The object, and the paths of fields that stand in it twice (the last one counts)."""
    try:
        obj = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"couldn't get version/kind; json parse error: {error}") from None
    if not isinstance(obj, dict):
        text = f"couldn't get version/kind; json parse error: json: cannot unmarshal {_go_kind(obj)} into Go value of type struct"
        raise bad_request(text)
    return obj, ([] if _surely_unique(body, obj) else duplicate_fields(body))


def _go_kind(value: Any) -> str:
    kinds: dict[type, str] = {bool: "bool", int: "number", float: "number", str: "string", list: "array"}
    return kinds.get(type(value), "null")


def _surely_unique(body: bytes, obj: Object) -> bool:
    """A cheap proof that no key stands twice: the text has no more key ends than the parsed object, written out again.

    Holds because every key of the text contributes one `":`, and a duplicate is lost in parsing. Where white space or escapes
    spoil the count the answer is False and the slow way decides.
    """
    if _SPACED_COLON.search(body) or _TRICKY_ESCAPE.search(body):
        return False
    return body.count(_KEY_END) == orjson.dumps(obj).count(_KEY_END)


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
    _collect(json.loads(body, object_pairs_hook=_pairs), "", found)
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
    """As decode_json, for YAML as Kubernetes reads it: dates stay strings, keys become strings."""
    from k1s.api.yaml_text import load_yaml

    try:
        obj, duplicates = load_yaml(body)
    except ValueError as error:
        raise bad_request(f"error converting YAML to JSON: {error}") from None
    if not isinstance(obj, dict):
        raise bad_request("couldn't get version/kind; json parse error: the document is not an object")
    return obj, duplicates


def strict_messages(unknown: list[str], duplicates: list[str]) -> list[str]:
    """What fieldValidation=Warn sends as warnings, one each: `unknown field "spec.foo"`."""
    return [f'duplicate field "{path}"' for path in duplicates] + [f'unknown field "{path}"' for path in unknown]


def strict_decoding_error(messages: list[str]) -> str:
    """The text of all of them, as fieldValidation=Strict refuses."""
    return "strict decoding error: " + ", ".join(messages)


def cannot_be_handled(kind: str, version: str, text: str) -> ApiError:
    """400: `Deployment in version "v1" cannot be handled as a Deployment: <text>`."""
    return bad_request(f"{kind} in version {json.dumps(version)} cannot be handled as a {kind}: {text}")
