"""Nobody grants what they do not have.

Owns: RbacEscalation. Called by: admission/chain. Never does: authorize the write itself.
Source: upstream pkg/registry/rbac (policybased storage), where the same checks guard roles and bindings.

Roles need every right in them, or the verb `escalate`; bindings need every right of their role, or `bind` on it.
"""

from __future__ import annotations

from k1s.api.rules import missing_rules
from k1s.client.interface import Object
from k1s.server.apiserver.admission.step import Step, refuse
from k1s.server.apiserver.attributes import AdmissionRequest, RequestInfo, UserInfo
from k1s.server.apiserver.authz.app import MASTERS, Authorizer
from k1s.server.apiserver.authz.rules import Rule

_GROUP = "rbac.authorization.k8s.io"
_ROLES = ("roles", "clusterroles")


class RbacEscalation(Step):
    resources = frozenset(f"{plural}.{_GROUP}" for plural in (*_ROLES, "rolebindings", "clusterrolebindings"))
    operations = frozenset({"CREATE", "UPDATE"})

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    async def validate(self, request: AdmissionRequest) -> None:
        if request.obj is None or MASTERS in request.user.groups:
            return
        if request.resource.plural in _ROLES:
            self._check_role(request, request.obj)
        else:
            self._check_binding(request, request.obj)

    def _check_role(self, request: AdmissionRequest, role: Object) -> None:
        old = request.old or {}
        # What only touches metadata grants nothing.
        if request.old is not None and all(role.get(k) == old.get(k) for k in ("rules", "aggregationRule")):
            return
        if self._may(request.user, "escalate", request.resource.plural, request.namespace, request.name):
            return
        wanted: list[Rule] = list(role.get("rules") or [])
        if role.get("aggregationRule"):
            # Whatever comes to match its selectors will be granted: that needs everything.
            wanted = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}, {"nonResourceURLs": ["*"], "verbs": ["*"]}]
        self._check_rights(request, wanted)

    def _check_binding(self, request: AdmissionRequest, binding: Object) -> None:
        old = request.old or {}
        if request.old is not None and all(binding.get(k) == old.get(k) for k in ("roleRef", "subjects")):
            return
        reference = binding.get("roleRef") or {}
        plural = "clusterroles" if reference.get("kind") == "ClusterRole" else "roles"
        if self._may(request.user, "bind", plural, request.namespace, str(reference.get("name"))):
            return
        rules = self._authorizer.rbac.role_rules(reference, request.namespace)
        if rules is None:
            kind = str(reference.get("kind")).lower()
            raise refuse(request, f'{kind}.{_GROUP} "{reference.get("name")}" not found')
        self._check_rights(request, list(rules))

    def _check_rights(self, request: AdmissionRequest, wanted: list[Rule]) -> None:
        owned, _ = self._authorizer.rbac.rules_for(request.user, request.namespace)
        missing = missing_rules(owned, wanted)
        if not missing:
            return
        user = request.user
        groups = " ".join(f'"{g}"' for g in user.groups)
        text = f'user "{user.name}" (groups=[{groups}]) is attempting to grant RBAC permissions not currently held:\n'
        raise refuse(request, text + "\n".join(sorted(_described(rule) for rule in missing)))

    def _may(self, user: UserInfo, verb: str, plural: str, namespace: str, name: str) -> bool:
        return self._authorizer.decide(user, RequestInfo(True, "", verb, _GROUP, "*", plural, "", namespace, name))[0]


def _described(rule: Rule) -> str:
    """As upstream prints a rule: {APIGroups:[""], Resources:["pods"], Verbs:["get"]}."""
    names = (
        ("APIGroups", "apiGroups"),
        ("Resources", "resources"),
        ("ResourceNames", "resourceNames"),
        ("NonResourceURLs", "nonResourceURLs"),
        ("Verbs", "verbs"),
    )
    parts = [f"{label}:[" + " ".join(f'"{v}"' for v in rule[key]) + "]" for label, key in names if rule.get(key)]
    return "{" + ", ".join(parts) + "}"
