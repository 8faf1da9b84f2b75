"""JSON patch (RFC 6902), with the bounds and the leniencies of the library upstream uses.

Owns: apply_json_patch. Called by: the patch handler. Never does: know types.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from k1s.api.clone import clone
from k1s.api.decode import go_kind
from k1s.api.errors import ApiError, bad_request, request_entity_too_large
from k1s.api.patch.merge import same

Object = dict[str, Any]

MAX_OPERATIONS = 10_000
# What all "copy" operations of a patch may add up to: as upstream, the size a request may have.
MAX_COPIED_BYTES = 3 * 1024 * 1024

_KINDS = ("add", "remove", "replace", "move", "copy", "test")
_FIELDS = {"op": str, "path": str, "from": str, "value": object}


class Rejected(ApiError):
    """422 as upstream answers a patch that does not apply; `detail` is what is wrong, which it keeps to itself."""

    def __init__(self, detail: str) -> None:
        super().__init__(422, "Invalid", "the server rejected our request due to an error in our request", {})
        self.detail = detail


def rejected(detail: str) -> ApiError:
    return Rejected(detail)


class _Fault(Exception):
    pass


def apply_json_patch(doc: Object, operations: Any) -> Object:
    """A new document. ApiError 400 if it is not a patch, 413 if too long, 422 if it does not apply."""
    if not isinstance(operations, list) or not all(isinstance(operation, dict) for operation in operations):
        raise bad_request("json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    if len(operations) > MAX_OPERATIONS:
        raise request_entity_too_large(
            f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(operations)}"
        )
    out: Object = clone(doc)
    copied = 0
    for operation in operations:
        kind = operation.get("op")
        if kind not in _KINDS:
            raise rejected(f"Unexpected kind: {kind}")
        if kind == "replace" and operation.get("path") == "":
            if not isinstance(operation.get("value"), dict | list):
                raise rejected("replace operation value must be object or array")
            out = clone(operation["value"])
            continue
        try:
            copied += _OPERATIONS[kind](out, operation)
            if copied > MAX_COPIED_BYTES:
                raise _Fault(
                    f"Unable to complete the copy, the accumulated size increase of copy is {copied}, "
                    f"exceeding the limit {MAX_COPIED_BYTES}"
                )
        except _Fault as fault:
            raise rejected(str(fault)) from None
    return out


def operation_faults(operations: list[Any]) -> tuple[str, list[str]]:
    """(why it cannot be decoded, or "", in Go's words; the paths of fields that no operation has)."""
    unknown: list[str] = []
    for index, operation in enumerate(operations):
        if operation is None:
            continue
        if not isinstance(operation, dict):
            return f"json: cannot unmarshal {go_kind(operation)} into Go value of type handlers.jsonPatchOp", []
        for field, value in operation.items():
            wanted = _FIELDS.get(field)
            if wanted is None:
                unknown.append(f"[{index}].{field}")
            elif value is not None and not isinstance(value, wanted):
                text = f"json: cannot unmarshal {go_kind(value)} into Go struct field jsonPatchOp.{field} of type string"
                return text, []
    return "", unknown


def parse_pointer(pointer: Any) -> list[str]:
    """The reference tokens of a JSON pointer."""
    if not isinstance(pointer, str) or (pointer and pointer[0] != "/"):
        raise _Fault(f"invalid path: {pointer!r}")
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]


def _index(token: str, length: int, what: str) -> int:
    """A position below `length`. Negative ones count from the end, which upstream allows."""
    digits = token.removeprefix("-")
    if not digits.isascii() or not digits.isdigit() or len(digits) > 9:
        raise _Fault(f"{what}: invalid index: {token}")
    at = int(token)
    if at >= length or at < -length:
        raise _Fault(f"{what}: Unable to access invalid index: {at}: invalid index referenced")
    return at + length if at < 0 else at


