"""Optional values, and values of Kubernetes' own types (quantity, ip, url, ...).

Owns: Optional, Opaque, opaque(), opened(), holds(). Called by: the evaluator, the function files, who binds optional values.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Optional:
    """A value that may be missing."""

    present: bool
    value: Any = None

    @property
    def type_name(self) -> str:
        return "optional_type"


NONE = Optional(False)


@dataclass(frozen=True, slots=True)
class Opaque:
    """A value of one of our types; `fields`: what expressions may select from it."""

    kind: str
    value: Any
    fields: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def type_name(self) -> str:
        return self.kind


def opaque(kind: str, value: Any, **more: Any) -> Opaque:
    return Opaque(kind, value, more)


def opened(value: Any, kind: str) -> Any:
    """What an opaque value holds. Raises ValueError if it is something else."""
    if not isinstance(value, Opaque) or value.kind != kind:
        raise ValueError("no such overload")
    return value.value


def holds(value: Any, kind: str) -> bool:
    return isinstance(value, Opaque) and value.kind == kind


def jsonable(value: Any) -> Any:
    """A result as JSON has it: times are texts, optional values that are missing are null."""
    if isinstance(value, Optional):
        return jsonable(value.value)
    if isinstance(value, list):
        return [jsonable(item) for item in value]
    if isinstance(value, dict):
        return {key: jsonable(item) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return b64encode(value).decode() if isinstance(value, bytes) else str(value)
