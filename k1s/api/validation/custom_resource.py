"""Custom resources against their CRD's openAPIV3Schema, with the messages of upstream's validator.

validate_schema(obj, schema) -> FieldErrors. Called by: the apiserver, for objects of custom resources, after defaults; ObjectMeta
is validation/table's. Never does: list types (custom_lists.py), x-kubernetes-validations (custom_rules.py), pruning, or the
schema itself (structural.py).
What did not change is not judged again (ratcheting): apiextensions-apiserver/pkg/apiserver/validation/ratcheting.go.
"""

from __future__ import annotations

import json
from typing import Any

from k1s.api.errors import FieldError, invalid_value, required, too_long, too_many, type_invalid
from k1s.api.meta import Object
from k1s.api.regex import PatternError, compiled
from k1s.api.validation import formats
from k1s.api.validation.correlation import MISSING, by_keys, keys, unchanged
from k1s.api.validation.rules import Errors

_SKIPPED = ("apiVersion", "kind", "metadata")
_MAX_INT64 = 2**63


def validate_schema(obj: Object, schema: Object, old: Object | None = None) -> list[FieldError]:
    """What is wrong with a custom resource; its type and metadata are not looked at, nor is what did not change from `old`."""
    properties = {key: child for key, child in (schema.get("properties") or {}).items() if key not in _SKIPPED}
    value = {key: item for key, item in obj.items() if key not in _SKIPPED}
    needed = [key for key in schema.get("required") or () if key not in _SKIPPED]
    before = MISSING if old is None else {key: item for key, item in old.items() if key not in _SKIPPED}
    return validate_value(value, {**schema, "properties": properties, "required": needed}, before)


def validate_value(value: Any, schema: Object, old: Any = MISSING, at: str = "") -> list[FieldError]:
    """What is wrong with a value; `at` stands before the fields of the faults, but not in their words."""
    run = _Run(at)
    run.check("", value, schema, old)
    return run.errors


