"""format.dns1123Label() and its like in CEL. Source: apiserver/pkg/cel/library/format.go."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from k1s.api import names
from k1s.api.cel.optional import NONE, Optional, opaque, opened
from k1s.api.validation import formats

Validator = Callable[[str], list[str]]


def _by_format(name: str, text: str) -> Validator:
    return lambda value: [] if formats.matches(name, value) else [text]


_VALIDATORS: dict[str, Validator] = {
    "dns1123Label": names.is_dns_label,
    "dns1123Subdomain": names.is_dns_subdomain,
    "dns1035Label": names.is_dns1035_label,
    "dns1123LabelPrefix": partial(names.is_dns_label, prefix=True),
    "dns1123SubdomainPrefix": partial(names.is_dns_subdomain, prefix=True),
    "dns1035LabelPrefix": partial(names.is_dns1035_label, prefix=True),
    "qualifiedName": names.qualified_name,
    "labelValue": names.label_value,
    "uri": _by_format("uri", "invalid URI"),
    "uuid": _by_format("uuid", "does not match the UUID format"),
    "byte": _by_format("byte", "invalid base64"),
    "date": _by_format("date", "invalid date"),
    "datetime": _by_format("date-time", "invalid datetime"),
}


def _validate(value: Any, text: str) -> Optional:
    said = _VALIDATORS[opened(value, "format")](text)
    return Optional(True, said) if said else NONE


def _named(name: str) -> Optional:
    return Optional(True, opaque("format", name)) if name in _VALIDATORS else NONE


FUNCTIONS = (
    *((f"format.{name}", False, (), partial(opaque, "format", name)) for name in _VALIDATORS),
    ("format.named", False, ("STRING",), _named),
    ("validate", True, ("OPAQUE", "STRING"), _validate),
)
