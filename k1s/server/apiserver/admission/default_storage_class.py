"""A claim that names no storage class gets the default one.

Owns: DefaultStorageClass. Called by: admission/chain. Source: upstream plugin/pkg/admission/storage/storageclass/setdefault.
"""

from __future__ import annotations

from k1s.api.catalog import builtin
from k1s.client.interface import Informer, InformerFactory, Object
from k1s.server.apiserver.admission.step import Step, subresource
from k1s.server.apiserver.attributes import AdmissionRequest

_ANNOTATIONS = ("storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class")
_BETA_CLASS = "volume.beta.kubernetes.io/storage-class"


class DefaultStorageClass(Step):
    resources = frozenset({"persistentvolumeclaims"})
    operations = frozenset({"CREATE"})

    def __init__(self, informers: InformerFactory) -> None:
        self._classes = informers.informer(builtin("StorageClass"))

    async def mutate(self, request: AdmissionRequest) -> None:
        claim = request.obj
        if claim is None or subresource(request):
            return
        # An empty name is a choice too: no class.
        if claim["spec"].get("storageClassName") is not None or _BETA_CLASS in (claim["metadata"].get("annotations") or {}):
            return
        default = newest_default(self._classes, _ANNOTATIONS)
        if default is not None:
            claim["spec"]["storageClassName"] = default["metadata"]["name"]


def newest_default(classes: Informer, annotations: tuple[str, ...]) -> Object | None:
    """The class marked as default; of several the newest, of equally old ones the first by name."""
    marked = [c for c in classes.list() if any((c["metadata"].get("annotations") or {}).get(a) == "true" for a in annotations)]
    marked.sort(key=lambda c: str(c["metadata"]["name"]))
    return max(marked, key=lambda c: str(c["metadata"].get("creationTimestamp") or ""), default=None)
