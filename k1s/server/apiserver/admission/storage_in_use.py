"""Claims and volumes carry a finalizer, so that what is in use is not taken away.

Owns: StorageObjectInUseProtection. Called by: admission/chain. Never does: remove it (protection controllers do).
Source: upstream plugin/pkg/admission/storage/storageobjectinuseprotection.
"""

from __future__ import annotations

from k1s.server.apiserver.admission.step import Step, subresource
from k1s.server.apiserver.attributes import AdmissionRequest

FINALIZERS = {
    "persistentvolumeclaims": "kubernetes.io/pvc-protection",
    "persistentvolumes": "kubernetes.io/pv-protection",
    "volumeattributesclasses": "kubernetes.io/vac-protection",
}


class StorageObjectInUseProtection(Step):
    resources = frozenset({"persistentvolumeclaims", "persistentvolumes", "volumeattributesclasses.storage.k8s.io"})
    operations = frozenset({"CREATE"})

    async def mutate(self, request: AdmissionRequest) -> None:
        if request.obj is None or subresource(request):
            return
        meta, finalizer = request.obj["metadata"], FINALIZERS[request.resource.plural]
        present = meta.get("finalizers") or []
        if finalizer not in present:
            meta["finalizers"] = [*present, finalizer]
