"""An Ingress that names no class gets the default one.

Owns: DefaultIngressClass. Called by: admission/chain. Source: upstream plugin/pkg/admission/network/defaultingressclass.
"""

from __future__ import annotations

from k1s.api.catalog import builtin
from k1s.client.interface import InformerFactory
from k1s.server.apiserver.admission.default_storage_class import newest_default
from k1s.server.apiserver.admission.step import Step, subresource
from k1s.server.apiserver.attributes import AdmissionRequest

_ANNOTATIONS = ("ingressclass.kubernetes.io/is-default-class",)
_OLD_CLASS = "kubernetes.io/ingress.class"


class DefaultIngressClass(Step):
    resources = frozenset({"ingresses.networking.k8s.io"})
    operations = frozenset({"CREATE"})

    def __init__(self, informers: InformerFactory) -> None:
        self._classes = informers.informer(builtin("IngressClass"))

    async def mutate(self, request: AdmissionRequest) -> None:
        ingress = request.obj
        if ingress is None or subresource(request):
            return
        spec = ingress.setdefault("spec", {})
        if spec.get("ingressClassName") is not None or _OLD_CLASS in (ingress["metadata"].get("annotations") or {}):
            return
        default = newest_default(self._classes, _ANNOTATIONS)
        if default is not None:
            spec["ingressClassName"] = default["metadata"]["name"]
