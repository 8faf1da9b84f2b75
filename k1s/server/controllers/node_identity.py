"""Node identity: a node's name is taken from its key when its Node goes, which shuts the machine out and frees the name.

Watches: Nodes and the records (the node's name). Never does: make records (server/join).

A machine that has joined but not registered has a record and no Node. So the record remembers the Node once there is one: only
one whose Node was there and has gone is freed. It stays for a while, since only a server that remembers the key tells its machine
to end its pods (api/node_identity).
"""

from __future__ import annotations

from collections.abc import Iterable

from k1s.api import meta, node_identity
from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.client.interface import Object
from k1s.server.controllers import keys
from k1s.server.controllers.reconciler import Context, Reconciler, Watch

NODE, SECRET = builtin("Node"), builtin("Secret")


class NodeIdentityController(Reconciler):
    name = "node-identity"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.nodes, self.secrets = self.cache(NODE), self.cache(SECRET)

    def watches(self) -> Iterable[Watch]:
        return ((NODE, keys.own_key), (SECRET, _recorded))

    async def reconcile(self, key: str) -> float | None:
        record = self.secrets.get(node_identity.record_name(key), node_identity.NAMESPACE)
        if record is None or node_identity.node_of(record) != key:
            return None
        node, known = self.nodes.get(key), node_identity.node_uid(record)
        try:
            if not node_identity.fingerprint_of(record):
                return await self._expire(record)
            if node is None and known:
                await self._free(record)
            elif node is not None and meta.uid(node) != known:
                await self._remember(record, meta.uid(node))
        except ApiError as error:
            if error.code not in (404, 409):  # it has changed meanwhile, which wakes this key again
                raise
        return None

    async def _free(self, record: Object) -> None:
        patch = node_identity.freed(record, self.clock.now())
        await self.client.patch(SECRET, meta.name(record), meta.namespace(record), patch)

    async def _expire(self, record: Object) -> float | None:
        left = node_identity.seconds_kept(record, self.clock.now())
        if left > 0:
            return left
        await self.client.delete(
            SECRET,
            meta.name(record),
            meta.namespace(record),
            uid=meta.uid(record),
            resource_version=meta.resource_version(record),
        )
        return None

    async def _remember(self, record: Object, uid: str) -> None:
        data = node_identity.record_data(node_identity.fingerprint_of(record), uid)
        patch = {"metadata": {"resourceVersion": meta.resource_version(record)}, "data": data}
        await self.client.patch(SECRET, meta.name(record), meta.namespace(record), patch)


def _recorded(old: Object | None, new: Object | None) -> Iterable[str]:
    name = node_identity.node_of(new) if new is not None else ""
    return (name,) if name else ()
