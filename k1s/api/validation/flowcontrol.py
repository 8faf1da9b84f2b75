"""FlowSchemas and PriorityLevelConfigurations.

Called by: table.py. Never does: limit anything (the apiserver's flow package does).
"""

from __future__ import annotations

import math
from typing import Any

from k1s.api import names
from k1s.api.errors import duplicate, forbidden_field, invalid_value, not_supported, required
from k1s.api.meta import Object
from k1s.api.validation.rules import Errors, same, strings

_MAX_PRECEDENCE, _MAX_QUEUES, _MAX_HASH_BITS = 10000, 10_000_000, 60
_VERBS = frozenset(("get", "list", "create", "update", "delete", "deletecollection", "patch", "watch", "proxy"))
_SUBJECTS = {"ServiceAccount": "serviceAccount", "User": "user", "Group": "group"}
_EVERYBODY = [{"kind": "Group", "group": {"name": f"system:{name}"}} for name in ("unauthenticated", "authenticated")]
_EVERYTHING: Object = {
    "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": True, "namespaces": ["*"]}],
    "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
}
# The objects that the server cannot do without: their specs are fixed, but for the shares of the exempt level.
_SCHEMAS: dict[str, Object] = {
    "exempt": {
        "priorityLevelConfiguration": {"name": "exempt"},
        "matchingPrecedence": 1,
        "rules": [{"subjects": [{"kind": "Group", "group": {"name": "system:masters"}}], **_EVERYTHING}],
    },
    "catch-all": {
        "priorityLevelConfiguration": {"name": "catch-all"},
        "matchingPrecedence": 10000,
        "distinguisherMethod": {"type": "ByUser"},
        "rules": [{"subjects": _EVERYBODY, **_EVERYTHING}],
    },
}
_CATCH_ALL: Object = {
    "type": "Limited",
    "limited": {"nominalConcurrencyShares": 5, "lendablePercent": 0, "limitResponse": {"type": "Reject"}},
}


def _verbs(errs: Errors, at: str, verbs: list[str]) -> None:
    if not verbs:
        errs.append(required(at, "verbs must contain at least one value"))
    elif "*" in verbs:
        if len(verbs) > 1:
            errs.append(invalid_value(at, verbs, "if '*' is present, must not specify other verbs"))
    elif not _VERBS.issuperset(verbs):
        errs.append(not_supported(at, verbs, _VERBS))


def _listed(errs: Errors, at: str, values: list[str], needed: str, others: str) -> None:
    if not values:
        errs.append(required(at, needed))
    elif len(values) > 1 and "*" in values:
        errs.append(invalid_value(at, values, f"if '*' is present, must not specify other {others}"))


def _resource_rule(errs: Errors, at: str, rule: Object) -> None:
    _verbs(errs, f"{at}.verbs", rule.get("verbs") or [])
    needed = "resource rules must supply at least one"
    _listed(errs, f"{at}.apiGroups", rule.get("apiGroups") or [], f"{needed} api group", "api groups")
    _listed(errs, f"{at}.resources", rule.get("resources") or [], f"{needed} resource", "resources")
    spaces = rule.get("namespaces") or []
    if not spaces:
        if not rule.get("clusterScope"):
            text = "resource rules that are not cluster scoped must supply at least one namespace"
            errs.append(required(f"{at}.namespaces", text))
    elif "*" in spaces:
        if len(spaces) > 1:
            text = "if '*' is present, must not specify other namespaces"
            errs.append(invalid_value(f"{at}.namespaces", spaces, text))
    else:
        for index, space in enumerate(spaces):
            intro = "each member of this list must be '*' or a DNS-1123 label; "
            here = f"{at}.namespaces[{index}]"
            errs.extend(invalid_value(here, space, intro + message) for message in names.dns1123_label(space))


def _url_fault(path: str) -> str:
    if not path:
        return "must not be empty"
    if path == "/":
        return ""
    if not path.startswith("/"):
        return "must start with slash"
    if " " in path:
        return "must not contain white-space"
    if "//" in path:
        return "must not contain double slash"
    stars = path.count("*")
    return "wildcard can only do suffix matching" if stars > 1 or (stars and not path.endswith("/*")) else ""


