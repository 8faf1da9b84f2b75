"""Which FlowSchema a request belongs to.

Owns: Schema (a parsed FlowSchema) and `matches`. Called by: flow/app. Never does: count. Pure.
Source: apiserver/pkg/util/flowcontrol/rule.go and the FlowSchema API.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from k1s.server.apiserver.attributes import RequestInfo, UserInfo

Object = Mapping[str, Any]

BY_USER, BY_NAMESPACE = "ByUser", "ByNamespace"
_ACCOUNT = "system:serviceaccount:"


@dataclass(frozen=True, slots=True)
class Schema:
    """A FlowSchema as far as matching needs it. Ordered by `precedence`, then `name`."""

    name: str
    uid: str
    level: str
    precedence: int
    distinguisher: str
    rules: tuple[Object, ...]

    def flow_of(self, info: RequestInfo, user: UserInfo) -> str:
        """What tells the flows of this schema apart."""
        if self.distinguisher == BY_USER:
            return user.name
        return info.namespace if self.distinguisher == BY_NAMESPACE else ""


def schema_of(obj: Object) -> Schema:
    spec = obj.get("spec") or {}
    return Schema(
        name=obj["metadata"]["name"],
        uid=obj["metadata"].get("uid") or "",
        level=(spec.get("priorityLevelConfiguration") or {}).get("name") or "",
        precedence=int(spec.get("matchingPrecedence") or 1000),
        distinguisher=(spec.get("distinguisherMethod") or {}).get("type") or "",
        rules=tuple(spec.get("rules") or ()),
    )


def matches(schema: Schema, info: RequestInfo, user: UserInfo) -> bool:
    """Whether one of the rules names both the caller and what is asked."""
    return any(_subject(rule, user) and _action(rule, info) for rule in schema.rules)


def _subject(rule: Object, user: UserInfo) -> bool:
    for subject in rule.get("subjects") or ():
        kind = subject.get("kind")
        if kind == "User":
            if _name(subject, "user") in ("*", user.name):
                return True
        elif kind == "Group":
            name = _name(subject, "group")
            if name == "*" or name in user.groups:
                return True
        elif kind == "ServiceAccount":
            prefix = f"{_ACCOUNT}{(subject.get('serviceAccount') or {}).get('namespace')}:"
            name = _name(subject, "serviceAccount")
            if user.name == prefix + name or (name == "*" and user.name.startswith(prefix)):
                return True
    return False


def _name(subject: Object, part: str) -> str:
    return str((subject.get(part) or {}).get("name") or "")


def _action(rule: Object, info: RequestInfo) -> bool:
    if not info.is_resource:
        return any(
            _among(info.verb, found.get("verbs")) and any(_path(url, info.path) for url in found.get("nonResourceURLs") or ())
            for found in rule.get("nonResourceRules") or ()
        )
    resource = f"{info.plural}/{info.subresource}" if info.subresource else info.plural
    for found in rule.get("resourceRules") or ():
        if not (_among(info.verb, found.get("verbs")) and _among(info.group, found.get("apiGroups"))):
            continue
        if not _among(resource, found.get("resources")):
            continue
        if _among(info.namespace, found.get("namespaces")) if info.namespace else found.get("clusterScope"):
            return True
    return False


def _among(value: str, allowed: Sequence[str] | None) -> bool:
    return bool(allowed) and (value in allowed or "*" in allowed)  # type: ignore[operator]


def _path(pattern: str, path: str) -> bool:
    return pattern == path or (pattern.endswith("*") and path.startswith(pattern[:-1]))
