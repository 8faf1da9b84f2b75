"""resource.Quantity: parsing, comparing in whole units, and the canonical text.

Owns: the grammar of apimachinery/pkg/api/resource (suffixes n u m k M G T P E, Ki..Ei, exponents e/E).
Called by: schema-driven decoding (every quantity is stored canonical, as upstream does), scheduler, quota, agent.
Never does: floating point; everything is Decimal, precise to a billionth, rounded up like upstream.
"""

from __future__ import annotations

import re
from decimal import ROUND_UP, Context, Decimal
from functools import lru_cache

FORMAT_WRONG = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
_SUFFIX_WRONG = "unable to parse quantity's suffix"
_NUMERIC_WRONG = "unable to parse numeric part of quantity"

_SPLIT = re.compile(r"([+-]?)([0-9]*)(?:(\.)([0-9]*))?([eEinumkKMGTP]*[-+]?[0-9]*)\Z")
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_DECIMAL_BY_EXPONENT = {exponent: suffix for suffix, exponent in _DECIMAL.items()}
_BINARY_BY_SHIFT = {shift: suffix for suffix, shift in _BINARY.items()} | {0: ""}
_EXPONENT = re.compile(r"[eE][+-]?[0-9]+\Z")
_NANO = Decimal("1e-9")
# Beyond this nothing is meant seriously; upstream then falls back to the largest 64-bit integer, and so do we.
_ABSURD = Decimal("1e36")
_MAX = Decimal(2**63 - 1)
_CONTEXT = Context(prec=120, rounding=ROUND_UP)
_MAX_TEXT = 128  # No real quantity is longer; a bound for what a request can make us compute.

Text = str | int | float | Decimal


@lru_cache(maxsize=2048)
def _parse(text: str) -> tuple[Decimal, str]:
    """(value, format), format being "DecimalSI", "BinarySI" or "DecimalExponent"."""
    if not text or len(text) > _MAX_TEXT:
        raise ValueError(FORMAT_WRONG)
    match = _SPLIT.match(text)
    if match is None:
        raise ValueError(FORMAT_WRONG)
    sign, whole, _, fraction, suffix = match.groups()
    if not whole and not fraction:
        raise ValueError(FORMAT_WRONG)
    number = Decimal(f"{sign}{whole or '0'}.{fraction or '0'}")
    if suffix in _DECIMAL:
        form, scaled = "DecimalSI", number.scaleb(_DECIMAL[suffix], _CONTEXT)
    elif suffix in _BINARY:
        form, scaled = "BinarySI", _CONTEXT.multiply(number, Decimal(1 << _BINARY[suffix]))
    elif _EXPONENT.match(suffix):
        exponent = int(suffix[1:])
        if abs(exponent) > 2**31:
            raise ValueError(_SUFFIX_WRONG)
        form, scaled = "DecimalExponent", number.scaleb(max(-200, min(exponent, 200)), _CONTEXT)
    else:
        raise ValueError(_SUFFIX_WRONG)
    # As upstream, what is finer than a billionth is rounded away from zero.
    if abs(scaled) > _ABSURD:
        scaled = _MAX.copy_sign(scaled)
    if scaled != 0:
        scaled = scaled.quantize(_NANO, rounding=ROUND_UP, context=_CONTEXT)
    return scaled, form


def _text(quantity: Text) -> str:
    if isinstance(quantity, bool):
        raise ValueError(FORMAT_WRONG)
    if isinstance(quantity, str):
        return quantity.strip()
    if isinstance(quantity, float):
        return f"{Decimal(repr(quantity)):f}"
    if isinstance(quantity, Decimal):
        return f"{quantity:f}"
    if isinstance(quantity, int):
        return str(quantity)
    raise ValueError(FORMAT_WRONG)


def parse(quantity: Text) -> Decimal:
    """The exact value. ValueError with upstream's wording if it is not a quantity."""
    return _parse(_text(quantity))[0]


def value(quantity: Text) -> int:
    """The value rounded up (away from zero) to a whole number: bytes, pods."""
    return int(parse(quantity).to_integral_value(rounding=ROUND_UP))


def milli(quantity: Text) -> int:
    """Thousandths, rounded up: millicores of CPU."""
    return int(_CONTEXT.multiply(parse(quantity), Decimal(1000)).to_integral_value(rounding=ROUND_UP))


def canonical(quantity: Text) -> str:
    """The text upstream prints: no fraction, the largest suffix that keeps the number whole ("0.5" -> "500m")."""
    text = _text(quantity)
    number, form = _parse(text)
    return format_quantity(number, form)


def format_quantity(number: Decimal, form: str = "DecimalSI") -> str:
    """Canonical text of a value in a format: "DecimalSI", "BinarySI" or "DecimalExponent"."""
    if number == 0:
        return "0"
    whole = number == number.to_integral_value()
    if form == "BinarySI" and whole and abs(number) >= 1024:
        mantissa, shift = int(number), 0
        while mantissa % 1024 == 0 and shift < 60:
            mantissa //= 1024
            shift += 10
        return f"{mantissa}{_BINARY_BY_SHIFT[shift]}"
    mantissa, exponent = int(_CONTEXT.multiply(number, Decimal(10**9)).to_integral_value(rounding=ROUND_UP)), -9
    while mantissa % 1000 == 0 and exponent < 18:
        mantissa //= 1000
        exponent += 3
    if form == "DecimalExponent":
        return f"{mantissa}e{exponent}" if exponent else str(mantissa)
    return f"{mantissa}{_DECIMAL_BY_EXPONENT[exponent]}"
