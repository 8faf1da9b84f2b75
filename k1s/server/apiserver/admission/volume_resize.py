"""A claim grows only if its storage class allows it.

Owns: PersistentVolumeClaimResize. Called by: admission/chain. Never does: shrink checks (validation does).
Source: upstream plugin/pkg/admission/storage/persistentvolume/resize.
"""

from __future__ import annotations

from k1s.api import quantity
from k1s.api.catalog import builtin
from k1s.client.interface import InformerFactory, Object
from k1s.server.apiserver.admission.step import Step, refuse, subresource
from k1s.server.apiserver.attributes import AdmissionRequest


class PersistentVolumeClaimResize(Step):
    resources = frozenset({"persistentvolumeclaims"})
    operations = frozenset({"UPDATE"})

    def __init__(self, informers: InformerFactory) -> None:
        self._classes = informers.informer(builtin("StorageClass"))

    async def validate(self, request: AdmissionRequest) -> None:
        if request.obj is None or request.old is None or subresource(request):
            return
        if _size(request.obj) <= _size(request.old):
            return
        if (request.old.get("status") or {}).get("phase") != "Bound":
            raise refuse(request, "Only bound persistent volume claims can be expanded")
        storage_class = self._classes.get(str(request.obj["spec"].get("storageClassName") or ""))
        if storage_class is None or not storage_class.get("allowVolumeExpansion"):
            text = (
                "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"
            )
            raise refuse(request, text)


def _size(claim: Object) -> int:
    requests = (claim["spec"].get("resources") or {}).get("requests") or {}
    return quantity.value(requests.get("storage") or 0)
