"""What validating and mutating policies have in common: which are bound to a request, and with which parameters.

Owns: PolicyStep, Misconfigured. Called by: policies, mutating_policies. Never does: evaluate, or act on what is found.
Source: apiserver/pkg/admission/plugin/policy/{generic,matching}.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from k1s.api.catalog import Catalog, Resource, builtin
from k1s.api.errors import ApiError
from k1s.api.selectors import labels_from
from k1s.client.interface import Client, InformerFactory
from k1s.server.apiserver.admission.conditions import Values, values_of
from k1s.server.apiserver.admission.matching import Scope, policy_exempt
from k1s.server.apiserver.admission.step import Step
from k1s.server.apiserver.admission.webhooks.steps import Convert, convert_builtin
from k1s.server.apiserver.attributes import AdmissionRequest
from k1s.server.apiserver.authz.app import Authorizer

Object = Mapping[str, Any]


class Misconfigured(Exception):
    """A policy or a binding cannot be applied to this request. `policy`: the binding is not to blame."""

    def __init__(self, message: str, *, policy: bool = False) -> None:
        super().__init__(f"failed to configure {'policy' if policy else 'binding'}: {message}")
        self.policy = policy


class PolicyStep(Step):
    # ValidatingAdmissionPolicy or MutatingAdmissionPolicy; bindings are called the same with Binding behind.
    kind = ""

    def __init__(
        self,
        client: Client,
        informers: InformerFactory,
        catalog: Catalog,
        authorizer: Authorizer | None = None,
        convert: Convert = convert_builtin,
    ) -> None:
        self._client, self._catalog, self._authorizer, self.convert = client, catalog, authorizer, convert
        self._policies = informers.informer(builtin(self.kind))
        self._bindings = informers.informer(builtin(f"{self.kind}Binding"))
        self._scope = Scope(catalog, informers.informer(builtin("Namespace")))
        self._pairs: tuple[tuple[Object, Object], ...] = ()
        self._stale = True
        self._policies.add_handler(self._changed)
        self._bindings.add_handler(self._changed)

    def _changed(self, old: Object | None, new: Object | None) -> None:
        self._stale = True

    def _bound(self) -> tuple[tuple[Object, Object], ...]:
        if self._stale:
            pairs = []
            for binding in self._bindings.list():
                policy = self._policies.get(binding["spec"].get("policyName") or "")
                if policy is not None:
                    pairs.append((policy, binding))
            self._pairs = tuple(sorted(pairs, key=lambda pair: (pair[0]["metadata"]["name"], pair[1]["metadata"]["name"])))
            self._stale = False
        return self._pairs

    def concerned(self, request: AdmissionRequest) -> Iterator[tuple[Object, Object, Resource]]:
        """The policies and bindings for a request, with the version they want the object in."""
        pairs = self._bound()
        if not pairs or policy_exempt(request):
            return
        for policy, binding in pairs:
            row = self._scope.matches(policy["spec"].get("matchConstraints") or {}, request)
            if row is not None and self._narrowed(policy, binding, request):
                yield policy, binding, row

    def _narrowed(self, policy: Object, binding: Object, request: AdmissionRequest) -> bool:
        narrower = binding["spec"].get("matchResources")
        if not narrower:
            return True
        if not narrower.get("resourceRules"):
            # No rules narrow nothing; what is excluded and the selectors do.
            every = {"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}
            narrower = {**narrower, "resourceRules": [every]}
        return self._scope.matches(narrower, request) is not None

    async def values(self, request: AdmissionRequest, row: Resource) -> Values:
        values = values_of(request, row, self._scope.namespace(request), authorizer=self._authorizer)
        obj, old = await self._in_version(request, request.obj, row), await self._in_version(request, request.old, row)
        return values.having(object=obj, oldObject=old)

    async def _in_version(self, request: AdmissionRequest, obj: dict[str, Any] | None, row: Resource) -> Object | None:
        # What a subresource takes (a Scale, an Eviction) has one version only.
        stored = self.stored(request.resource)
        if obj is None or obj.get("kind") != stored.kind or obj.get("apiVersion") == row.api_version:
            return obj
        return await self.convert(obj, stored, row)

    def stored(self, resource: Resource) -> Resource:
        found = None
        if resource.storage_version:
            plural = resource.storage_plural or resource.plural
            found = self._catalog.by_plural(resource.stored_group, resource.storage_version, plural)
        return found if found is not None else resource

    async def params(self, policy: Object, binding: Object, request: AdmissionRequest) -> list[Any]:
        """The parameter objects, one None if the policy takes none. Raises Misconfigured."""
        kind, ref = policy["spec"].get("paramKind"), binding["spec"].get("paramRef")
        if not kind or not ref:
            return [None]
        row = self._catalog.by_api_version(kind["apiVersion"], kind["kind"])
        if row is None:
            version = kind["apiVersion"] if "/" in kind["apiVersion"] else f"/{kind['apiVersion']}"
            named = f"{version}, Kind={kind['kind']}"
            raise Misconfigured(f"failed to find resource referenced by paramKind: '{named}'", policy=True)
        namespace = ref.get("namespace") or ""
        if not row.namespaced and namespace:
            raise Misconfigured("paramRef.namespace must not be provided for a cluster-scoped `paramKind`")
        if row.namespaced and not namespace:
            namespace = request.namespace
            if not namespace:
                raise Misconfigured("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources")
        found = await self._find(row, ref, namespace)
        if not found and ref.get("parameterNotFoundAction") != "Allow":
            raise Misconfigured("no params found for policy binding with `Deny` parameterNotFoundAction")
        return found

    async def _find(self, row: Resource, ref: Object, namespace: str) -> list[Any]:
        if not ref.get("name"):
            return list(await self._client.list(row, namespace, label_selector=str(labels_from(dict(ref.get("selector") or {})))))
        try:
            return [await self._client.get(row, ref["name"], namespace)]
        except ApiError as error:
            if error.code != 404:
                raise
            return []
