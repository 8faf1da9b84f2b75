"""semver(): semantic versions in CEL. Source: apiserver/pkg/cel/library/semverlib.go."""

from __future__ import annotations

import re
from typing import Any

from k1s.api.cel.optional import Opaque, opaque, opened

_NUMBER = r"(0|[1-9]\d*)"
_PART = r"(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)"
_SEMVER = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-({_PART}(?:\.{_PART})*))?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?")
_MAX = 256


def _normal(text: str) -> str:
    """`v1.02` as `1.2.0`."""
    text = text.removeprefix("v")
    end = min((i for i in (text.find("-"), text.find("+")) if i >= 0), default=len(text))
    numbers = [part.lstrip("0") or "0" if part.isdigit() else part for part in text[:end].split(".")]
    return ".".join([*numbers, "0", "0"][: max(3, len(numbers))]) + text[end:]


def _is(text: str, normalize: bool = False) -> bool:
    return len(text) <= _MAX and _SEMVER.fullmatch(_normal(text) if normalize else text) is not None


def _make(text: str, normalize: bool = False) -> Opaque:
    if not _is(text, normalize):
        raise ValueError(f"semver: invalid version {text!r}")
    # Builds are no part of the order, nor of equality.
    return opaque("semver", (_normal(text) if normalize else text).partition("+")[0])


def _numbers(value: Any) -> tuple[int, int, int]:
    major, minor, patch = opened(value, "semver").partition("-")[0].split(".")
    return int(major), int(minor), int(patch)


def order(value: Any) -> tuple[Any, ...]:
    """Something that sorts as versions do: a release comes after its pre-releases."""
    pre = opened(value, "semver").partition("-")[2]
    parts = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in pre.split(".")) if pre else ()
    return (*_numbers(value), not pre, parts)


FUNCTIONS = (
    ("isSemver", False, ("STRING",), _is),
    ("isSemver", False, ("STRING", "BOOL"), _is),
    ("semver", False, ("STRING",), _make),
    ("semver", False, ("STRING", "BOOL"), _make),
    ("major", True, ("OPAQUE",), lambda value: _numbers(value)[0]),
    ("minor", True, ("OPAQUE",), lambda value: _numbers(value)[1]),
    ("patch", True, ("OPAQUE",), lambda value: _numbers(value)[2]),
)
