"""Names are refused in upstream's words."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from k1s.api import names

LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an "
    "alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with "
    "an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
QUALIFIED = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. "
    "'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
WITH_PREFIX = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"


@pytest.mark.parametrize(
    "check, value, messages",
    [
        (names.dns1123_label, "a-b", []),
        (names.dns1123_label, "A", [LABEL]),
        (names.dns1123_label, "a.b", ["must not contain dots"]),
        (names.dns1123_label, "a" * 64, ["must be no more than 63 bytes"]),
        (names.dns1123_label, "a\n", [LABEL]),
        (names.dns1123_subdomain, "a.b-c", []),
        (names.dns1123_subdomain, "a..b", [SUBDOMAIN]),
        (names.dns1123_subdomain, "a_b", [SUBDOMAIN]),
        (names.dns1123_subdomain, "", [SUBDOMAIN]),
        (names.dns1035_label, "a1", []),
        (names.qualified_name, "example.com/Name_1", []),
        (names.qualified_name, "/a", ["prefix part must be non-empty"]),
        (names.qualified_name, "a/", ["name part must be non-empty", f"name part {QUALIFIED}"]),
        (names.qualified_name, "a/b/c", [f"a valid label key {QUALIFIED} {WITH_PREFIX}"]),
        (names.qualified_name, "B/c", [f"prefix part {SUBDOMAIN}"]),
        (names.label_value, "", []),
        (names.label_value, "x" * 64, ["must be no more than 63 bytes"]),
        (names.port_name, "http", []),
        (names.port_name, "80", ["must contain at least one letter (a-z)"]),
        (names.port_name, "-a--", ["must not contain consecutive hyphens", "must not begin or end with a hyphen"]),
        (names.config_map_key, "..", ["must not be '..'"]),
        (names.config_map_key, "a.b_c-D", []),
        (names.path_segment_name, "a/b", ["may not contain '/'"]),
        (names.path_segment_name, "..", ["may not be '..'"]),
        (names.ip_address, "10.0.0.1", []),
        (names.ip_address, "10.0.0.01", ["must not have leading 0s"]),
        (names.cidr, "10.0.0.0/8", []),
        (names.cidr, "10.0.0.0/33", ["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"]),
        (names.cidr, "10.0.0.0/255.0.0.0", ["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"]),
        (names.env_var_name, "a b", []),
        (names.percent, "10%", []),
        (names.wildcard_dns1123_subdomain, "*.a.b", []),
        (names.fully_qualified_name, "a.b", ["should be a domain with at least three segments separated by dots"]),
        (names.socket_address, "[::]:80", []),
    ],
)
def test_messages(check: Callable[[str], list[str]], value: str, messages: list[str]) -> None:
    assert check(value) == messages


def test_generate_name() -> None:
    assert names.is_dns_subdomain("web-", prefix=True) == []
    assert names.is_dns_subdomain("web-") != []
    assert names.is_dns_label("-", prefix=True) != []


def test_numbers() -> None:
    assert names.port_number(0) == ["must be between 1 and 65535, inclusive"]
    assert names.group_id(-1) == ["must be between 0 and 2147483647, inclusive"]
