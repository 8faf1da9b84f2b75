"""What strict field validation complains about: fields that a type does not have, and fields that stand twice.

Owns: the complaints in upstream's words and order, and the texts that fieldValidation=Strict refuses with.
Called by: the apiserver's call and patch handler, once something is wrong. Never does: decide what follows from it.
Upstream: sigs.k8s.io/json (document order, of a field that is both only "unknown" is told), go-yaml (its own lines, first).
"""

from __future__ import annotations

import json
from typing import Any

from k1s.api.schema import ANY, Schema

Object = dict[str, Any]

# More than so many are not told.
_MAX = 100


def unknown_field(path: str) -> str:
    return f'unknown field "{path}"'


def duplicate_field(path: str) -> str:
    return f'duplicate field "{path}"'


class _Pairs(list[tuple[str, Any]]):
    """An object of the text with all its keys, also those that come again."""


def in_document_order(body: bytes, schema: Schema) -> list[str]:
    """All complaints about a JSON body of a built-in kind, as they come in the text."""
    found: dict[str, None] = {}
    _walk(json.loads(body, object_pairs_hook=_Pairs), schema, "", found)
    return list(found)[:_MAX]


def _walk(value: Any, schema: Schema, path: str, found: dict[str, None]) -> None:
    if isinstance(value, _Pairs):
        seen: set[str] = set()
        for key, child in value:
            below = f"{path}.{key}" if path else key
            known = schema.child(key)
            if known is None:
                if not schema.preserve_unknown:
                    found[unknown_field(below)] = None
                    continue
                known = ANY
            if key in seen:
                found[duplicate_field(below)] = None
            seen.add(key)
            _walk(child, known, below, found)
    elif isinstance(value, list):
        items = schema.items or ANY
        for index, child in enumerate(value):
            _walk(child, items, f"{path}[{index}]", found)


def sorted_unknown(unknown: list[str]) -> list[str]:
    """Complaints about unknown fields where the text's order is lost: YAML, patches, custom resources (their metadata first)."""
    return [unknown_field(path) for path in sorted(unknown, key=lambda path: (not path.startswith("metadata."), path))][:_MAX]


def yaml_block(complaints: list[str]) -> list[str]:
    """The same, with those of go-yaml made the one error that they are upstream."""
    lines = [text for text in complaints if text.startswith("line ")]
    block = ["yaml: unmarshal errors:\n  " + "\n  ".join(lines)] if lines else []
    return block + [text for text in complaints if not text.startswith("line ")]


def strict_decoding_error(complaints: list[str]) -> str:
    """As fieldValidation=Strict refuses."""
    return "strict decoding error: " + ", ".join(yaml_block(complaints))