def _child(parent: Any, token: str, what: str) -> Any:
    if isinstance(parent, dict):
        if token not in parent:
            raise _Fault(f"{what}: missing value")
        return parent[token]
    if isinstance(parent, list):
        return parent[_index(token, len(parent), what)]
    raise _Fault(f"{what}: missing value")


def _parent(doc: Any, pointer: Any, what: str) -> tuple[Any, str]:
    tokens = parse_pointer(pointer)
    if not tokens:
        raise _Fault(f"{what}: the whole document cannot be the target")
    at = doc
    for token in tokens[:-1]:
        at = _child(at, token, what)
    if not isinstance(at, dict | list):
        raise _Fault(f"{what}: missing value")
    return at, tokens[-1]


def _find(doc: Any, pointer: Any, what: str) -> Any:
    at = doc
    for token in parse_pointer(pointer):
        at = _child(at, token, what)
    return at


def _value(operation: Object) -> Any:
    if "value" not in operation:
        raise _Fault(f"{operation.get('op')} operation has no value: missing value")
    return clone(operation["value"])


def _put(doc: Any, pointer: Any, value: Any, what: str) -> None:
    parent, token = _parent(doc, pointer, what)
    if isinstance(parent, dict):
        parent[token] = value
    elif token == "-":
        parent.append(value)
    else:
        parent.insert(_index(token, len(parent) + 1, what), value)


def _take(doc: Any, pointer: Any, what: str) -> Any:
    parent, token = _parent(doc, pointer, what)
    if isinstance(parent, dict):
        if token not in parent:
            raise _Fault(f"error in remove for path: '{pointer}': Unable to remove nonexistent key: {token}: missing value")
        return parent.pop(token)
    return parent.pop(_index(token, len(parent), what))


def _add(doc: Any, operation: Object) -> int:
    path = operation.get("path")
    _put(doc, path, _value(operation), f'add operation does not apply: doc is missing path: "{path}"')
    return 0


def _remove(doc: Any, operation: Object) -> int:
    path = operation.get("path")
    _take(doc, path, f'remove operation does not apply: doc is missing path: "{path}"')
    return 0


def _replace(doc: Any, operation: Object) -> int:
    path = operation.get("path")
    parent, token = _parent(doc, path, f"replace operation does not apply: doc is missing path: {path}")
    if isinstance(parent, dict):
        # As upstream, and against the RFC: what is not there is "replaced" all the same.
        parent[token] = _value(operation)
    else:
        at = _index(token, len(parent), f"replace operation does not apply: doc is missing key: {path}")
        parent[at] = _value(operation)
    return 0


def _move(doc: Any, operation: Object) -> int:
    source, path = operation.get("from"), operation.get("path")
    if isinstance(path, str) and isinstance(source, str) and path.startswith(f"{source}/"):
        raise _Fault(f"move operation does not apply: {source} cannot move into itself")
    value = _take(doc, source, f"move operation does not apply: doc is missing from path: {source}")
    _put(doc, path, value, f"move operation does not apply: doc is missing destination path: {path}")
    return 0


def _copy(doc: Any, operation: Object) -> int:
    source, path = operation.get("from"), operation.get("path")
    what = f"copy operation does not apply: doc is missing from path: {source}"
    parent, token = _parent(doc, source, what)
    # As upstream: a field that is not there is copied as null.
    value = parent.get(token) if isinstance(parent, dict) else _child(parent, token, what)
    encoded = orjson.dumps(value)
    _put(doc, path, orjson.loads(encoded), f"copy operation does not apply: doc is missing destination path: {path}")
    return len(encoded)


def _test(doc: Any, operation: Object) -> int:
    path, wanted = operation.get("path"), operation.get("value")
    try:
        found = _find(doc, path, "")
    except _Fault:
        # What is not there passes for null.
        found = None
    if not same(found, wanted):
        raise _Fault(f"testing value {path} failed: test failed")
    return 0


_OPERATIONS: dict[str, Callable[[Any, Object], int]] = {
    "add": _add,
    "remove": _remove,
    "replace": _replace,
    "move": _move,
    "copy": _copy,
    "test": _test,
}
