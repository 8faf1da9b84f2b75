"""Nothing is created in a namespace that is not there or is going; the system's namespaces do not go.

Owns: NamespaceLifecycle. Called by: admission/chain. Never does: empty a namespace (its controller does).
Source: upstream plugin/pkg/admission/namespace/lifecycle.
"""

from __future__ import annotations

from k1s.api.catalog import builtin
from k1s.client.interface import Client, InformerFactory
from k1s.server.apiserver.admission.step import Step, refuse
from k1s.server.apiserver.attributes import AdmissionRequest

IMMORTAL = ("default", "kube-system", "kube-public")
# Asking whether one may do something in a namespace must work before and after its life.
_EXEMPT = ("localsubjectaccessreviews.authorization.k8s.io",)


class NamespaceLifecycle(Step):
    operations = frozenset({"CREATE", "DELETE"})

    def __init__(self, client: Client, informers: InformerFactory) -> None:
        self._client = client
        self._namespaces = informers.informer(builtin("Namespace"))

    async def mutate(self, request: AdmissionRequest) -> None:
        if request.operation == "DELETE":
            if request.resource.qualified == "namespaces" and request.name in IMMORTAL:
                raise refuse(request, "this namespace may not be deleted")
            return
        if not request.namespace or not request.resource.namespaced or request.resource.qualified in _EXEMPT:
            return
        namespace = self._namespaces.get(request.namespace)
        if namespace is None:
            # The informer may lag behind a namespace that was made a moment ago; this answers 404 if it really is absent.
            namespace = await self._client.get(self._namespaces.resource, request.namespace)
        if namespace["metadata"].get("deletionTimestamp") or (namespace.get("status") or {}).get("phase") == "Terminating":
            error = refuse(
                request, f"unable to create new content in namespace {request.namespace} because it is being terminated"
            )
            cause = {
                "reason": "NamespaceTerminating",
                "message": f"namespace {request.namespace} is being terminated",
                "field": "metadata.namespace",
            }
            error.details = {**(error.details or {}), "causes": [cause]}
            raise error

    async def validate(self, request: AdmissionRequest) -> None:
        # Deletions have no mutating phase.
        if request.operation == "DELETE":
            await self.mutate(request)
