"""Values as Go prints them, where upstream's messages hold them: fmt's %v and %#v.

Owns: plain, syntax. Called by: the patches, for the wording of refusals. Never does: parse.
"""

from __future__ import annotations

import json
from typing import Any


def plain(value: Any) -> str:
    """%v: `map[a:[x 1]]`."""
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{plain(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, list):
        return "[" + " ".join(map(plain, value)) + "]"
    return "<nil>" if value is None else _scalar(value)


def syntax(value: Any) -> str:
    """%#v: `map[string]interface {}{"a":"x"}`."""
    if isinstance(value, dict):
        return "map[string]interface {}{" + ", ".join(f"{json.dumps(key)}:{syntax(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[]interface {}{" + ", ".join(map(syntax, value)) + "}"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return "interface {}(nil)" if value is None else _scalar(value)


def kind(value: Any) -> str:
    """%T of a decoded value."""
    names: dict[type, str] = {
        bool: "bool", int: "int64", float: "float64", str: "string", list: "[]interface {}", dict: "map[string]interface {}",
    }  # fmt: skip
    return names.get(type(value), "<nil>")


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}" if abs(value) >= 1e21 or value == 0 else repr(value).removesuffix(".0")
    return str(value)
