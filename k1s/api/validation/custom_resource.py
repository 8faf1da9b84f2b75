"""Custom resources against their CRD's openAPIV3Schema, with the messages of upstream's validator.

validate_schema(obj, schema) -> FieldErrors. Called by: the apiserver, for objects of custom resources, after defaults; ObjectMeta
is validation/table's. Never does: x-kubernetes-validations (custom_rules.py), pruning, or the schema itself (structural.py).
Patterns are compiled once and kept in a bounded cache (512, least used dropped).
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

from k1s.api.errors import FieldError, duplicate, invalid_value, not_supported, required, too_long, too_many, type_invalid
from k1s.api.meta import Object
from k1s.api.validation import formats
from k1s.api.validation.correlation import MISSING, by_keys, keys
from k1s.api.validation.rules import Errors

_SKIPPED = ("apiVersion", "kind", "metadata")


def validate_schema(obj: Object, schema: Object, old: Object | None = None) -> list[FieldError]:
    """What is wrong with a custom resource; its type and metadata are not looked at, nor is what did not change from `old`."""
    errs: Errors = []
    properties = {key: child for key, child in (schema.get("properties") or {}).items() if key not in _SKIPPED}
    value = {key: item for key, item in obj.items() if key not in _SKIPPED}
    needed = [key for key in schema.get("required") or () if key not in _SKIPPED]
    before = MISSING if old is None else {key: item for key, item in old.items() if key not in _SKIPPED}
    _check(errs, "", value, {**schema, "properties": properties, "required": needed}, before)
    return errs


def _child(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


# RE2's classes inside brackets, which Python would take for plain characters.
_POSIX = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "digit": "0-9",
    "lower": "a-z",
    "space": r"\s",
    "upper": "A-Z",
    "word": r"\w",
    "xdigit": "0-9A-Fa-f",
}


@lru_cache(maxsize=512)
def _pattern(text: str) -> re.Pattern[str] | None:
    for name, characters in _POSIX.items():
        text = text.replace(f"[:{name}:]", characters)
    try:
        return re.compile(text.replace(r"\z", r"\Z"), re.ASCII)
    except re.error:
        # Go's RE2 knows spellings that Python does not; what we cannot compile we do not enforce.
        return None


def _type_name(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def _has_type(value: Any, schema: Object) -> str:
    """The type that the schema wants and the value has not; "" if all is well."""
    found = _type_name(value)
    if found == "null":
        wanted = schema.get("type") or ""
        return "" if schema.get("nullable") or not wanted else wanted
    if schema.get("x-kubernetes-int-or-string"):
        return "" if found in ("integer", "string") else "integer,string"
    wanted = schema.get("type") or ""
    if not wanted or wanted == found:
        return ""
    if wanted == "number" and found == "integer":
        return ""
    if wanted == "integer" and isinstance(value, float) and value.is_integer():
        return ""
    return str(wanted)


def _check(errs: Errors, path: str, value: Any, schema: Object, old: Any = MISSING) -> None:
    if old is not MISSING and _same(old, value):
        return
    wanted = _has_type(value, schema)
    if wanted:
        found = _type_name(value)
        errs.append(type_invalid(path, found, f'{path} in body must be of type {wanted}: "{found}"'))
        return
    if value is None:
        return
    _enum(errs, path, value, schema)
    if isinstance(value, str):
        _string(errs, path, value, schema)
    elif isinstance(value, bool):
        pass
    elif isinstance(value, int | float):
        _number(errs, path, value, schema)
    elif isinstance(value, list):
        _array(errs, path, value, schema, old)
    else:
        _object(errs, path, value, schema, old)
    _junctors(errs, path, value, schema)


def _same(old: Any, new: Any) -> bool:
    # 1 equals True in Python, and 1.0 equals 1; only JSON that is written alike did not change.
    return bool(old == new) and json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True)


def _enum(errs: Errors, path: str, value: Any, schema: Object) -> None:
    allowed = schema.get("enum")
    if allowed and not any(value == item and isinstance(value, bool) == isinstance(item, bool) for item in allowed):
        errs.append(not_supported(path, value, [item if isinstance(item, str) else json.dumps(item) for item in allowed]))


def _string(errs: Errors, path: str, value: str, schema: Object) -> None:
    longest, shortest = schema.get("maxLength"), schema.get("minLength")
    if longest is not None and len(value) > longest:
        errs.append(too_long(path, longest))
    if shortest is not None and len(value) < shortest:
        errs.append(invalid_value(path, value, f"{path} in body should be at least {shortest} chars long"))
    pattern = schema.get("pattern")
    if pattern:
        compiled = _pattern(pattern)
        if compiled is not None and not compiled.search(value):
            errs.append(invalid_value(path, value, f"{path} in body should match '{pattern}'"))
    _format(errs, path, value, schema)


def _format(errs: Errors, path: str, value: Any, schema: Object) -> None:
    name = schema.get("format")
    if name and not formats.matches(name, value):
        shown = json.dumps(value, ensure_ascii=False)
        errs.append(invalid_value(path, value, f"{path} in body must be of type {name}: {shown}"))


def _number(errs: Errors, path: str, value: float, schema: Object) -> None:
    low, high, step = schema.get("minimum"), schema.get("maximum"), schema.get("multipleOf")
    if low is not None:
        if schema.get("exclusiveMinimum") and value <= low:
            errs.append(invalid_value(path, value, f"{path} in body should be greater than {low}"))
        elif value < low:
            errs.append(invalid_value(path, value, f"{path} in body should be greater than or equal to {low}"))
    if high is not None:
        if schema.get("exclusiveMaximum") and value >= high:
            errs.append(invalid_value(path, value, f"{path} in body should be less than {high}"))
        elif value > high:
            errs.append(invalid_value(path, value, f"{path} in body should be less than or equal to {high}"))
    if step and abs(value / step - round(value / step)) > 1e-9:
        errs.append(invalid_value(path, value, f"{path} in body should be a multiple of {step}"))
    _format(errs, path, value, schema)


def _array(errs: Errors, path: str, value: list[Any], schema: Object, old: Any) -> None:
    most, least = schema.get("maxItems"), schema.get("minItems")
    if most is not None and len(value) > most:
        errs.append(too_many(path, len(value), most))
    if least is not None and len(value) < least:
        errs.append(invalid_value(path, len(value), f"{path} in body should have at least {least} items"))
    items = schema.get("items")
    if isinstance(items, dict):
        before = by_keys(schema, old)
        for index, item in enumerate(value):
            _check(errs, f"{path}[{index}]", item, items, before.get(keys(schema, item), MISSING))
    _once(errs, path, value, schema)


def _once(errs: Errors, path: str, value: list[Any], schema: Object) -> None:
    """Lists that are sets or maps hold nothing twice."""
    kind = schema.get("x-kubernetes-list-type")
    if kind not in ("set", "map"):
        return
    keys = schema.get("x-kubernetes-list-map-keys") or ()
    properties = ((schema.get("items") or {}).get("properties")) or {}
    seen: set[str] = set()
    for index, item in enumerate(value):
        shown = item
        if kind == "map":
            if not isinstance(item, dict):
                continue
            shown = {key: item.get(key, (properties.get(key) or {}).get("default")) for key in keys}
            shown = {key: part for key, part in shown.items() if part is not None}
        text = json.dumps(shown, sort_keys=True)
        if text in seen:
            errs.append(duplicate(f"{path}[{index}]", shown))
        seen.add(text)


def _object(errs: Errors, path: str, value: Object, schema: Object, old: Any) -> None:
    before = old if isinstance(old, dict) else {}
    most, least = schema.get("maxProperties"), schema.get("minProperties")
    if most is not None and len(value) > most:
        errs.append(too_many(path, len(value), most))
    if least is not None and len(value) < least:
        errs.append(invalid_value(path, len(value), f"{path} in body should have at least {least} properties"))
    for key in schema.get("required") or ():
        if key not in value:
            errs.append(required(_child(path, key)))
    properties, more = schema.get("properties") or {}, schema.get("additionalProperties")
    for key, item in value.items():
        child = properties.get(key)
        if child is not None:
            _check(errs, _child(path, key), item, child, before.get(key, MISSING))
        elif isinstance(more, dict):
            _check(errs, _child(path, key), item, more, before.get(key, MISSING))


def _fits(path: str, value: Any, schema: Object) -> bool:
    errs: Errors = []
    _check(errs, path, value, schema)
    return not errs


def _junctors(errs: Errors, path: str, value: Any, schema: Object) -> None:
    """allOf, anyOf, oneOf, not: each as one fault, as upstream says it, with those of allOf's parts."""

    def say(text: str) -> None:
        # Upstream shows the value as the empty string where it has none to name.
        errs.append(invalid_value(path or "<nil>", "", f'"{path}" {text}'))

    if schema.get("anyOf") and not any(_fits(path, value, part) for part in schema["anyOf"]):
        say("must validate at least one schema (anyOf)")
    if schema.get("oneOf"):
        count = sum(_fits(path, value, part) for part in schema["oneOf"])
        if count != 1:
            found = "Found none valid" if count == 0 else f"Found {count} valid alternatives"
            say(f"must validate one and only one schema (oneOf). {found}")
    if schema.get("allOf"):
        before = len(errs)
        for part in schema["allOf"]:
            _check(errs, path, value, part)
        if len(errs) > before:
            say("must validate all the schemas (allOf)")
    if schema.get("not") and _fits(path, value, schema["not"]):
        say("must not validate the schema (not)")
