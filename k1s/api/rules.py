"""RBAC policy rules as sets of rights: what covers what, and the union that an aggregated role is.

Owns: `missing_rules`, `missing_rights`, `count_rights`, `aggregated_rules`.
Called by: server/bootstrap, the aggregation controller, checks of escalation.
Never does: decide a request (server/apiserver/authz). Source: upstream component-helpers/auth/rbac/validation (Covers).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import Any

from k1s.api.selectors import labels_from

Rule = dict[str, Any]
Object = dict[str, Any]


def missing_rules(owned: Sequence[Rule], wanted: Iterable[Rule]) -> list[Rule]:
    """Those single rights in `wanted` that `owned` does not grant, whole rules where none of their rights is granted."""
    out: list[Rule] = []
    for rule in wanted:
        parts = list(_atoms(rule))
        absent = [atom for atom in parts if not any(_covers(own, atom) for own in owned)]
        out.extend([rule] if len(absent) == len(parts) and absent else absent)
    return out


def missing_rights(owned: Sequence[Rule], wanted: Iterable[Rule]) -> list[Rule]:
    """Every single right in `wanted` that `owned` does not grant, those on one resource together (upstream's CompactRules)."""
    out: list[Rule] = []
    known: dict[tuple[str, str], Rule] = {}
    for rule in wanted:
        for atom in _atoms(rule):
            if any(_covers(own, atom) for own in owned):
                continue
            if "nonResourceURLs" in atom or "resourceNames" in atom:
                out.append(atom)
                continue
            key = (atom["apiGroups"][0], atom["resources"][0])
            if key not in known:
                known[key] = atom
                out.append(atom)
            elif atom["verbs"][0] not in known[key]["verbs"]:
                known[key]["verbs"].append(atom["verbs"][0])
    return out


def count_rights(rules: Iterable[Rule]) -> int:
    """How many single rights are in rules; a few lists of a thousand words each make a milliard."""
    total = 0
    for rule in rules:
        verbs, paths, groups, resources, names = (
            len(rule.get(key) or ()) for key in ("verbs", "nonResourceURLs", "apiGroups", "resources", "resourceNames")
        )
        total += verbs * (paths + groups * resources * (names or 1))
    return total


def aggregated_rules(role: Object, cluster_roles: Iterable[Object]) -> list[Rule]:
    """The rules an aggregated ClusterRole should have: those of every role that one of its selectors picks, by name."""
    selectors = [labels_from(s) for s in (role.get("aggregationRule") or {}).get("clusterRoleSelectors") or ()]
    own = role["metadata"]["name"]
    rules: list[Rule] = []
    for other in sorted(cluster_roles, key=lambda r: str(r["metadata"]["name"])):
        picked = any(s.matches(other["metadata"].get("labels") or {}) for s in selectors)
        if picked and other["metadata"]["name"] != own:
            rules.extend(rule for rule in other.get("rules") or () if rule not in rules)
    return rules


def _atoms(rule: Rule) -> Iterator[Rule]:
    """The rule taken apart into single rights."""
    verbs = rule.get("verbs") or ()
    for verb, path in product(verbs, rule.get("nonResourceURLs") or ()):
        yield {"verbs": [verb], "nonResourceURLs": [path]}
    for verb, group, resource in product(verbs, rule.get("apiGroups") or (), rule.get("resources") or ()):
        atom = {"verbs": [verb], "apiGroups": [group], "resources": [resource]}
        names = rule.get("resourceNames") or ()
        if not names:
            yield atom
        for name in names:
            yield {**atom, "resourceNames": [name]}


def _covers(owned: Rule, atom: Rule) -> bool:
    if not _has(owned, "verbs", atom["verbs"][0]):
        return False
    if "nonResourceURLs" in atom:
        path = atom["nonResourceURLs"][0]
        return any(_path_covers(pattern, path) for pattern in owned.get("nonResourceURLs") or ())
    if not _has(owned, "apiGroups", atom["apiGroups"][0]):
        return False
    resource = atom["resources"][0]
    resources = owned.get("resources") or ()
    subresource = resource.partition("/")[2]
    if not ("*" in resources or resource in resources or (subresource and f"*/{subresource}" in resources)):
        return False
    names = owned.get("resourceNames") or ()
    return not names or (bool(atom.get("resourceNames")) and atom["resourceNames"][0] in names)


def _path_covers(pattern: str, path: str) -> bool:
    return pattern in ("*", path) or (pattern.endswith("*") and path.startswith(pattern.rstrip("*")))


def _has(rule: Rule, key: str, value: str) -> bool:
    values = rule.get(key) or ()
    return "*" in values or value in values
