"""Parts of timestamps and durations in CEL: getFullYear(), getHours('Europe/Berlin'), ..."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from k1s.api.cel.scalars import Duration, Timestamp

_OFFSET = re.compile(r"([+-]?)(\d\d):(\d\d)\Z", re.ASCII)


def _zone(text: str) -> tzinfo:
    match = _OFFSET.match(text)
    if match is not None:
        offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
        return timezone(-offset if match[1] == "-" else offset)
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"unknown time zone {text}") from None


def _part(part: Callable[[datetime], int]) -> Callable[..., int]:
    def get(value: Timestamp, zone: str = "") -> int:
        return part(value.moment().astimezone(_zone(zone) if zone else UTC))

    return get


_PARTS: dict[str, Callable[[datetime], int]] = {
    "getFullYear": lambda t: t.year,
    "getMonth": lambda t: t.month - 1,
    "getDayOfYear": lambda t: t.timetuple().tm_yday - 1,
    "getDayOfMonth": lambda t: t.day - 1,
    "getDate": lambda t: t.day,
    "getDayOfWeek": lambda t: t.isoweekday() % 7,
    "getHours": lambda t: t.hour,
    "getMinutes": lambda t: t.minute,
    "getSeconds": lambda t: t.second,
    "getMilliseconds": lambda t: t.microsecond // 1000,
}
_SPANS = {"getHours": 3_600_000_000_000, "getMinutes": 60_000_000_000, "getSeconds": 1_000_000_000, "getMilliseconds": 1_000_000}


def _span(unit: int) -> Callable[[Duration], int]:
    def get(value: Duration) -> int:
        found = abs(value.nanoseconds) // unit
        return -found if value.nanoseconds < 0 else found

    return get


FUNCTIONS = (
    *((name, True, ("TIMESTAMP",), _part(part)) for name, part in _PARTS.items()),
    *((name, True, ("TIMESTAMP", "STRING"), _part(part)) for name, part in _PARTS.items()),
    *((name, True, ("DURATION",), _span(unit)) for name, unit in _SPANS.items()),
)
