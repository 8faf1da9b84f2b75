"""Token cleaner: a join token goes when its time is over.

Watches: Secrets (own key). Never does: poll; the end of the time is a delayed key. Nor does anything hang on it being quick:
server/tokens looks at the time itself. Source: upstream pkg/controller/bootstrap/tokencleaner.
"""

from __future__ import annotations

from collections.abc import Iterable

from k1s.api import bootstrap_token, meta
from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.client.interface import Object
from k1s.server.controllers.reconciler import Context, Reconciler, Watch

SECRET = builtin("Secret")


class TokenCleanerController(Reconciler):
    name = "token-cleaner"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.secrets = self.cache(SECRET)

    def watches(self) -> Iterable[Watch]:
        return ((SECRET, _token),)

    async def reconcile(self, key: str) -> float | None:
        namespace, name = meta.split_key(key)
        secret = self.secrets.get(name, namespace)
        if secret is None or not bootstrap_token.is_token(secret):
            return None
        left = bootstrap_token.seconds_left(secret, self.clock.now())
        if left is None or left > 0:
            return left
        try:
            await self.client.delete(
                SECRET, name, namespace, uid=meta.uid(secret), resource_version=meta.resource_version(secret)
            )
        except ApiError as error:
            if error.code not in (404, 409):
                raise
        return None


def _token(old: Object | None, new: Object | None) -> Iterable[str]:
    return (meta.key(new),) if new is not None and bootstrap_token.is_token(new) else ()