def _path_rule(errs: Errors, at: str, rule: Object) -> None:
    _verbs(errs, f"{at}.verbs", rule.get("verbs") or [])
    urls = rule.get("nonResourceURLs") or []
    here = f"{at}.nonResourceURLs"
    if not urls or "*" in urls:
        _listed(errs, here, urls, "nonResourceURLs must contain at least one value", "non-resource URLs")
        return
    for index, url in enumerate(urls):
        if _url_fault(url):
            errs.append(invalid_value(f"{here}[{index}]", url, _url_fault(url)))


def _subject(errs: Errors, at: str, subject: Object) -> None:
    kind = subject.get("kind") or ""
    if kind not in _SUBJECTS:
        errs.append(not_supported(f"{at}.kind", kind, _SUBJECTS))
        return
    field = _SUBJECTS[kind]
    part: Any = subject.get(field)
    if part is None:
        errs.append(required(f"{at}.{field}", f"{field} is required when subject kind is '{kind}'"))
    else:
        _named(errs, f"{at}.{field}", part, account=kind == "ServiceAccount")
    for other_kind, other in _SUBJECTS.items():
        if other != field and subject.get(other) is not None:
            text = f"{other} is forbidden when subject kind is not '{other_kind}'"
            errs.append(forbidden_field(f"{at}.{other}", text))


def _named(errs: Errors, at: str, part: Object, *, account: bool) -> None:
    name, space = part.get("name") or "", part.get("namespace") or ""
    if not name:
        errs.append(required(f"{at}.name"))
    elif account and name != "*":
        strings(errs, f"{at}.name", name, names.dns1123_subdomain)
    if account and not space:
        errs.append(required(f"{at}.namespace", "must specify namespace for service account"))
    elif account and space != "*":
        strings(errs, f"{at}.namespace", space, names.dns1123_label)


def _rule(errs: Errors, at: str, rule: Object) -> None:
    for index, subject in enumerate(rule.get("subjects") or ()):
        _subject(errs, f"{at}.subjects[{index}]", subject)
    if not rule.get("subjects"):
        errs.append(required(f"{at}.subjects", "subjects must contain at least one value"))
    if not rule.get("resourceRules") and not rule.get("nonResourceRules"):
        errs.append(required(at, "at least one of resourceRules and nonResourceRules has to be non-empty"))
    for index, part in enumerate(rule.get("resourceRules") or ()):
        _resource_rule(errs, f"{at}.resourceRules[{index}]", part)
    for index, part in enumerate(rule.get("nonResourceRules") or ()):
        _path_rule(errs, f"{at}.nonResourceRules[{index}]", part)


def _precedence(errs: Errors, name: str, value: int) -> None:
    at = "spec.matchingPrecedence"
    if value <= 0:
        errs.append(invalid_value(at, value, "must be a positive value"))
    if value > _MAX_PRECEDENCE:
        errs.append(invalid_value(at, value, f"must not be greater than {_MAX_PRECEDENCE}"))
    if value == 1 and name != "exempt":
        errs.append(invalid_value(at, value, "only the schema named 'exempt' may have matchingPrecedence 1"))


def _name(obj: Object) -> str:
    return (obj.get("metadata") or {}).get("name") or ""


def flow_schema(errs: Errors, obj: Object) -> None:
    spec, name = obj.get("spec") or {}, _name(obj)
    _precedence(errs, name, spec.get("matchingPrecedence") or 0)
    method = spec.get("distinguisherMethod")
    if method is not None and method.get("type") not in ("ByNamespace", "ByUser"):
        errs.append(not_supported("spec.distinguisherMethod.type", method, ("ByNamespace", "ByUser")))
    at, level = "spec.priorityLevelConfiguration.name", (spec.get("priorityLevelConfiguration") or {}).get("name")
    if level:
        strings(errs, at, level, names.dns1123_subdomain)
    else:
        errs.append(required(at, "must reference a priority level"))
    for index, rule in enumerate(spec.get("rules") or ()):
        _rule(errs, f"spec.rules[{index}]", rule)
    if name in _SCHEMAS and not same(spec, _SCHEMAS[name]):
        errs.append(invalid_value("spec", spec, f"spec of '{name}' must equal the fixed value"))
    _status(errs, obj)


