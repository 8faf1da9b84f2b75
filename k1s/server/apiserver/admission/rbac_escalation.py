"""Nobody grants what they do not have.

Owns: RbacEscalation. Called by: admission/chain. Never does: authorize the write itself.
Source: upstream pkg/registry/rbac (policybased storage), where the same checks guard roles and bindings.

Roles need every right in them, or the verb `escalate`; bindings need every right of their role, or `bind` on it.
"""

from __future__ import annotations

from k1s.api.errors import not_found
from k1s.api.rules import count_rights, missing_rights
from k1s.client.interface import Object
from k1s.server.apiserver.admission.step import Step, refuse
from k1s.server.apiserver.attributes import AdmissionRequest, RequestInfo, UserInfo
from k1s.server.apiserver.authz.app import MASTERS, Authorizer
from k1s.server.apiserver.authz.rules import Rule

_GROUP = "rbac.authorization.k8s.io"
_EVERYTHING: list[Rule] = [
    {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
    {"nonResourceURLs": ["*"], "verbs": ["*"]},
]
_ROLES = ("roles", "clusterroles")
# Single rights of a role times rules of its author: beyond that the comparison would stop the server for everybody.
MOST_COMPARISONS = 1_000_000


class RbacEscalation(Step):
    resources = frozenset(f"{plural}.{_GROUP}" for plural in (*_ROLES, "rolebindings", "clusterrolebindings"))
    operations = frozenset({"CREATE", "UPDATE"})

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    async def validate(self, request: AdmissionRequest) -> None:
        if request.obj is None or MASTERS in request.user.groups:
            return
        if request.resource.plural in _ROLES:
            await self._check_role(request, request.obj)
        else:
            await self._check_binding(request, request.obj)

    async def _check_role(self, request: AdmissionRequest, role: Object) -> None:
        # Labels count, too: by one a role becomes part of those that aggregate it.
        if request.old is not None and _only_for_garbage_collection(role, request.old):
            return
        if await self._may(request.user, "escalate", request.resource.plural, request.namespace, request.name):
            return
        if role.get("aggregationRule") or (request.old or {}).get("aggregationRule"):
            # Whatever comes to match its selectors will be granted: that needs everything.
            owned, _ = self._authorizer.rbac.rules_for(request.user, request.namespace)
            if missing_rights(owned, _EVERYTHING):
                raise refuse(request, "must have cluster-admin privileges to use the aggregationRule")
        self._check_rights(request, list(role.get("rules") or []))

    async def _check_binding(self, request: AdmissionRequest, binding: Object) -> None:
        if request.old is not None and _only_for_garbage_collection(binding, request.old):
            return
        reference = binding.get("roleRef") or {}
        plural = "clusterroles" if reference.get("kind") == "ClusterRole" else "roles"
        if await self._may(request.user, "bind", plural, request.namespace, str(reference.get("name"))):
            return
        rules = self._authorizer.rbac.role_rules(reference, request.namespace)
        if rules is None:
            raise not_found(plural, _GROUP, str(reference.get("name")))
        self._check_rights(request, list(rules))

    def _check_rights(self, request: AdmissionRequest, wanted: list[Rule]) -> None:
        owned, errors = self._authorizer.rbac.rules_for(request.user, request.namespace)
        count = count_rights(wanted)
        if count * (len(owned) + 1) > MOST_COMPARISONS:
            raise refuse(request, f"{count} single rights in its rules are too many to be compared with those of the user")
        missing = missing_rights(owned, wanted)
        if not missing:
            return
        user = request.user
        groups = " ".join(f'"{g}"' for g in user.groups)
        text = f'user "{user.name}" (groups=[{groups}]) is attempting to grant RBAC permissions not currently held:\n'
        text += "\n".join(sorted({_described(rule) for rule in missing}))
        if errors:
            text += f"; resolution errors: [{' '.join(errors)}]"
        raise refuse(request, text)

    async def _may(self, user: UserInfo, verb: str, plural: str, namespace: str, name: str) -> bool:
        info = RequestInfo(True, "", verb, _GROUP, "*", plural, "", namespace, name)
        return (await self._authorizer.allowed(user, info))[0]


def _only_for_garbage_collection(new: Object, old: Object) -> bool:
    """Whether nothing but owners and finalizers differs: without a right one must still be able to finish a deletion."""

    def rest(obj: Object) -> Object:
        gone = ("ownerReferences", "finalizers", "managedFields", "resourceVersion", "generation")
        meta = {key: value for key, value in obj["metadata"].items() if key not in gone}
        return {**obj, "metadata": meta}

    return rest(new) == rest(old)


def _described(rule: Rule) -> str:
    """As upstream prints a rule: {APIGroups:[""], Resources:["pods"], Verbs:["get"]}."""
    names = (
        ("APIGroups", "apiGroups"),
        ("Resources", "resources"),
        ("NonResourceURLs", "nonResourceURLs"),
        ("ResourceNames", "resourceNames"),
        ("Verbs", "verbs"),
    )
    parts = [f"{label}:[" + " ".join(f'"{v}"' for v in rule[key]) + "]" for label, key in names if rule.get(key)]
    return "{" + ", ".join(parts) + "}"
