"""How much of a request is noted: audit.k8s.io/v1 Policy.

Owns: Policy, Verdict, `parse`, DEFAULT. Called by: auditing/app. Never does: I/O. Pure.
Source: apiserver/pkg/audit/policy/checker.go and apis/audit/validation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from k1s.server.apiserver.attributes import RequestInfo, UserInfo

Object = Mapping[str, Any]

NONE, METADATA, REQUEST, REQUEST_RESPONSE = "None", "Metadata", "Request", "RequestResponse"
LEVELS = (NONE, METADATA, REQUEST, REQUEST_RESPONSE)
RECEIVED, STARTED, COMPLETE, PANIC = "RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"
STAGES = (RECEIVED, STARTED, COMPLETE, PANIC)


class PolicyError(Exception):
    """The policy cannot be used; one line."""


@dataclass(frozen=True, slots=True)
class Verdict:
    level: str
    omit_stages: frozenset[str] = frozenset()
    omit_managed_fields: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """The first rule that matches decides; what none matches is not noted."""

    rules: tuple[tuple[Object, Verdict], ...]

    def verdict(self, user: UserInfo, info: RequestInfo) -> Verdict:
        return next((verdict for rule, verdict in self.rules if _matches(rule, user, info)), Verdict(NONE))


# Without a policy of one's own: who changed what. Upstream notes nothing then.
DEFAULT = Policy(
    (
        ({"verbs": ["get", "list", "watch", "head", "options"]}, Verdict(NONE)),
        ({}, Verdict(METADATA, frozenset((RECEIVED, STARTED)))),
    )
)


def parse(document: Any, source: str) -> Policy:
    """Raises PolicyError."""
    if not isinstance(document, dict) or document.get("kind") != "Policy" or document.get("apiVersion") != "audit.k8s.io/v1":
        raise PolicyError(f"{source}: not a Policy of audit.k8s.io/v1")
    rules = document.get("rules")
    if not rules or not isinstance(rules, list):
        raise PolicyError(f"{source}: rules: Required value: loaded illegal policy with 0 rules")
    everywhere = _stages(document, source)
    managed = bool(document.get("omitManagedFields"))
    return Policy(tuple(_rule(rule, f"{source}: rules[{index}]", everywhere, managed) for index, rule in enumerate(rules)))


def _rule(rule: Any, at: str, everywhere: frozenset[str], managed: bool) -> tuple[Object, Verdict]:
    if not isinstance(rule, dict):
        raise PolicyError(f"{at}: must be an object")
    level = rule.get("level")
    if level not in LEVELS:
        raise PolicyError(f"{at}.level: Unsupported value: {level!r}: supported values: {', '.join(LEVELS)}")
    urls = rule.get("nonResourceURLs") or ()
    if urls and (rule.get("resources") or rule.get("namespaces")):
        raise PolicyError(f"{at}.nonResourceURLs: rules cannot apply to both regular resources and non-resource URLs")
    for url in urls:
        if url != "*" and (not url.startswith("/") or "*" in url[:-1]):
            raise PolicyError(f"{at}.nonResourceURLs: {url!r}: must begin with '/', '*' only at the end")
    omit = rule.get("omitManagedFields")
    return rule, Verdict(level, everywhere | _stages(rule, at), managed if omit is None else bool(omit))


def _stages(part: Object, at: str) -> frozenset[str]:
    stages = part.get("omitStages") or ()
    for stage in stages:
        if stage not in STAGES:
            raise PolicyError(f"{at}.omitStages: invalid stage {stage!r}, allowed stages are {', '.join(STAGES)}")
    return frozenset(stages)


def _matches(rule: Object, user: UserInfo, info: RequestInfo) -> bool:
    users, groups, verbs = rule.get("users"), rule.get("userGroups"), rule.get("verbs")
    if users and user.name not in users:
        return False
    if groups and not any(group in groups for group in user.groups):
        return False
    if verbs and info.verb not in verbs:
        return False
    if rule.get("namespaces") or rule.get("resources"):
        return info.is_resource and _resource(rule, info)
    urls = rule.get("nonResourceURLs")
    if urls:
        return not info.is_resource and any(url == info.path or _prefix(url, info.path) for url in urls)
    return True


def _prefix(url: str, path: str) -> bool:
    return url.endswith("*") and path.startswith(url[:-1])


def _resource(rule: Object, info: RequestInfo) -> bool:
    namespaces: Sequence[str] = rule.get("namespaces") or ()
    if namespaces and info.namespace not in namespaces:
        return False
    resources: Sequence[Object] = rule.get("resources") or ()
    return not resources or any((entry.get("group") or "") == info.group and _named(entry, info) for entry in resources)


def _named(entry: Object, info: RequestInfo) -> bool:
    """`pods`, `pods/log`, `pods/*`, `*/scale`, `*`; no resources mean all of the group."""
    wanted = entry.get("resources") or ()
    if not wanted:
        return True
    names = entry.get("resourceNames") or ()
    if names and info.name not in names:
        return False
    whole = f"{info.plural}/{info.subresource}" if info.subresource else info.plural
    return any(
        resource in (whole, "*")
        or (info.subresource and resource == f"*/{info.subresource}")
        or (resource.endswith("/*") and resource[:-2] == info.plural)
        for resource in wanted
    )
