"""Do the values have the types their fields want? And put them into the form upstream stores.

Owns: check_types: the refusal in the words of Go's decoder, and, on the way, what decoding into Go structs would change:
nulls go, optional empty maps, lists and zeros go, quantities become canonical, times lose their fraction and zone.
Called by: decode (so every body and patch result passes here). Never does: judge values (api/validation does), add defaults.
"""

from __future__ import annotations

import binascii
import re
from datetime import UTC, datetime
from typing import Any

from k1s.api import quantity
from k1s.api.errors import bad_request
from k1s.api.protobuf import left_out
from k1s.api.schema import Schema

Object = dict[str, Any]

_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(\.\d+)?(Z|z|[+-]\d\d:\d\d)\Z", re.ASCII)
_PLAIN_TIME = re.compile(r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\dZ\Z", re.ASCII)
_PLAIN = ("string", "boolean", "integer", "number")
_METADATA = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_GO_TYPES = {"boolean": "bool", "number": "float64", "string": "string", "int-or-string": "int32"}


class TypeFault(ValueError):
    """A value that its field cannot hold, in the words of Go's decoder."""


def check_types(obj: Object, schema: Schema) -> None:
    """Check and normalise in place; ApiError 400 as upstream words it."""
    fault = find_type_error(obj, schema)
    if fault:
        kind = obj.get("kind")
        version = obj.get("apiVersion")
        if not isinstance(kind, str) or not kind:
            kind = schema.short_name
        version = version.rpartition("/")[2] if isinstance(version, str) else ""
        raise bad_request(f'{kind} in version "{version}" cannot be handled as a {kind}: {fault}')


def find_type_error(obj: Object, schema: Schema) -> str:
    """As check_types, but the fault is returned ("" if there is none): patches word it differently."""
    try:
        _object(obj, schema, schema.short_name, "")
    except TypeFault as fault:
        return str(fault)
    return ""


def _go_type(schema: Schema) -> str:
    if schema.type == "integer":
        return schema.format or "int64"
    if schema.type == "array":
        return f"[]{_go_type(schema.items)}" if schema.items is not None else "[]interface {}"
    if schema.type == "object":
        if schema.name:
            parts = schema.name.split(".")
            return f"{parts[-2]}.{parts[-1]}"
        return f"map[string]{_go_type(schema.values)}" if schema.values is not None else "map[string]interface {}"
    if schema.type == "quantity":
        return "resource.Quantity"
    if schema.format == "byte":
        return "[]uint8"
    return _GO_TYPES.get(schema.type, "interface {}")


def _mismatch(value: Any, schema: Schema, struct: str, path: str, text: str = "") -> TypeFault:
    if not text:
        kinds: dict[type, str] = {bool: "bool", str: "string", list: "array", dict: "object"}
        text = kinds.get(type(value), "number")
    where = f"Go struct field {struct}.{path}" if path else "Go value"
    return TypeFault(f"json: cannot unmarshal {text} into {where} of type {_go_type(schema)}")


def _value(value: Any, schema: Schema, struct: str, path: str) -> Any:
    """Check one value that is not null; return what is stored for it."""
    kind = schema.type
    if not schema.builtin:
        # The schema of a custom resource is checked by validation (422); here only the metadata in it matters.
        if isinstance(value, dict):
            _object(value, schema, struct, path)
        elif isinstance(value, list) and schema.items is not None:
            _list(value, schema.items, struct, path)
        return value
    if kind == "string":
        if not isinstance(value, str):
            raise _mismatch(value, schema, struct, path)
        return _formatted(value, schema.format, schema) if schema.format else value
    if kind == "object":
        if not isinstance(value, dict):
            raise _mismatch(value, schema, struct, path)
        _object(value, schema, schema.short_name or struct, path)
        return value
    if kind == "array":
        if not isinstance(value, list):
            raise _mismatch(value, schema, struct, path)
        if schema.items is not None:
            _list(value, schema.items, struct, path)
        return value
    if kind == "integer":
        return _integer(value, schema, struct, path, schema.format == "int32")
    if kind == "boolean":
        if not isinstance(value, bool):
            raise _mismatch(value, schema, struct, path)
        return value
    return _loose(value, schema, struct, path)


def _loose(value: Any, schema: Schema, struct: str, path: str) -> Any:
    if schema.type == "int-or-string":
        return value if isinstance(value, str) else _integer(value, schema, struct, path, True)
    if schema.type == "quantity":
        try:
            return quantity.canonical(value)
        except ValueError as error:
            raise TypeFault(str(error)) from None
    if schema.type == "number" and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise _mismatch(value, schema, struct, path)
    return value


def _integer(value: Any, schema: Schema, struct: str, path: str, small: bool) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _mismatch(value, schema, struct, path)
    bits = 31 if small else 63
    if isinstance(value, float) or not -(1 << bits) <= value < 1 << bits:
        raise _mismatch(value, schema, struct, path, f"number {value}")
    return value


def _object(obj: Object, schema: Schema, struct: str, path: str) -> None:
    properties, values, builtin = schema.properties, schema.values, schema.builtin
    if values is not None and values.type == "any" and not properties:
        return
    gone: list[str] = []
    for field, value in obj.items():
        child = properties.get(field)
        if child is None:
            if values is not None:
                below = _map_value(obj, field, value, values, struct, path)
                if below is not value:
                    obj[field] = below
            continue
        if value is None:
            # A pointer, slice or struct that is null is as good as absent; custom resources may mean null by it.
            if child.builtin and (child.type != "any" or builtin):
                gone.append(field)
            continue
        # Of a custom resource only the metadata has a Go type; its decoder knows nothing of what is around it.
        here = "" if child.builtin and not builtin else f"{path}.{field}" if path else field
        checked = _value(value, child, struct, here)
        if checked is not value:
            obj[field] = checked
        # An empty record of managers has a meaning: it asks for the record to be dropped.
        if not value and builtin and _droppable(field, child, schema) and (field, path) != ("managedFields", "metadata"):
            gone.append(field)
    for field in gone:
        del obj[field]


def _droppable(field: str, child: Schema, owner: Schema) -> bool:
    """Is it what Go's omitempty never writes: an empty map or list, a zero that is no pointer? An empty struct stays."""
    if field in owner.required:
        return False
    if child.type in _PLAIN:
        # The server's own metadata is not what clients decide about: it stays as it is.
        return owner.name != _METADATA and owner.name.count(".") > 1 and field in left_out(owner.name)
    return child.type == "array" or (child.is_map and not child.preserve_unknown)


def _map_value(obj: Object, key: str, value: Any, values: Schema, struct: str, path: str) -> Any:
    if value is None:
        return _zero(values)
    # Go's error names the field that holds the map, not the key.
    return _value(value, values, struct, path)


def _list(items: list[Any], schema: Schema, struct: str, path: str) -> None:
    for index, item in enumerate(items):
        checked = _zero(schema) if item is None else _value(item, schema, struct, path)
        if checked is not item:
            items[index] = checked


def _zero(schema: Schema) -> Any:
    """What null becomes where Go has a value and not a pointer: the zero of its type."""
    if not schema.builtin:
        return None
    zeros: dict[str, Any] = {"string": "", "integer": 0, "boolean": False, "number": 0, "quantity": "0", "int-or-string": 0}
    if schema.type == "object":
        return {}
    return zeros.get(schema.type)


def _formatted(value: str, format: str, schema: Schema) -> str:
    if format == "date-time":
        micro = schema.short_name == "MicroTime"
        if not micro and _PLAIN_TIME.match(value):
            return value
        return normal_time(value, micro)
    if format == "byte":
        return _base64(value)
    return value


def normal_time(value: str, micro: bool = False) -> str:
    """RFC 3339 in UTC, with whole seconds or microseconds; TypeFault as Go's time.Parse words it."""
    layout = "2006-01-02T15:04:05.000000Z07:00" if micro else "2006-01-02T15:04:05Z07:00"
    match = _TIME.match(value)
    if match is None:
        raise TypeFault(f'parsing time "{value}" as "{layout}": cannot parse "{value}" as "2006"')
    date, clock, fraction, zone = match.groups()
    zone = "+00:00" if zone in "Zz" else zone
    digits = ((fraction or ".")[1:] + "000000")[:6]
    try:
        moment = datetime.fromisoformat(f"{date}T{clock}.{digits}{zone}").astimezone(UTC)
    except (ValueError, OverflowError):
        raise TypeFault(f'parsing time "{value}": value out of range') from None
    text = moment.strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
    return f"{text}.{digits}Z" if micro else f"{text}Z"


def _base64(value: str) -> str:
    try:
        binascii.a2b_base64(value, strict_mode=True)
        return value
    except (binascii.Error, ValueError):
        pass
    # Go skips line breaks; anything else that is not base64 is refused at its offset.
    joined = value.replace("\n", "").replace("\r", "")
    try:
        return binascii.b2a_base64(binascii.a2b_base64(joined, strict_mode=True), newline=False).decode()
    except (binascii.Error, ValueError):
        bad = re.match(r"[A-Za-z0-9+/\r\n]*", value)
        raise TypeFault(f"illegal base64 data at input byte {bad.end() if bad else 0}") from None
