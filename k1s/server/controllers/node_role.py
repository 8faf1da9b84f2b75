"""Node role: the node that runs beside the server is labelled as control plane, which nodes may not do themselves.

Watches: Nodes (that one's own key).
"""

from __future__ import annotations

from collections.abc import Iterable

from k1s.api import meta
from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.server.controllers import keys
from k1s.server.controllers.reconciler import Context, Reconciler, Watch

NODE = builtin("Node")
LABEL = "node-role.kubernetes.io/control-plane"


class NodeRoleController(Reconciler):
    name = "node-role"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.nodes = self.cache(NODE)

    def watches(self) -> Iterable[Watch]:
        return ((NODE, keys.own_key_unless_deleted),)

    async def reconcile(self, key: str) -> float | None:
        node = self.nodes.get(key)
        if key != self.config.control_plane_node or node is None or LABEL in meta.labels(node):
            return None
        try:
            # The value is k3s's; kubectl shows the label as the node's role either way.
            await self.client.patch(NODE, key, "", {"metadata": {"labels": {LABEL: "true"}}})
        except ApiError as error:
            if error.code != 404:
                raise
        return None
