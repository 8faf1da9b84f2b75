"""Policy rules in one line each.

    "core, events.k8s.io: events = create update patch"         groups: resources = verbs
    "core: configmaps (cluster-info) = update"                  only the named objects
    "/healthz /version = get"                                   paths instead of resources
    "get list watch" may be written `read`, and all eight ordinary verbs `all`.

Owns: that notation. Called by: the tables beside it. Never does: know a role.
"""

from __future__ import annotations

from typing import Any

Rule = dict[str, Any]

_ALIASES = {
    "read": ("get", "list", "watch"),
    "all": ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"),
}


def rule(text: str) -> Rule:
    """The PolicyRule of one line; lists are sorted, as upstream's are."""
    what, _, verb_text = text.rpartition("=")
    verbs = sorted({v for word in verb_text.split() for v in _ALIASES.get(word, (word,))})
    if what.lstrip().startswith(("/", "*")) and ":" not in what:
        return {"nonResourceURLs": sorted(what.split()), "verbs": verbs}
    groups, _, resources = what.partition(": ")
    out: Rule = {
        "apiGroups": sorted("" if g.strip() == "core" else g.strip() for g in groups.split(",")),
        "resources": sorted(resources.partition("(")[0].split()),
        "verbs": verbs,
    }
    names = resources.partition("(")[2].rstrip(" )").split()
    if names:
        out["resourceNames"] = sorted(names)
    return out


def rules(lines: tuple[str, ...]) -> list[Rule]:
    return [rule(line) for line in lines]
