"""Cron expressions: when is the next time?

Owns: `Schedule` (parse, next). Called by: cronjob. Never does: I/O beyond the time zone database.
Source: the notation of robfig/cron v3, which upstream uses: five fields, names, ranges, steps, lists, @hourly and the like.
If both day of month and day of week are restricted, either is enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTHS = {
    name: n for n, name in enumerate(["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"], 1)
}
_DAYS = {name: n for n, name in enumerate(["sun", "mon", "tue", "wed", "thu", "fri", "sat"])}
# A date such as 30 February never comes; after so many years we stop looking (29 February can be 8 years away).
_YEARS = 9


class CronError(ValueError):
    """An expression that cannot be understood."""


@dataclass(frozen=True, slots=True)
class Schedule:
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    any_day: bool
    any_weekday: bool
    every: float = 0.0  # "@every 90s": seconds between two times

    @classmethod
    def parse(cls, text: str) -> Schedule:
        text = text.strip()
        if text.startswith("@every "):
            return _every(text.removeprefix("@every "))
        fields = _MACROS.get(text, text).split()
        if len(fields) != 5:
            raise CronError(f"expected exactly 5 fields, found {len(fields)}: [{text}]")
        minute, hour, day, month, weekday = fields
        return cls(
            _field(minute, 0, 59), _field(hour, 0, 23), _field(day, 1, 31), _field(month, 1, 12, _MONTHS),
            frozenset(d % 7 for d in _field(weekday, 0, 7, _DAYS)), day[0] in "*?", weekday[0] in "*?",
        )  # fmt: skip

    def next(self, after: float, zone: tzinfo = UTC) -> float | None:
        """The first time after `after` (seconds since the epoch), None if it never comes."""
        if self.every:
            return float(int(after)) + self.every
        # Counting in local time: an hour that does not exist is skipped, one that comes twice is used once.
        moment = datetime.fromtimestamp(after, zone).replace(second=0, microsecond=0, tzinfo=None) + timedelta(minutes=1)
        limit = moment.year + _YEARS
        while moment.year <= limit:
            if moment.month not in self.months:
                moment = (moment.replace(day=1, hour=0, minute=0) + timedelta(days=32)).replace(day=1)
            elif not self._is_day(moment):
                moment = moment.replace(hour=0, minute=0) + timedelta(days=1)
            elif moment.hour not in self.hours:
                moment = moment.replace(minute=0) + timedelta(hours=1)
            elif moment.minute not in self.minutes:
                moment += timedelta(minutes=1)
            else:
                found = moment.replace(tzinfo=zone).timestamp()
                real = datetime.fromtimestamp(found, zone)
                if found > after and (real.hour, real.minute) == (moment.hour, moment.minute):
                    return found
                moment += timedelta(minutes=1)
        return None

    def _is_day(self, moment: datetime) -> bool:
        by_day, by_weekday = moment.day in self.days, (moment.weekday() + 1) % 7 in self.weekdays
        if self.any_day or self.any_weekday:
            return by_day and by_weekday
        return by_day or by_weekday


def _every(text: str) -> Schedule:
    units = {"h": 3600.0, "m": 60.0, "s": 1.0}
    seconds, number = 0.0, ""
    for char in text.strip():
        if char.isdigit() or char == ".":
            number += char
        elif char in units and number:
            seconds, number = seconds + float(number) * units[char], ""
        else:
            raise CronError(f"failed to parse duration @every {text}")
    if number or seconds < 1:
        raise CronError(f"failed to parse duration @every {text}")
    none: frozenset[int] = frozenset()
    return Schedule(none, none, none, none, none, True, True, every=float(int(seconds)))


def _field(text: str, low: int, high: int, names: dict[str, int] | None = None) -> frozenset[int]:
    out: set[int] = set()
    for part in text.split(","):
        span, slash, step_text = part.partition("/")
        step = _number(step_text, {}) if slash else 1
        if step < 1:
            raise CronError(f"step of range should be a positive number: {part}")
        if span in ("*", "?"):
            first, last = low, high
        else:
            start, dash, end = span.partition("-")
            first = _number(start, names or {})
            last = _number(end, names or {}) if dash else (high if slash else first)
        if not low <= first <= last <= high:
            raise CronError(f"value {part} is not within {low}-{high}")
        out.update(range(first, last + 1, step))
    return frozenset(out)


def _number(text: str, names: dict[str, int]) -> int:
    if text.lower() in names:
        return names[text.lower()]
    if not text.isdigit():
        raise CronError(f"failed to parse int from {text}")
    return int(text)