def _child(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


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


def _wanted(value: Any, found: str, schema: Object) -> str:
    """The type that the schema wants and the value has not; "" if all is well."""
    kind = str(schema.get("type") or "")
    if schema.get("x-kubernetes-int-or-string"):
        kind = "integer,string"
    if found == "null":
        return "" if schema.get("nullable") else kind
    if not kind or found in kind.split(","):
        return ""
    if kind == "number" and found == "integer":
        return ""
    return "" if kind == "integer" and isinstance(value, float) and value.is_integer() else kind


def shown(number: float) -> str:
    """A number as Go prints it."""
    if isinstance(number, float) and number.is_integer() and abs(number) < 1e21:
        return str(int(number))
    return str(number)


class _Run:
    """Collects faults. `matched` counts what was asked: the alternative of anyOf and oneOf that fits best explains itself."""

    def __init__(self, at: str) -> None:
        self.at = at
        self.errors: Errors = []
        self.matched = 0

    def field(self, path: str) -> str:
        if not path:
            return self.at or "<nil>"
        return f"{self.at}.{path}" if self.at and not path.startswith("[") else f"{self.at}{path}"

    def bad(self, path: str, value: Any, text: str) -> None:
        self.errors.append(invalid_value(self.field(path), value, f"{path} in body {text}"))

    def say(self, text: str) -> None:
        # These have no path of their own upstream.
        self.errors.append(invalid_value(self.at or "<nil>", "", text))

    def check(self, path: str, value: Any, schema: Object, old: Any) -> None:
        if old is not MISSING and unchanged(old, value):
            return
        self.matched += 1
        found = _type_name(value)
        wanted = _wanted(value, found, schema)
        if wanted:
            text = f'{path} in body must be of type {wanted}: "{found}"'
            self.errors.append(type_invalid(self.field(path), found, text))
        if value is not None:
            self._junctors(path, value, schema, old)
            if isinstance(value, str):
                self._string(path, value, schema)
            elif isinstance(value, list):
                self._array(path, value, schema, old)
            elif isinstance(value, int | float) and not isinstance(value, bool):
                self._number(path, value, schema)
        self._enum(path, value, schema)
        if isinstance(value, dict):
            self._object(path, value, schema, old)

    def _enum(self, path: str, value: Any, schema: Object) -> None:
        allowed = schema.get("enum")
        if not allowed or any(value == item and isinstance(value, bool) == isinstance(item, bool) for item in allowed):
            return
        # In the order of the schema, unlike the lists of built-in kinds.
        texts = (item if isinstance(item, str) else json.dumps(item, separators=(",", ":")) for item in allowed)
        detail = "supported values: " + ", ".join(json.dumps(text, ensure_ascii=False) for text in texts)
        self.errors.append(FieldError("FieldValueNotSupported", self.field(path), detail, value))

    def _string(self, path: str, value: str, schema: Object) -> None:
        longest, shortest, pattern = schema.get("maxLength"), schema.get("minLength"), schema.get("pattern")
        if longest is not None and len(value) > longest:
            self.errors.append(too_long(self.field(path), longest))
        elif shortest is not None and len(value) < shortest:
            self.bad(path, value, f"should be at least {shortest} chars long")
        elif pattern:
            self._pattern(path, value, pattern)
        name = formats.known(schema)
        if name and not formats.matches(name, value):
            text = f"{path} in body must be of type {schema['format']}: {json.dumps(value, ensure_ascii=False)}"
            self.errors.append(type_invalid(self.field(path), value, text))

    def _pattern(self, path: str, value: str, pattern: str) -> None:
        try:
            if compiled(pattern).search(value) is None:
                self.bad(path, value, f"should match '{pattern}'")
        except PatternError as error:
            self.bad(path, value, f"should match '{pattern}, but pattern is invalid: {error}'")

    def _number(self, path: str, value: float, schema: Object) -> None:
        self._range(path, value, schema)
        low, high, step = schema.get("minimum"), schema.get("maximum"), schema.get("multipleOf")
        if step is not None and step <= 0:
            text = f"factor MultipleOf declared for {path} must be positive: {shown(step)}"
            self.errors.append(invalid_value(self.field(path), value, text))
        elif step and not _multiple(value, step):
            self.bad(path, value, f"should be a multiple of {shown(step)}")
        if low is not None:
            if schema.get("exclusiveMinimum") and value <= low:
                self.bad(path, value, f"should be greater than {shown(low)}")
            elif value < low:
                self.bad(path, value, f"should be greater than or equal to {shown(low)}")
        if high is not None:
            if schema.get("exclusiveMaximum") and value >= high:
                self.bad(path, value, f"should be less than {shown(high)}")
            elif value > high:
                self.bad(path, value, f"should be less than or equal to {shown(high)}")

    def _range(self, path: str, value: float, schema: Object) -> None:
        kind, form = schema.get("type"), formats.known(schema)
        if kind == "integer":
            limit = 2**31 if form == "int32" else _MAX_INT64
            fits = -limit <= value < limit
        else:
            fits = form != "float" or abs(value) <= formats.MAX_FLOAT32
        if not fits:
            words = f"with format {form}" if form else "(default format)"
            self.say(f"Checked value must be of type {kind} {words} in {path}")

    def _array(self, path: str, value: list[Any], schema: Object, old: Any) -> None:
        items = schema.get("items")
        if isinstance(items, dict):
            before = by_keys(schema, old)
            for index, item in enumerate(value):
                self.check(f"{path}[{index}]", item, items, before.get(keys(schema, item), MISSING))
        most, least = schema.get("maxItems"), schema.get("minItems")
        if least is not None and len(value) < least:
            self.bad(path, len(value), f"should have at least {least} items")
        if most is not None and len(value) > most:
            self.errors.append(too_many(self.field(path), len(value), most))
        if schema.get("uniqueItems") and len({json.dumps(item, sort_keys=True) for item in value}) < len(value):
            self.bad(path, "", "shouldn't contain duplicates")

    def _object(self, path: str, value: Object, schema: Object, old: Any) -> None:
        before = old if isinstance(old, dict) else {}
        most, least = schema.get("maxProperties"), schema.get("minProperties")
        if least is not None and len(value) < least:
            self.bad(path, len(value), f"should have at least {least} properties")
        if most is not None and len(value) > most:
            self.errors.append(too_many(self.field(path), len(value), most))
        properties, more = schema.get("properties") or {}, schema.get("additionalProperties")
        for key, item in value.items():
            child = properties.get(key)
            if child is None and isinstance(more, dict):
                child = more
            if child is not None:
                self.check(_child(path, key), item, child, before.get(key, MISSING))
        for key in schema.get("required") or ():
            if key not in value:
                self.errors.append(required(self.field(_child(path, key))))

    # allOf, anyOf, oneOf, not

    def _tried(self, path: str, value: Any, schema: Object, old: Any) -> _Run:
        run = _Run(self.at)
        # That the value did change is known already; its parts may not have.
        run.check(path, value, schema, old)
        return run

    def _junctors(self, path: str, value: Any, schema: Object, old: Any) -> None:
        if schema.get("anyOf"):
            runs = [self._tried(path, value, part, old) for part in schema["anyOf"]]
            if all(run.errors for run in runs):
                self.say(f'"{path}" must validate at least one schema (anyOf)')
                self.errors += _best(runs)
        if schema.get("oneOf"):
            runs = [self._tried(path, value, part, old) for part in schema["oneOf"]]
            good = sum(not run.errors for run in runs)
            if good != 1:
                found = f"Found {good} valid alternatives" if good else "Found none valid"
                self.say(f'"{path}" must validate one and only one schema (oneOf). {found}')
                self.errors += [] if good else _best(runs)
        if schema.get("allOf"):
            runs = [self._tried(path, value, part, old) for part in schema["allOf"]]
            self.errors += [error for run in runs for error in run.errors]
            if any(run.errors for run in runs):
                none = ". None validated" if all(run.errors for run in runs) else ""
                self.say(f'"{path}" must validate all the schemas (allOf){none}')
        if schema.get("not") and not self._tried(path, value, schema["not"], old).errors:
            self.say(f'"{path}" must not validate the schema (not)')


def _best(runs: list[_Run]) -> Errors:
    return max(runs, key=lambda run: run.matched - len(run.errors)).errors


def _multiple(value: float, step: float) -> bool:
    if isinstance(value, int) and float(step).is_integer():
        return value % int(step) == 0
    ratio = value / step
    return abs(ratio - round(ratio)) <= 1e-9 * max(1.0, abs(ratio))
