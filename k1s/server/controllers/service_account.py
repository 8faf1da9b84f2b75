"""ServiceAccount: every namespace has one named default.

Watches: Namespaces (own key), ServiceAccounts (the namespace, when its default one goes).
"""

from __future__ import annotations

from collections.abc import Iterable

from k1s.api import meta
from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.client.interface import Object
from k1s.server.controllers import keys
from k1s.server.controllers.pods import namespace_is_terminating
from k1s.server.controllers.reconciler import Context, Reconciler, Watch

NAMESPACE, SERVICE_ACCOUNT = builtin("Namespace"), builtin("ServiceAccount")
DEFAULT = "default"


def is_active(namespace: Object | None) -> bool:
    """Things may be created in it."""
    return (
        namespace is not None
        and (namespace.get("status") or {}).get("phase") != "Terminating"
        and not meta.is_deleting(namespace)
    )


def woken_by_loss(name: str, old: Object | None, new: Object | None) -> Iterable[str]:
    """The namespace of an object of that name that was changed or deleted."""
    return (meta.namespace(old),) if old is not None and meta.name(old) == name else ()


class ServiceAccountController(Reconciler):
    name = "serviceaccount"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.namespaces, self.accounts = self.cache(NAMESPACE), self.cache(SERVICE_ACCOUNT)

    def watches(self) -> Iterable[Watch]:
        return (
            (NAMESPACE, keys.own_key_unless_deleted),
            (SERVICE_ACCOUNT, lambda old, new: woken_by_loss(DEFAULT, old, new) if new is None else ()),
        )

    async def reconcile(self, key: str) -> float | None:
        if not is_active(self.namespaces.get(key)) or self.accounts.get(DEFAULT, key) is not None:
            return None
        try:
            await self.client.create(SERVICE_ACCOUNT, {"metadata": {"name": DEFAULT, "namespace": key}})
        except ApiError as error:
            if error.reason != "AlreadyExists" and not namespace_is_terminating(error):
                raise
        return None
