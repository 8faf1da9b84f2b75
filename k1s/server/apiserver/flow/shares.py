"""How many seats each priority level may use.

Owns: Limits and `limits`. Called by: flow/app. Never does: count. Pure.
Source: KEP-1040, "Dispatching": NominalCL = ceil(total * shares / sum of shares); of it lendablePercent may be lent, and a level
may borrow up to borrowingLimitPercent of it (no limit if that is absent).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Limits:
    """Seats: `nominal` are its own, `minimum` are never lent, `maximum` is what it may reach by borrowing."""

    nominal: int
    minimum: int
    maximum: int


def part_of(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a PriorityLevelConfiguration's spec that its type uses."""
    return spec.get("exempt" if spec.get("type") == "Exempt" else "limited") or {}


def limits(specs: Mapping[str, Mapping[str, Any]], total: int) -> dict[str, Limits]:
    """The limits of each level, given the spec of each by name."""
    shares = {name: _number(part_of(spec), "nominalConcurrencyShares", _default(spec)) for name, spec in specs.items()}
    whole = sum(shares.values())
    out: dict[str, Limits] = {}
    for name, spec in specs.items():
        nominal = -(-total * shares[name] // whole) if whole else 0
        part = part_of(spec)
        lendable = _percent(nominal, _number(part, "lendablePercent", 0))
        borrowing = part.get("borrowingLimitPercent")
        maximum = total if borrowing is None else min(total, nominal + _percent(nominal, int(borrowing)))
        out[name] = Limits(nominal, nominal - lendable, max(maximum, 1) if nominal else maximum)
    return out


def _default(spec: Mapping[str, Any]) -> int:
    return 0 if spec.get("type") == "Exempt" else 30


def _number(part: Mapping[str, Any], key: str, default: int) -> int:
    value = part.get(key)
    return default if value is None else int(value)


def _percent(value: int, percent: int) -> int:
    return (value * percent + 50) // 100
