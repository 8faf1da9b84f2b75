"""The formats of OpenAPI schemas that upstream enforces; an unknown format passes.

Owns: known(), matches(). Called by: custom_resource.py, strategies/extension (warnings), CEL. Never does: word the fault.
Source: apiextensions-apiserver/pkg/apiserver/validation/formats.go, kube-openapi/pkg/validation/strfmt.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from datetime import date
from typing import Any
from urllib.parse import urlsplit

_DATE = re.compile(r"\d{4}-\d\d-\d\d\Z", re.ASCII)
_TIME = re.compile(r"(\d\d):(\d\d):(\d\d)(.\d+)?(z|[+-]\d\d:\d\d)\Z", re.ASCII)
_HEX = "[0-9a-f]"
_GO_DURATION = re.compile(r"[-+]?(0|((\d+(\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h))+)\Z", re.ASCII)
_DURATION = re.compile(r"(\d+)\s*([A-Za-zµ]+)", re.ASCII)
_UNITS = ("ns", "us", "µs", "ms", "s", "m", "h", "hr", "d", "w", "wk")
# A unit may also begin with one of these: nanos, microseconds, ...
_LONG_UNITS = ("nano", "micro", "milli", "sec", "min", "hour", "day", "week")
_HOST_LABEL = re.compile(r"(?!-)[^\W_]([^\W_]|-)*(?<!-)\Z")
_EMAIL = re.compile(r"([^<>@]*<)?[^@\s<>]+@[^@\s<>]+>?\Z")
_MAC = re.compile(
    r"([0-9A-F]{2}([:-]))([0-9A-F]{2}\2){4}(([0-9A-F]{2}\2){2}|([0-9A-F]{2}\2){14})?[0-9A-F]{2}\Z"
    r"|([0-9A-F]{4}\.){2}([0-9A-F]{4}\.|([0-9A-F]{4}\.){7})?[0-9A-F]{4}\Z",
    re.IGNORECASE,
)
_BASE64 = re.compile(r"([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})\Z")
_CARD = re.compile(
    r"(4\d{12}(\d{3})?|5[1-5]\d{14}|6(011|5\d\d)\d{12}|3[47]\d{13}|3(0[0-5]|[68]\d)\d{11}|(2131|1800|35\d{3})\d{11})\Z", re.ASCII
)
_BYTE_VALUE = r"\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*"
_SSN = re.compile(r"\d{3}[- ]?\d{2}[- ]?\d{4}\Z", re.ASCII)
_SHORT_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
_LONG_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
MAX_FLOAT32 = 3.4028234663852886e38


def _parses(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    return check


def _date(text: str) -> bool:
    return bool(_DATE.match(text)) and _parses(date.fromisoformat)(text)


def _date_time(text: str) -> bool:
    day, _, rest = text.lower().partition("t")
    time = _TIME.match(rest)
    return time is not None and _date(day) and time[1] <= "23" and time[2] <= "59" and time[3] <= "59"


def _duration(text: str) -> bool:
    if _GO_DURATION.match(text):
        return True
    units = [unit.lower() for _, unit in _DURATION.findall(text)]
    return any(unit in _UNITS or unit.startswith(_LONG_UNITS) for unit in units)


def _host(text: str) -> bool:
    labels = text.split(".")
    top = labels[-1]
    if len(text) > 255 or any(len(label) > 63 or not _HOST_LABEL.match(label) for label in labels):
        return False
    return len(labels) == 1 or (len(top) >= 2 and top.isalpha())


def _sloppy(text: str) -> str:
    """Without the leading zeros that Go allowed once."""
    return re.sub(r"(?<![0-9A-Fa-f:.])0+(?=\d)|(?<=\.)0+(?=\d)", "", text) if ":" not in text else text


def _ip(text: str) -> bool:
    return "%" not in text and _parses(ipaddress.ip_address)(_sloppy(text))


def _cidr(text: str) -> bool:
    host, _, bits = text.partition("/")
    return bits.isdigit() and _ip(host) and int(bits) <= (128 if ":" in host else 32)


def _uri(text: str) -> bool:
    """url.ParseRequestURI: absolute, or a path."""
    if any(c < " " or c == "\x7f" for c in text):
        return False
    if text.startswith("/"):
        return True
    scheme, colon, rest = text.partition(":")
    good = re.match(r"[A-Za-z][A-Za-z0-9+.-]*\Z", scheme) is not None
    if not good or not colon or " " in rest.partition("/")[0]:
        return False
    return _parses(lambda url: urlsplit(url).port)(text)


def _isbn10(text: str) -> bool:
    digits = re.sub(r"[\s-]+", "", text)
    if not re.match(r"([0-9]{9}X|[0-9]{10})\Z", digits):
        return False
    return sum((i + 1) * (10 if c == "X" else int(c)) for i, c in enumerate(digits)) % 11 == 0


def _isbn13(text: str) -> bool:
    digits = re.sub(r"[\s-]+", "", text)
    if not re.match(r"[0-9]{13}\Z", digits):
        return False
    return sum(int(c) * (3 if i % 2 else 1) for i, c in enumerate(digits)) % 10 == 0


def _card(text: str) -> bool:
    digits = re.sub(r"[^0-9]+", "", text)
    if not _CARD.match(digits):
        return False
    doubled = (int(c) * (1 + i % 2) for i, c in enumerate(reversed(digits)))
    return sum(n // 10 + n % 10 for n in doubled) % 10 == 0


def _uuid(version: str = "", variant: str = "") -> Callable[[str], bool]:
    middle = f"{version}{_HEX}{{3}}" if version else f"{_HEX}{{4}}"
    last = f"{variant}{_HEX}{{3}}" if variant else f"{_HEX}{{4}}"
    return _is(re.compile(rf"{_HEX}{{8}}-?{_HEX}{{4}}-?{middle}-?{last}-?{_HEX}{{12}}\Z", re.IGNORECASE))


def _is(pattern: re.Pattern[str]) -> Callable[[str], bool]:
    return lambda text: pattern.match(text) is not None


_STRINGS: dict[str, Callable[[str], bool]] = {
    "bsonobjectid": _is(re.compile(r"[0-9a-fA-F]{24}\Z")),
    "byte": _is(_BASE64),
    "cidr": _cidr,
    "creditcard": _card,
    "date": _date,
    "datetime": _date_time,
    "duration": _duration,
    "email": _is(_EMAIL),
    "hexcolor": _is(re.compile(r"#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})\Z")),
    "hostname": _host,
    "ipv4": lambda text: "." in text and _ip(text),
    "ipv6": lambda text: ":" in text and _ip(text),
    "isbn": lambda text: _isbn10(text) or _isbn13(text),
    "isbn10": _isbn10,
    "isbn13": _isbn13,
    "k8slongname": lambda text: len(text) <= 253 and _LONG_NAME.match(text) is not None,
    "k8sshortname": lambda text: len(text) <= 63 and _SHORT_NAME.match(text) is not None,
    "mac": _is(_MAC),
    "password": lambda text: True,
    "rgbcolor": _is(re.compile(rf"rgb\({_BYTE_VALUE},{_BYTE_VALUE},{_BYTE_VALUE}\)\Z", re.ASCII)),
    "ssn": lambda text: len(text) == 11 and _SSN.match(text) is not None,
    "uri": _uri,
    "uuid": _uuid(),
    "uuid3": _uuid("3"),
    "uuid4": _uuid("4", "[89ab]"),
    "uuid5": _uuid("5", "[89ab]"),
}
_NUMBERS = {"integer": ("int32", "int64"), "number": ("float", "double")}


def known(schema: dict[str, Any]) -> str:
    """The format of a schema if it is one that is enforced, without dashes; otherwise empty."""
    name = schema.get("format")
    if not name:
        return ""
    kind = schema.get("type") or "string"
    if kind == "string":
        plain = name.replace("-", "")
        return plain if plain in _STRINGS else ""
    return name if name in _NUMBERS.get(kind, ()) else ""


def matches(name: str, value: Any) -> bool:
    """Whether a text has a format; one that is not known is had by all."""
    check = _STRINGS.get(name.replace("-", ""))
    return check is None or not isinstance(value, str) or check(value)
