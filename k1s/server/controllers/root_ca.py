"""Root CA: every namespace has a ConfigMap kube-root-ca.crt, so that pods can verify the API server.

Watches: Namespaces (own key), ConfigMaps (the namespace, when its copy is changed or goes).
"""

from __future__ import annotations

from collections.abc import Iterable

from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.client.interface import Object
from k1s.server.controllers import keys
from k1s.server.controllers.pods import namespace_is_terminating
from k1s.server.controllers.reconciler import Context, Reconciler, Watch
from k1s.server.controllers.service_account import is_active, woken_by_loss

NAMESPACE, CONFIG_MAP = builtin("Namespace"), builtin("ConfigMap")
NAME = "kube-root-ca.crt"
DESCRIPTION = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal "
    "service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters."
)


def wanted(namespace: str, bundle: str) -> Object:
    annotations = {"kubernetes.io/description": DESCRIPTION}
    return {"metadata": {"name": NAME, "namespace": namespace, "annotations": annotations}, "data": {"ca.crt": bundle}}


class RootCaController(Reconciler):
    name = "root-ca-cert-publisher"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.namespaces, self.config_maps = self.cache(NAMESPACE), self.cache(CONFIG_MAP)

    def watches(self) -> Iterable[Watch]:
        return (
            (NAMESPACE, keys.own_key_unless_deleted),
            (CONFIG_MAP, lambda old, new: woken_by_loss(NAME, old, new)),
        )

    async def reconcile(self, key: str) -> float | None:
        if not self.config.ca_bundle or not is_active(self.namespaces.get(key)):
            return None
        new = wanted(key, self.config.ca_bundle)
        old = self.config_maps.get(NAME, key)
        try:
            if old is None:
                await self.client.create(CONFIG_MAP, new)
            elif old.get("data") != new["data"]:
                await self.client.update(CONFIG_MAP, {**old, "data": new["data"]})
        except ApiError as error:
            if error.reason not in ("AlreadyExists", "NotFound") and not namespace_is_terminating(error):
                raise
        return None
