"""The status of ValidatingAdmissionPolicies: which generation has been looked at, and what its expressions get wrong.

Watches: ValidatingAdmissionPolicies (own key). Never does: refuse a policy (validation does).
Source: pkg/controller/validatingadmissionpolicystatus.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from k1s.api import meta
from k1s.api.catalog import builtin, builtin_catalog
from k1s.api.cel.kind_types import builtin_type, custom_type
from k1s.api.cel.types import Type
from k1s.api.validation.policy_types import expression_warnings
from k1s.client.interface import Object
from k1s.server.controllers.reconciler import Context, Reconciler, Watch

POLICY = builtin("ValidatingAdmissionPolicy")
CRD = builtin("CustomResourceDefinition")


class AdmissionPolicyStatusController(Reconciler):
    name = "validatingadmissionpolicy-status"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.policies, self.definitions = self.cache(POLICY), self.cache(CRD)

    def watches(self) -> Iterable[Watch]:
        # Definitions are only read: a policy is looked at once a generation, as upstream.
        return ((POLICY, self._changed), (CRD, lambda old, new: ()))

    def _changed(self, old: Object | None, new: Object | None) -> Iterable[str]:
        return [meta.name(new)] if new is not None else []

    async def reconcile(self, key: str) -> float | None:
        policy = self.policies.get(key)
        if policy is None:
            return None
        generation = policy["metadata"].get("generation") or 1
        status = policy.get("status") or {}
        if status.get("observedGeneration") != generation or "typeChecking" not in status:
            warnings = expression_warnings(policy, self._type, self._params(policy))
            found: Object = {"expressionWarnings": warnings} if warnings else {"expressionWarnings": None}
            change: Object = {"status": {"observedGeneration": generation, "typeChecking": found}}
            await self.client.patch(POLICY, key, "", change, subresource="status")
        return None

    def _type(self, group: str, version: str, plural: str) -> tuple[str, Type] | None:
        resource = builtin_catalog().by_plural(group, version, plural)
        if resource is not None:
            try:
                return resource.kind, builtin_type(group, version, resource.kind)
            except KeyError:
                return None
        return self._custom(group, version, lambda names: bool(names.get("plural") == plural))

    def _custom(self, group: str, version: str, wanted: Callable[[Object], bool]) -> tuple[str, Type] | None:
        for crd in self.definitions.list():
            spec = crd["spec"]
            if spec.get("group") != group or not wanted(spec.get("names") or {}):
                continue
            for entry in spec.get("versions") or ():
                schema = (entry.get("schema") or {}).get("openAPIV3Schema")
                if entry.get("name") == version and schema:
                    kind = spec["names"]["kind"]
                    return kind, custom_type(kind, schema)
        return None

    def _params(self, policy: Object) -> Type | None:
        param = policy["spec"].get("paramKind") or {}
        group, _, version = str(param.get("apiVersion") or "").rpartition("/")
        kind = param.get("kind") or ""
        try:
            return builtin_type(group, version, kind) if kind else None
        except KeyError:
            found = self._custom(group, version, lambda names: bool(names.get("kind") == kind))
            return found[1] if found is not None else None
