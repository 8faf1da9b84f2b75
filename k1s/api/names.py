"""Is it a good name? The validators of apimachinery/pkg/util/validation, with upstream's messages word for word.

Owns: DNS labels and subdomains, label keys and values, port names, environment and ConfigMap keys, generateName. Addresses are
in addresses.py and offered here too.
Called by: api/validation, selectors, admission. Never does: say where the fault is; the caller knows the field path.
Each function returns the list of messages; an empty list means good.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from k1s.api.addresses import cidr as cidr
from k1s.api.addresses import ip_address as ip_address

_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_QUALIFIED_TEXT = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
)
_LABEL_VALUE = f"({_QUALIFIED})?"
_LABEL_VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
    "and must start and end with an alphanumeric character"
)
_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
    "and must start and end with an alphanumeric character"
)
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
    "and must start and end with an alphanumeric character"
)
_UNDERSCORE_LABEL = "[a-z0-9_]([-_a-z0-9]*[a-z0-9_])?"
_UNDERSCORE_SUBDOMAIN = rf"{_UNDERSCORE_LABEL}(\.{_UNDERSCORE_LABEL})*"
_UNDERSCORE_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-', '_' or '.', "
    "and must start and end with an alphanumeric character"
)
_LABEL_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_LABEL_1035_TEXT = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character"
)
_WILDCARD = rf"\*\.{_SUBDOMAIN}"
_WILDCARD_TEXT = (
    "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, "
    "which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character"
)
_ENV_NAME = "[-._a-zA-Z][-._a-zA-Z0-9]*"
_ENV_NAME_TEXT = (
    "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', "
    "and must not start with a digit"
)
_ENV_RELAXED = "[ -<>-~]+"
_ENV_RELAXED_TEXT = "a valid environment variable name must consist only of printable ASCII characters other than '='"
_CONFIG_KEY = "[-._a-zA-Z0-9]+"
_CONFIG_KEY_TEXT = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
_HEADER = "[-A-Za-z0-9]+"
_HEADER_TEXT = "a valid HTTP header must consist of alphanumeric characters or '-'"
_PERCENT = "[0-9]+%"
_PERCENT_TEXT = "a valid percent string must be a numeric string followed by an ending '%'"
_HTTP_PATH = "[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+"
_HTTP_PATH_TEXT = "must start with `/` followed by one or more characters `" + "[A-Za-z0-9/\\-._~%!$&'()*+,;=:]" + "`"
_C_IDENTIFIER = "[A-Za-z_][A-Za-z0-9_]*"
_C_TEXT = (
    "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_'"
)
_REASON = "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?"
_REASON_TEXT = (
    "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters "
    "or '_,:', and must end with an alphanumeric character or '_'"
)

EMPTY = "must be non-empty"
LABEL_MAX = 63
SUBDOMAIN_MAX = 253

_LABEL_BYTES, _SUBDOMAIN_BYTES = (f"must be no more than {n} bytes" for n in (LABEL_MAX, SUBDOMAIN_MAX))
_LABEL_CHARACTERS, _SUBDOMAIN_CHARACTERS = (f"must be no more than {n} characters" for n in (LABEL_MAX, SUBDOMAIN_MAX))
_LIMIT = {
    _LABEL_BYTES: LABEL_MAX,
    _SUBDOMAIN_BYTES: SUBDOMAIN_MAX,
    _LABEL_CHARACTERS: LABEL_MAX,
    _SUBDOMAIN_CHARACTERS: SUBDOMAIN_MAX,
}

_compiled: dict[str, re.Pattern[str]] = {}


def max_length(length: int) -> str:
    return f"must be no more than {length} characters"


def inclusive_range(low: int, high: int) -> str:
    return f"must be between {low} and {high}, inclusive"


def regex_error(message: str, pattern: str, *examples: str) -> str:
    """How upstream words a failed regular expression."""
    if not examples:
        return f"{message} (regex used for validation is '{pattern}')"
    shown = " or ".join(f"'{example}', " for example in examples)
    return f"{message} (e.g. {shown}regex used for validation is '{pattern}')"


def _matches(pattern: str, value: str) -> bool:
    compiled = _compiled.get(pattern)
    if compiled is None:
        # Keyed by this module's own patterns only, so it cannot grow.
        compiled = _compiled[pattern] = re.compile(pattern, re.ASCII)
    return compiled.fullmatch(value) is not None


def _bytes(value: str) -> int:
    return len(value) if value.isascii() else len(value.encode())


def _check(value: str, too_long: str, pattern: str, text: str, *examples: str) -> list[str]:
    """`too_long` is the message if the value is; its number is the limit."""
    out = [too_long] if _bytes(value) > _LIMIT[too_long] else []
    if not _matches(pattern, value):
        out.append(regex_error(text, pattern, *examples))
    return out


def _prefixed(messages: Iterable[str], prefix: str) -> list[str]:
    return [prefix + message for message in messages]


def dns1123_label(value: str) -> list[str]:
    first = [_LABEL_BYTES] if _bytes(value) > LABEL_MAX else []
    if not _matches(_LABEL, value):
        if _matches(_SUBDOMAIN, value):
            # It was a good subdomain: the dots are what is wrong.
            return [*first, "must not contain dots"]
        first.append(regex_error(_LABEL_TEXT, _LABEL, "my-name", "123-abc"))
    return first


def dns1123_subdomain(value: str) -> list[str]:
    return _check(value, _SUBDOMAIN_BYTES, _SUBDOMAIN, _SUBDOMAIN_TEXT, "example.com")


def dns1123_subdomain_with_underscore(value: str) -> list[str]:
    return _check(value, _SUBDOMAIN_CHARACTERS, _UNDERSCORE_SUBDOMAIN, _UNDERSCORE_TEXT, "example.com")


def dns1035_label(value: str) -> list[str]:
    return _check(value, _LABEL_CHARACTERS, _LABEL_1035, _LABEL_1035_TEXT, "my-name", "abc-123")


def wildcard_dns1123_subdomain(value: str) -> list[str]:
    return _check(value, _SUBDOMAIN_CHARACTERS, _WILDCARD, _WILDCARD_TEXT, "*.example.com")


def qualified_name(value: str) -> list[str]:
    """A label or annotation key, a resource name: [prefix/]name."""
    out: list[str] = []
    parts = value.split("/")
    if len(parts) == 1:
        name = parts[0]
    elif len(parts) == 2:
        prefix, name = parts
        out += _prefixed([EMPTY] if not prefix else dns1123_subdomain(prefix), "prefix part ")
    else:
        text = regex_error(_QUALIFIED_TEXT, _QUALIFIED, "MyName", "my.name", "123-abc")
        return [f"a valid label key {text} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"]
    if not name:
        out.append(f"name part {EMPTY}")
    elif _bytes(name) > LABEL_MAX:
        out.append(f"name part {_LABEL_BYTES}")
    if not _matches(_QUALIFIED, name):
        out.append("name part " + regex_error(_QUALIFIED_TEXT, _QUALIFIED, "MyName", "my.name", "123-abc"))
    return out


def label_value(value: str) -> list[str]:
    return _check(value, _LABEL_BYTES, _LABEL_VALUE, _LABEL_VALUE_TEXT, "MyValue", "my_value", "12345")


def fully_qualified_name(value: str) -> list[str]:
    """A name in a domain of its own, at least three segments; finalizers of CRDs and the like."""
    if not value:
        return [EMPTY]
    out = dns1123_subdomain(value)
    if not out and len(value.split(".")) < 3:
        out = ["should be a domain with at least three segments separated by dots"]
    return out


def fully_qualified_domain_name(value: str) -> list[str]:
    if not value:
        return [EMPTY]
    trimmed = value.removesuffix(".")
    out = dns1123_subdomain(trimmed)
    if not out and len(trimmed.split(".")) < 2:
        out = ["should be a domain with at least two segments separated by dots"]
    for label in trimmed.split(".") if not out else ():
        out += dns1123_label(label)
    return out


def domain_prefixed_key(value: str) -> list[str]:
    """`domain/path`, both parts present; signer names and the like."""
    if not value:
        return [EMPTY]
    segments = value.split("/", 1)
    if len(segments) != 2 or not segments[0] or not segments[1]:
        return ['must be a domain-prefixed path (such as "acme.io/foo")']
    out = _prefixed(dns1123_subdomain(segments[0]), "")
    if not _matches(_HTTP_PATH, segments[1]):
        out.append(regex_error("Invalid path", _HTTP_PATH))
    return out


def port_number(port: int) -> list[str]:
    return [] if 1 <= port <= 65535 else [inclusive_range(1, 65535)]


def c_identifier(value: str) -> list[str]:
    """A name of a variable in C."""
    return [] if _matches(_C_IDENTIFIER, value) else [regex_error(_C_TEXT, _C_IDENTIFIER, "my_name", "MY_NAME", "MyName")]


def condition_reason(value: str) -> list[str]:
    """metav1.Condition.reason."""
    if _matches(_REASON, value):
        return []
    return [regex_error(_REASON_TEXT, _REASON, "my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB")]


def _in_port_range(port: int) -> list[str]:
    return [] if 0 <= port <= 65535 else [inclusive_range(0, 65535)]


def port_name(value: str) -> list[str]:
    """An IANA service name: at most 15 of a-z, 0-9 and single inner hyphens, one letter among them."""
    out: list[str] = []
    if _bytes(value) > 15:
        out.append(max_length(15))
    if not _matches("[-a-z0-9]+", value):
        out.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not any("a" <= c <= "z" for c in value):
        out.append("must contain at least one letter (a-z)")
    if "--" in value:
        out.append("must not contain consecutive hyphens")
    if value and (value[0] == "-" or value[-1] == "-"):
        out.append("must not begin or end with a hyphen")
    return out


def group_id(value: int) -> list[str]:
    return [] if 0 <= value <= 2**31 - 1 else [inclusive_range(0, 2**31 - 1)]


user_id = group_id


def percent(value: str) -> list[str]:
    return [] if _matches(_PERCENT, value) else [regex_error(_PERCENT_TEXT, _PERCENT, "1%", "93%")]


def http_header_name(value: str) -> list[str]:
    return [] if _matches(_HEADER, value) else [regex_error(_HEADER_TEXT, _HEADER, "X-Header-Name")]


def _no_directory(value: str) -> list[str]:
    if value == ".":
        return ["must not be '.'"]
    if value == "..":
        return ["must not be '..'"]
    if value.startswith(".."):
        return ["must not start with '..'"]
    return []


def env_var_name(value: str, relaxed: bool = True) -> list[str]:
    """Since v1.34 all printable ASCII but '=' is allowed; `relaxed=False` is the old rule (envFrom reports by it)."""
    if relaxed:
        if not _matches(_ENV_RELAXED, value):
            return [regex_error(_ENV_RELAXED_TEXT, f"^{_ENV_RELAXED}$")]
        return []
    out = (
        [] if _matches(_ENV_NAME, value) else [regex_error(_ENV_NAME_TEXT, _ENV_NAME, "my.env-name", "MY_ENV.NAME", "MyEnvName1")]
    )
    return out + _no_directory(value)


def config_map_key(value: str) -> list[str]:
    """A key of ConfigMap.data or Secret.data: it becomes a file name."""
    out = _check(value, _SUBDOMAIN_CHARACTERS, _CONFIG_KEY, _CONFIG_KEY_TEXT, "key.name", "KEY_NAME", "key-name")
    return out + _no_directory(value)


def path_segment_name(value: str) -> list[str]:
    """The least a name must be to stand in a URL path: RBAC objects, for one."""
    if value in (".", ".."):
        return [f"may not be '{value}'"]
    return [f"may not contain '{illegal}'" for illegal in "/%" if illegal in value]


def socket_address(value: str) -> list[str]:
    """`address:port`, IPv6 in brackets."""
    host, colon, port = value.rpartition(":")
    if not colon:
        return ["must be a valid socket address format, (e.g. 0.0.0.0:10254 or [::]:10254)"]
    port_errors = _in_port_range(int(port)) if port.isascii() and port.isdigit() else ["must be a valid port number"]
    return port_errors + ip_address(host.removeprefix("[").removesuffix("]"))


# Names of kinds, as apimachinery/pkg/api/validation/generic.go has them. `prefix`: it is a generateName.


def _mask_trailing_dash(value: str) -> str:
    # The suffix that will be added takes the place of the dash.
    return f"{value[:-2]}a" if len(value) > 1 and value.endswith("-") else value


def is_dns_subdomain(value: str, prefix: bool = False) -> list[str]:
    return dns1123_subdomain(_mask_trailing_dash(value) if prefix else value)


def is_dns_label(value: str, prefix: bool = False) -> list[str]:
    return dns1123_label(_mask_trailing_dash(value) if prefix else value)


def is_dns1035_label(value: str, prefix: bool = False) -> list[str]:
    return dns1035_label(_mask_trailing_dash(value) if prefix else value)


def is_path_segment(value: str, prefix: bool = False) -> list[str]:
    return [m for m in path_segment_name(value) if not (prefix and m.startswith("may not be"))]