def _status(errs: Errors, obj: Object) -> None:
    seen: set[str] = set()
    for index, condition in enumerate((obj.get("status") or {}).get("conditions") or ()):
        at, kind = f"status.conditions[{index}].type", condition.get("type") or ""
        if kind in seen:
            errs.append(duplicate(at, kind))
        seen.add(kind)
        if not kind:
            errs.append(required(at, "must not be empty"))


def status(errs: Errors, obj: Object, old: Object) -> None:
    """Of either kind."""
    _status(errs, obj)


def _lending(errs: Errors, at: str, part: Object) -> None:
    shares, lendable = part.get("nominalConcurrencyShares"), part.get("lendablePercent")
    if shares is not None and shares < 0:
        errs.append(invalid_value(f"{at}.nominalConcurrencyShares", shares, "must be a non-negative integer"))
    if lendable is not None and not 0 <= lendable <= 100:
        text = "must be between 0 and 100, inclusive"
        errs.append(invalid_value(f"{at}.lendablePercent", lendable, text))


def _limited(errs: Errors, at: str, part: Object) -> None:
    _lending(errs, at, part)
    limit = part.get("borrowingLimitPercent")
    if limit is not None and limit < 0:
        errs.append(invalid_value(f"{at}.borrowingLimitPercent", limit, "if specified, must be a non-negative integer"))
    here, response = f"{at}.limitResponse", part.get("limitResponse") or {}
    kind, queuing = response.get("type") or "", response.get("queuing")
    if kind == "Reject":
        if queuing is not None:
            text = "must be nil if limited.limitResponse.type is not Limited"
            errs.append(forbidden_field(f"{here}.queuing", text))
    elif kind == "Queue":
        if queuing is None:
            errs.append(required(f"{here}.queuing", "must not be empty if limited.limitResponse.type is Limited"))
        else:
            _queuing(errs, f"{here}.queuing", queuing)
    else:
        errs.append(not_supported(f"{here}.type", kind, ("Queue", "Reject")))


def _entropy(queues: int, hand: int) -> int:
    """Bits of a hash that dealing so many of so many takes (shufflesharding.RequiredEntropyBits)."""
    return math.ceil(sum(math.log2(queues - card) for card in range(hand)))


def _queuing(errs: Errors, at: str, queuing: Object) -> None:
    length, queues, hand = (queuing.get(key) or 0 for key in ("queueLengthLimit", "queues", "handSize"))
    if length <= 0:
        errs.append(invalid_value(f"{at}.queueLengthLimit", length, "must be positive"))
    if queues <= 0:
        errs.append(invalid_value(f"{at}.queues", queues, "must be positive"))
    elif queues > _MAX_QUEUES:
        errs.append(invalid_value(f"{at}.queues", queues, f"must not be greater than {_MAX_QUEUES}"))
    if hand <= 0:
        errs.append(invalid_value(f"{at}.handSize", hand, "must be positive"))
    elif hand > queues:
        errs.append(invalid_value(f"{at}.handSize", hand, f"should not be greater than queues ({queues})"))
    elif hand > _MAX_HASH_BITS or _entropy(queues, hand) > _MAX_HASH_BITS:
        text = f"required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {_MAX_HASH_BITS}"
        errs.append(invalid_value(f"{at}.handSize", hand, text))


def priority_level(errs: Errors, obj: Object) -> None:
    spec, name = obj.get("spec") or {}, _name(obj)
    kind, limited, exempt = spec.get("type") or "", spec.get("limited"), spec.get("exempt")
    if (name == "exempt") != (kind == "Exempt"):
        errs.append(invalid_value("spec.type", kind, "type must be 'Exempt' if and only if name is 'exempt'"))
    if kind == "Exempt":
        if limited is not None:
            errs.append(forbidden_field("spec.limited", "must be nil if the type is not Limited"))
        if exempt is not None:
            _lending(errs, "spec.exempt", exempt)
    elif kind == "Limited":
        if exempt is not None:
            errs.append(forbidden_field("spec.exempt", "must be nil if the type is Limited"))
        if limited is None:
            errs.append(required("spec.limited", "must not be empty when type is Limited"))
        else:
            _limited(errs, "spec.limited", limited)
    else:
        errs.append(not_supported("spec.type", kind, ("Exempt", "Limited")))
    if name == "catch-all" and not same(spec, _CATCH_ALL):
        errs.append(invalid_value("spec", spec, f"spec of '{name}' must equal the fixed value"))
    _status(errs, obj)
