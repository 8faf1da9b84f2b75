"""The syntax of cron schedules, as robfig/cron's standard parser reads them.

check(text) -> what is wrong, or "". Called by: batch.py. Never does: compute times (the cron job controller does).
"""

from __future__ import annotations

import re

_DESCRIPTORS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES, 1)}
_DAYS = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
_BOUNDS: tuple[tuple[int, int, dict[str, int]], ...] = ((0, 59, {}), (0, 23, {}), (1, 31, {}), (1, 12, _MONTHS), (0, 6, _DAYS))
_DURATION = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)((\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h))*\Z")


class _Wrong(ValueError):
    """A field that does not parse."""


def _number(text: str, names: dict[str, int]) -> int:
    if text.lower() in names:
        return names[text.lower()]
    if not re.fullmatch(r"[-+]?\d+", text):
        raise _Wrong(f'failed to parse int from {text}: strconv.Atoi: parsing "{text}": invalid syntax')
    if int(text) < 0:
        raise _Wrong(f"negative number ({int(text)}) not allowed: {text}")
    return int(text)


def _range(text: str, low: int, high: int, names: dict[str, int]) -> None:
    parts = text.split("/")
    span = parts[0].split("-")
    if span[0] in ("*", "?"):
        begin, end = low, high
    else:
        if len(span) > 2:
            raise _Wrong(f"too many hyphens: {text}")
        begin = _number(span[0], names)
        end = _number(span[1], names) if len(span) == 2 else begin
    step = 1
    if len(parts) == 2:
        step = _number(parts[1], {})
        if len(span) == 1 and span[0] not in ("*", "?"):
            end = high
    elif len(parts) > 2:
        raise _Wrong(f"too many slashes: {text}")
    if begin < low:
        raise _Wrong(f"beginning of range ({begin}) below minimum ({low}): {text}")
    if end > high:
        raise _Wrong(f"end of range ({end}) above maximum ({high}): {text}")
    if begin > end:
        raise _Wrong(f"beginning of range ({begin}) beyond end of range ({end}): {text}")
    if step == 0:
        raise _Wrong(f"step of range should be a positive number: {text}")


def check(text: str) -> str:
    """What is wrong with a schedule, "" if nothing."""
    if text.startswith(("TZ=", "CRON_TZ=")):
        text = text.partition(" ")[2].strip()
    if text.startswith("@"):
        if text in _DESCRIPTORS:
            return ""
        if text.startswith("@every "):
            return "" if _DURATION.match(text[7:]) else f'failed to parse duration {text}: time: invalid duration "{text[7:]}"'
        return f"unrecognized descriptor: {text}"
    fields = text.split()
    if not text:
        return "empty spec string"
    if len(fields) != 5:
        return f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]"
    try:
        for field, (low, high, names) in zip(fields, _BOUNDS, strict=True):
            for part in field.split(","):
                if part:
                    _range(part, low, high, names)
    except _Wrong as wrong:
        return str(wrong)
    return ""
