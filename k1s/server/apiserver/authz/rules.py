"""One PolicyRule against one request, and a set of them made fast.

Owns: matching as upstream's rbac/v1 EvaluationHelpers have it, and `RuleSet`. Called by: rbac, node, escalation, reviews.
Never does: know who has which rule.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Rule = dict[str, Any]


def verb_matches(rule: Rule, verb: str) -> bool:
    verbs = rule.get("verbs") or ()
    return "*" in verbs or verb in verbs


def group_matches(rule: Rule, group: str) -> bool:
    groups = rule.get("apiGroups") or ()
    return "*" in groups or group in groups


def resource_matches(rule: Rule, combined: str, subresource: str) -> bool:
    """`combined` is `pods/log`; a rule may say `*`, `pods/log` or `*/log`."""
    resources = rule.get("resources") or ()
    if "*" in resources or combined in resources:
        return True
    return bool(subresource) and f"*/{subresource}" in resources


def path_matches(rule: Rule, path: str) -> bool:
    """A nonResourceURL may be `*` or end in one; `/healthz/*` holds for `/healthz/etcd`, not for `/healthz`."""
    for pattern in rule.get("nonResourceURLs") or ():
        if pattern in ("*", path):
            return True
        if pattern.endswith("*") and path.startswith(pattern.rstrip("*")):
            return True
    return False


# Characters of a group and a resource; a CustomResourceDefinition's name, which is both, has at most 253.
_LONGEST_REMEMBERED = 512


class RuleSet:
    """Rules of one user in one namespace. Answers are remembered per (verb, group, resource), not per name.

    Only what some rule speaks of is: anybody, strangers too, can ask for resources that there are not, by names of any length.
    Past 1024 entries it starts anew.
    """

    __slots__ = ("_known", "rules")

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)
        self._known: dict[tuple[str, str, str], tuple[bool, frozenset[str]]] = {}

    def allows(self, verb: str, group: str, resource: str, subresource: str, name: str) -> bool:
        combined = f"{resource}/{subresource}" if subresource else resource
        key = (verb, group, combined)
        known = self._known.get(key)
        if known is None:
            known = self._evaluate(verb, group, combined, subresource)
            if (known[0] or known[1]) and len(group) + len(combined) <= _LONGEST_REMEMBERED:
                if len(self._known) >= 1024:
                    self._known.clear()
                self._known[key] = known
        every, names = known
        return every or (bool(names) and name in names)

    def allows_path(self, verb: str, path: str) -> bool:
        return any(verb_matches(rule, verb) and path_matches(rule, path) for rule in self.rules)

    def _evaluate(self, verb: str, group: str, combined: str, subresource: str) -> tuple[bool, frozenset[str]]:
        names: set[str] = set()
        for rule in self.rules:
            if verb_matches(rule, verb) and group_matches(rule, group) and resource_matches(rule, combined, subresource):
                if not rule.get("resourceNames"):
                    return True, frozenset()
                names.update(rule["resourceNames"])
        return False, frozenset(names)
