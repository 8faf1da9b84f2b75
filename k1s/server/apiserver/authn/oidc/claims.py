"""From the claims of a token that is known to be good to a user.

Owns: user_of, the rules for claims and users. Called by: issuer. Never does: check signatures, dates or audiences.
Source: upstream apiserver/plugin/pkg/authenticator/token/oidc (wording as well).
"""

from __future__ import annotations

from typing import Any

from k1s.api.cel.program import CelError, compile_expression
from k1s.server.apiserver.attributes import UserInfo
from k1s.server.apiserver.authn.configuration import ClaimMapping, ClaimRule, JwtIssuer
from k1s.server.apiserver.authn.configuration_rules import CLAIMS, USER
from k1s.server.apiserver.authn.jwt import Claims, InvalidToken

_CREDENTIAL = "authentication.kubernetes.io/credential-id"


def user_of(config: JwtIssuer, claims: Claims) -> UserInfo:
    """Raises InvalidToken where a rule of the configuration is not met."""
    name = _username(config.username, claims)
    groups = _groups(config.groups, claims)
    uid = _uid(config.uid, claims)
    extra = {key: values for key, expression in config.extra if (values := _extra(key, expression, claims))}
    for rule in config.claim_rules:
        _check_claim(rule, claims)
    if claims.get("jti"):
        extra[_CREDENTIAL] = (f"JTI={claims['jti']}",)
    user = UserInfo(name, groups, uid, extra)
    if config.user_rules:
        _check_user(config.user_rules, user)
    return user


def _username(mapping: ClaimMapping, claims: Claims) -> str:
    if mapping.expression:
        value = _evaluated(mapping.expression, claims, "username claim")
        if not isinstance(value, str):
            raise InvalidToken("oidc: error evaluating username claim expression: expression must return a string")
    else:
        value = claims.get(mapping.claim)
        if mapping.claim not in claims:
            raise InvalidToken(f'oidc: parse username claims "{mapping.claim}": claim not present')
        if not isinstance(value, str):
            raise InvalidToken(f'oidc: parse username claims "{mapping.claim}": claim is not a string')
        # A provider says itself whether it looked at the address; without a word it did.
        if mapping.claim == "email" and claims.get("email_verified", True) is not True:
            raise InvalidToken("oidc: email not verified")
    if not value:
        raise InvalidToken("oidc: username claim is empty")
    return mapping.prefix + value


def _groups(mapping: ClaimMapping, claims: Claims) -> tuple[str, ...]:
    if not mapping:
        return ()
    if mapping.expression:
        value = _evaluated(mapping.expression, claims, "group claim")
    else:
        if mapping.claim not in claims:
            return ()
        value = claims[mapping.claim]
    words = _strings(value)
    if words is None:
        where = "group claim expression" if mapping.expression else f'groups claim "{mapping.claim}"'
        raise InvalidToken(f"oidc: parse {where}: must be a string or a list of strings")
    return tuple(mapping.prefix + word for word in words if word)


def _uid(mapping: ClaimMapping, claims: Claims) -> str:
    if mapping.expression:
        value = _evaluated(mapping.expression, claims, "uid claim")
    elif not mapping.claim or mapping.claim not in claims:
        return ""
    else:
        value = claims[mapping.claim]
    if not isinstance(value, str):
        raise InvalidToken("oidc: error evaluating uid claim: must be a string")
    return value


def _extra(key: str, expression: str, claims: Claims) -> tuple[str, ...]:
    words = _strings(_evaluated(expression, claims, f"extra claim ({key})"))
    if words is None:
        raise InvalidToken(f"oidc: error evaluating extra claim expression: {key} must be a string or a list of strings")
    return tuple(word for word in words if word)


def _check_claim(rule: ClaimRule, claims: Claims) -> None:
    if rule.claim:
        if rule.claim not in claims:
            raise InvalidToken(f"oidc: required claim {rule.claim} not present in ID token")
        value = claims[rule.claim]
        if value != rule.required:
            raise InvalidToken(f"oidc: required claim {rule.claim} value does not match. Got = {value}, want = {rule.required}")
        return
    if _evaluated(rule.expression, claims, "claim validation") is not True:
        raise InvalidToken(f"oidc: claim validation expression '{rule.expression}' failed: {rule.message}")


def _check_user(rules: tuple[tuple[str, str], ...], user: UserInfo) -> None:
    value: dict[str, Any] = {"username": user.name, "groups": list(user.groups), "uid": user.uid}
    value["extra"] = {key: list(values) for key, values in user.extra.items()}
    for expression, message in rules:
        try:
            good = compile_expression(expression, USER).evaluate({"user": value})
        except CelError as error:
            raise InvalidToken(f"oidc: error evaluating user info validation rule: {error}") from error
        if good is not True:
            raise InvalidToken(f"oidc: user info validation expression '{expression}' failed: {message}")


def _evaluated(expression: str, claims: Claims, what: str) -> Any:
    try:
        return compile_expression(expression, CLAIMS).evaluate({"claims": claims})
    except CelError as error:
        raise InvalidToken(f"oidc: error evaluating {what} expression: {error}") from error


def _strings(value: Any) -> list[str] | None:
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return list(value)
    return None
