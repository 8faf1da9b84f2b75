"""Whether a rule of a webhook or an admission policy speaks of a request, and in which version it wants the object.

Owns: Scope. Called by: webhooks, policies. Never does: I/O, conversion.
Source: apiserver/pkg/admission/plugin/webhook/{rules,predicates}.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from k1s.api.catalog import Catalog, Resource
from k1s.api.selectors import labels_from
from k1s.client.interface import Informer
from k1s.server.apiserver.attributes import AdmissionRequest

Object = Mapping[str, Any]

_GROUP = "admissionregistration.k8s.io"
# Nothing may stand in the way of repairing what stands in the way.
_EXEMPT = (
    "mutatingwebhookconfigurations",
    "validatingwebhookconfigurations",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
)


def exempt(request: AdmissionRequest) -> bool:
    """What webhooks are not asked about."""
    return request.resource.group == _GROUP and request.resource.plural in _EXEMPT


def policy_exempt(request: AdmissionRequest) -> bool:
    """What policies do not see; webhook configurations they do."""
    return request.resource.group == _GROUP and request.resource.plural in _EXEMPT[2:]


class Scope:
    """Answers for one server: which versions there are, which labels a namespace has."""

    def __init__(self, catalog: Catalog, namespaces: Informer) -> None:
        self._catalog, self._namespaces = catalog, namespaces

    def matches(self, hook: Object, request: AdmissionRequest) -> Resource | None:
        """The row in whose version the object is wanted, or None. `hook`: rules (or resourceRules), matchPolicy, selectors."""
        rules = hook.get("rules") if "rules" in hook else hook.get("resourceRules")
        policy = hook.get("matchPolicy") or "Equivalent"
        excluded = hook.get("excludeResourceRules")
        if excluded and self._row(excluded, policy, request) is not None:
            return None
        row = self._row(rules or (), policy, request)
        if row is None or not self._namespace_matches(hook.get("namespaceSelector"), request):
            return None
        return row if _object_matches(hook.get("objectSelector"), request) else None

    def _row(self, rules: Iterable[Object], policy: str, request: AdmissionRequest) -> Resource | None:
        rules = tuple(rules)
        for row in self._versions(request.resource) if policy == "Equivalent" else (request.resource,):
            if any(_rule(rule, request, row) for rule in rules):
                return row
        return None

    def _versions(self, resource: Resource) -> Iterator[Resource]:
        """The resource as asked for, then the same objects in other versions."""
        yield resource
        if resource.storage_version:
            home = (resource.stored_group, resource.storage_plural or resource.plural)
            for row in self._catalog:
                if row is not resource and row.storage_version and (row.stored_group, row.storage_plural or row.plural) == home:
                    yield row

    def namespace(self, request: AdmissionRequest) -> Object | None:
        return self._namespaces.get(request.namespace) if request.namespace else None

    def _namespace_matches(self, selector: Object | None, request: AdmissionRequest) -> bool:
        if not selector:
            return True
        if request.resource.qualified == "namespaces":
            own = request.subresource is None and request.operation in ("CREATE", "UPDATE")
            subject: Object | None = request.obj if own else self._namespaces.get(request.name)
        elif not request.namespace:
            return True
        else:
            subject = self._namespaces.get(request.namespace)
        return labels_from(dict(selector)).matches(_labels(subject))


def _object_matches(selector: Object | None, request: AdmissionRequest) -> bool:
    if not selector:
        return True
    wanted = labels_from(dict(selector))
    return any(subject is not None and wanted.matches(_labels(subject)) for subject in (request.obj, request.old))


def _labels(subject: Object | None) -> Mapping[str, str]:
    return ((subject or {}).get("metadata") or {}).get("labels") or {}


def _rule(rule: Object, request: AdmissionRequest, row: Resource) -> bool:
    scope = rule.get("scope") or "*"
    namespaced = row.namespaced and row.qualified != "namespaces"
    names = rule.get("resourceNames")
    return (
        _in(rule.get("apiGroups"), row.group)
        and _in(rule.get("apiVersions"), row.version)
        and _in(rule.get("operations"), request.operation)
        and (scope == "*" or (scope == "Namespaced") == namespaced)
        and (not names or request.name in names)
        and any(_resource(r, row.plural, request) for r in rule.get("resources") or ())
    )


def _in(values: Iterable[str] | None, value: str) -> bool:
    values = values or ()
    return "*" in values or value in values


def _resource(pattern: str, plural: str, request: AdmissionRequest) -> bool:
    """`pods`, `pods/log`, `pods/*`, `*`, `*/scale`, `*/*`."""
    resource, _, sub = pattern.partition("/")
    asked = request.subresource.name if request.subresource is not None else ""
    return resource in ("*", plural) and (sub == "*" or sub == asked)
