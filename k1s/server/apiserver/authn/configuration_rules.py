"""What must be right about one issuer of an AuthenticationConfiguration.

Owns: issuer_faults. Called by: configuration. Never does: read files.
Source: upstream apiserver/pkg/apis/apiserver/validation (paths, types and words of the faults).
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from k1s.api.cel.program import CelError, compile_expression
from k1s.api.errors import FieldError, duplicate, invalid_value, required

Object = dict[str, Any]

CLAIMS, USER = frozenset(("claims",)), frozenset(("user",))
_BOTH = "claim and expression can't both be set"
_NEITHER = "claim or expression is required"
_KEY = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/[A-Za-z0-9/\-._~%!$&'()*+,;=:]+")
_EMAIL = re.compile(r"\bclaims\s*(\.\s*\??\s*email\b|\[\s*['\"]email['\"]\s*\])")
_VERIFIED = "email_verified"


def issuer_faults(at: str, entry: Object, own: frozenset[str], seen: set[str]) -> list[FieldError]:
    """Everything that is wrong with one entry of `jwt`. `seen`: URLs of the entries before; `own`: which nobody may take."""
    issuer = entry.get("issuer") or {}
    faults = [*_issuer(f"{at}.issuer", issuer, own, seen)]
    faults += _claim_rules(f"{at}.claimValidationRules", entry.get("claimValidationRules") or [])
    faults += _mappings(f"{at}.claimMappings", entry.get("claimMappings") or {})
    if not faults:
        faults += _verified_email(f"{at}.claimMappings.username.expression", entry)
    faults += _user_rules(f"{at}.userValidationRules", entry.get("userValidationRules") or [])
    return faults


def _issuer(at: str, issuer: Object, own: frozenset[str], seen: set[str]) -> Iterator[FieldError]:
    url, discovery = issuer.get("url") or "", issuer.get("discoveryURL") or ""
    yield from _url(f"{at}.url", url, own)
    if discovery:
        if discovery.rstrip("/") == url.rstrip("/"):
            yield invalid_value(f"{at}.discoveryURL", discovery, "discoveryURL must be different from URL")
        yield from _url(f"{at}.discoveryURL", discovery, frozenset())
    for name, value in (("url", url), ("discoveryURL", discovery)):
        if value and value in seen:
            yield duplicate(f"{at}.{name}", value)
        seen.add(value)
    yield from _audiences(at, issuer)
    if issuer.get("certificateAuthority"):
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=issuer["certificateAuthority"])
        except (ssl.SSLError, ValueError, TypeError):
            yield invalid_value(
                f"{at}.certificateAuthority", "<omitted>", "data does not contain any valid RSA or ECDSA certificates"
            )
    if issuer.get("egressSelectorType"):
        text = "egress selectors are not supported here"
        yield invalid_value(f"{at}.egressSelectorType", issuer["egressSelectorType"], text)


def _url(at: str, url: Any, own: frozenset[str]) -> Iterator[FieldError]:
    if not isinstance(url, str) or not url:
        yield required(at, "URL is required")
        return
    if url in own:
        shown = " ".join(sorted(own))
        yield invalid_value(at, url, f"URL must not overlap with disallowed issuers: [{shown}]")
    try:
        parts = urlsplit(url)
        credentials = parts.username is not None or parts.password is not None
        bad = parts.port is not None and not parts.hostname
    except ValueError as error:
        yield invalid_value(at, url, str(error))
        return
    if parts.scheme != "https":
        yield invalid_value(at, url, "URL scheme must be https")
    if credentials:
        yield invalid_value(at, url, "URL must not contain a username or password")
    if parts.query or "?" in url:
        yield invalid_value(at, url, "URL must not contain a query")
    if parts.fragment:
        yield invalid_value(at, url, "URL must not contain a fragment")
    if bad or (parts.scheme == "https" and not parts.hostname):
        yield invalid_value(at, url, "URL must name a host")


def _audiences(at: str, issuer: Object) -> Iterator[FieldError]:
    audiences, policy = issuer.get("audiences") or [], issuer.get("audienceMatchPolicy") or ""
    where = f"{at}.audiences"
    if not audiences:
        yield required(where, f"at least one {where} is required")
    for index, audience in enumerate(audiences):
        if not audience:
            yield required(f"{where}[{index}]", "audience is required")
        elif audience in audiences[:index]:
            yield duplicate(f"{where}[{index}]", audience)
    if len(audiences) > 1 and policy != "MatchAny":
        yield invalid_value(f"{at}.audienceMatchPolicy", policy, "audienceMatchPolicy must be MatchAny for multiple audiences")
    if len(audiences) == 1 and policy not in ("", "MatchAny"):
        text = "audienceMatchPolicy must be empty or MatchAny for single audience"
        yield invalid_value(f"{at}.audienceMatchPolicy", policy, text)


def _claim_rules(at: str, rules: list[Object]) -> Iterator[FieldError]:
    claims: set[str] = set()
    expressions: set[str] = set()
    for index, rule in enumerate(rules):
        where, claim, expression = f"{at}[{index}]", rule.get("claim") or "", rule.get("expression") or ""
        if claim and expression:
            yield invalid_value(where, claim, _BOTH)
        elif not claim and not expression:
            yield required(where, _NEITHER)
        elif claim:
            if rule.get("message"):
                yield invalid_value(f"{where}.message", rule["message"], "message can't be set when claim is set")
            if claim in claims:
                yield duplicate(f"{where}.claim", claim)
            claims.add(claim)
        else:
            if rule.get("requiredValue"):
                text = "requiredValue can't be set when expression is set"
                yield invalid_value(f"{where}.requiredValue", rule["requiredValue"], text)
            if expression in expressions:
                yield duplicate(f"{where}.expression", expression)
            expressions.add(expression)
            yield from _compiled(f"{where}.expression", expression, CLAIMS, ("BOOL", "DYN"), "must evaluate to bool")


def _mappings(at: str, mappings: Object) -> Iterator[FieldError]:
    yield from _mapping(f"{at}.username", mappings.get("username") or {}, needed=True, strings=("STRING", "DYN"))
    yield from _mapping(f"{at}.groups", mappings.get("groups") or {}, needed=False, strings=("STRING", "LIST", "DYN"))
    uid = mappings.get("uid") or {}
    if uid.get("claim") and uid.get("expression"):
        yield invalid_value(f"{at}.uid", "", _BOTH)
    elif uid.get("expression"):
        yield from _compiled(f"{at}.uid.expression", uid["expression"], CLAIMS, ("STRING", "DYN"), "must evaluate to string")
    keys: set[str] = set()
    for index, extra in enumerate(mappings.get("extra") or ()):
        yield from _extra(f"{at}.extra[{index}]", extra, keys)


def _mapping(at: str, mapping: Object, *, needed: bool, strings: tuple[str, ...]) -> Iterator[FieldError]:
    claim, expression, prefix = mapping.get("claim"), mapping.get("expression"), mapping.get("prefix")
    if claim and expression:
        yield invalid_value(at, "", _BOTH)
        return
    if not claim and not expression and needed:
        yield required(at, _NEITHER)
        return
    if expression:
        if prefix is not None:
            yield invalid_value(f"{at}.prefix", prefix, "prefix can't be set when expression is set")
        yield from _compiled(f"{at}.expression", expression, CLAIMS, strings, "must evaluate to string or list of strings")
    elif claim and prefix is None:
        text = "prefix is required when claim is set. It can be set to an empty string to disable prefixing"
        yield required(f"{at}.prefix", text)
    elif not claim and prefix is not None:
        yield invalid_value(f"{at}.prefix", prefix, "non-nil prefix is not allowed when claim is not set")


def _extra(at: str, extra: Object, keys: set[str]) -> Iterator[FieldError]:
    key, expression = extra.get("key") or "", extra.get("valueExpression") or ""
    if not key:
        yield required(f"{at}.key", "key is required")
    else:
        domain = key.partition("/")[0]
        if not _KEY.fullmatch(key):
            yield invalid_value(f"{at}.key", key, 'must be a domain-prefixed path (such as "acme.io/foo")')
        if key != key.lower():
            yield invalid_value(f"{at}.key", key, "key must be lowercase")
        if any(domain == own or domain.endswith(f".{own}") for own in ("k8s.io", "kubernetes.io")):
            yield invalid_value(f"{at}.key", key, f"{domain} is reserved for Kubernetes use")
        if key in keys:
            yield duplicate(f"{at}.key", key)
        keys.add(key)
    if not expression:
        yield required(f"{at}.valueExpression", "valueExpression is required")
        return
    yield from _compiled(
        f"{at}.valueExpression", expression, CLAIMS, ("STRING", "LIST", "DYN"), "must evaluate to string or list"
    )


def _verified_email(at: str, entry: Object) -> Iterator[FieldError]:
    """Who maps the address by an expression must look at whether it was verified: with a claim this is done for them."""
    mappings = entry["claimMappings"]
    expression = (mappings.get("username") or {}).get("expression") or ""
    if not _EMAIL.search(expression):
        return
    others = [e["valueExpression"] for e in mappings.get("extra") or ()]
    others += [rule.get("expression") or "" for rule in entry.get("claimValidationRules") or ()]
    if not any(_VERIFIED in text for text in (expression, *others)):
        text = (
            "claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression "
            "or claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression"
        )
        yield invalid_value(at, expression, text)


def _user_rules(at: str, rules: list[Object]) -> Iterator[FieldError]:
    seen: set[str] = set()
    for index, rule in enumerate(rules):
        where, expression = f"{at}[{index}].expression", rule.get("expression") or ""
        if not expression:
            yield required(where, "expression is required")
            continue
        if expression in seen:
            yield duplicate(where, expression)
        seen.add(expression)
        yield from _compiled(where, expression, USER, ("BOOL", "DYN"), "must evaluate to bool")


def _compiled(at: str, expression: Any, variables: frozenset[str], types: tuple[str, ...], text: str) -> Iterator[FieldError]:
    try:
        program = compile_expression(str(expression), variables)
    except CelError as error:
        yield invalid_value(at, expression, str(error))
        return
    if program.result.partition("(")[0].partition("<")[0].upper() not in types:
        yield invalid_value(at, expression, text)
