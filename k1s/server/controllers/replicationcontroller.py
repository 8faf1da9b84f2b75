"""ReplicationController: the older ReplicaSet.

Watches, plan and reconcile: those of replicaset.py; only the selector differs (a plain map of labels).
"""

from __future__ import annotations

from k1s.api.catalog import builtin
from k1s.api.selectors import LabelSelector, labels_from
from k1s.client.interface import Object
from k1s.server.controllers.replicaset import ReplicaController


class ReplicationControllerController(ReplicaController):
    name = "replicationcontroller"
    resource = builtin("ReplicationController")

    def selector(self, owner: Object) -> LabelSelector:
        labels = owner["spec"].get("selector")
        return labels_from({"matchLabels": labels} if labels else None)
