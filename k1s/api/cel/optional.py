"""Values that CEL knows and JSON does not, as they cross between Python and the runtime.

Owns: Optional and the tags of opaque values (quantity, ip, url, ...), which travel as maps with one odd key.
Called by: program, the function files. Never does: evaluate.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

# No sane key of an object begins with this character (NUL would be best, but the runtime's strings end there).
MARK = "\x01"


@dataclass(frozen=True, slots=True)
class Optional:
    """An optional value that is bound to a variable."""

    present: bool
    value: Any = None


NONE = Optional(False)


def opaque(kind: str, value: Any, **more: Any) -> dict[str, Any]:
    """A value of a type of ours. `more`: fields that expressions may select."""
    return {MARK + kind: value, **more}


def opened(value: Any, kind: str) -> Any:
    """What an opaque value holds. Raises ValueError if it is something else."""
    found = value.get(MARK + kind) if isinstance(value, dict) else None
    if found is None:
        raise ValueError("no such overload")
    return found


def holds(value: Any, kind: str) -> bool:
    return isinstance(value, dict) and MARK + kind in value


def unwrapped(value: Any) -> Any:
    """A result without the runtime's own containers."""
    return bytes(value) if isinstance(value, bytearray) else value


def rebindable(value: Any) -> Any:
    """A result as it can be bound to a variable: the runtime gives times as Python's, but takes them only as messages."""
    if isinstance(value, datetime):
        from google.protobuf.timestamp_pb2 import Timestamp

        stamp = Timestamp()
        stamp.FromDatetime(value)
        return stamp
    if isinstance(value, timedelta):
        from google.protobuf.duration_pb2 import Duration

        duration = Duration()
        duration.FromTimedelta(value)
        return duration
    if isinstance(value, list):
        return [rebindable(item) for item in value]
    if isinstance(value, dict):
        return {key: rebindable(item) for key, item in value.items()}
    return value
