"""Quantities print as upstream prints them."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k1s.api import quantity


@pytest.mark.parametrize(
    "text, out",
    [
        ("0", "0"), ("0Ki", "0"), ("-0", "0"), ("100m", "100m"), ("1000m", "1"), ("1500m", "1500m"), ("0.5", "500m"),
        ("1.5", "1500m"), ("1000", "1k"), ("1024", "1024"), ("1024Ki", "1Mi"), ("0.5Gi", "512Mi"), ("1.5Ki", "1536"),
        ("0.5Ki", "512"), ("1Ki", "1Ki"), ("1e3", "1e3"), ("1.2e6", "1200e3"), ("1E", "1E"), ("1E3", "1e3"),
        ("12e6", "12e6"), ("100e0", "100"), ("1n", "1n"), ("0.1n", "1n"), ("1u", "1u"), ("-1.5Mi", "-1536Ki"),
        ("1.25", "1250m"), ("+5", "5"), (".5", "500m"), ("5.", "5"), ("1P", "1P"), ("1Ei", "1Ei"), ("123456789", "123456789"),
        ("0.1Ki", "102400m"), (5, "5"), (0.1, "100m"), (2000, "2k"), ("1e99", "9223372036854775807"),
        ("9223372036854775808", "9223372036854775808"),
        ("1e-3", "1e-3"), ("15e-1", "1500e-3"), ("1m ", "1m"),
    ],
)  # fmt: skip
def test_canonical(text: str | int | float, out: str) -> None:
    assert quantity.canonical(text) == out


@pytest.mark.parametrize("text", ["", "x", "1x", "1 Gi", "1ki", "--1", "1.2.3", "1e", "Mi", "1Ki1", ".", "9" * 200, True])
def test_refused(text: str) -> None:
    with pytest.raises(ValueError):
        quantity.canonical(text)


def test_rounding_up() -> None:
    assert quantity.value("1.1") == 2
    assert quantity.value("-1.1") == -2
    assert quantity.milli("1.1m") == 2
    assert quantity.milli("2") == 2000
    assert quantity.parse("1.5Gi") == Decimal(3 * 2**29)


texts = st.builds(
    "{}{}".format,
    st.decimals(-(10**9), 10**9, allow_nan=False, places=3),
    st.sampled_from(["", "n", "u", "m", "k", "M", "G", "Ki", "Mi", "Gi", "e3", "E-2"]),
)


@given(texts)
def test_canonical_round_trip(text: str) -> None:
    canonical = quantity.canonical(text)
    assert quantity.canonical(canonical) == canonical
    assert quantity.parse(canonical) == quantity.parse(text)
    assert "." not in canonical
