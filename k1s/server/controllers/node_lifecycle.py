"""Node lifecycle: a node that stops renewing its lease is Unknown; conditions become taints.

Watches: Leases of kube-node-lease (they only note that the node lives), Nodes (own key).
Owns: `judge` (pure). Never does: delete pods (taint_eviction does, from the NoExecute taints put on here).

Time is counted on the monotonic clock from when a renewal was seen, never from timestamps in objects: a wrong or jumping wall
clock makes no node unhealthy. If this process itself was stopped (a suspended machine, a stalled disk), every node gets its
grace again. If no node is healthy, or most are not, the fault is more likely ours than theirs: nothing is evicted.
Source: upstream pkg/controller/nodelifecycle.
"""

from __future__ import annotations

from collections.abc import Iterable

from k1s.api import meta
from k1s.api.catalog import builtin
from k1s.api.clone import clone
from k1s.api.errors import ApiError
from k1s.client.interface import Object
from k1s.server.controllers import nodes
from k1s.server.controllers.reconciler import Context, Reconciler, Watch

NODE, LEASE, POD = builtin("Node"), builtin("Lease"), builtin("Pod")
LEASE_NAMESPACE = "kube-node-lease"
CONDITIONS = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
# A check that comes this much later than planned means that we were stopped, not the nodes.
STALL_SECONDS = 10.0
# Above this share of unhealthy nodes (and more than two) nothing is evicted.
UNHEALTHY_SHARE = 0.55


def judge(node: Object, stamp: str) -> Object | None:
    """The node's status once it has been silent for too long; None if it says so already."""
    conditions: list[Object] = clone(meta.conditions(node))
    changed = False
    for kind in CONDITIONS:
        found = next((c for c in conditions if c["type"] == kind), None)
        if found is None:
            reason, text = "NodeStatusNeverUpdated", "Kubelet never posted node status."
        else:
            reason, text = "NodeStatusUnknown", "Kubelet stopped posting node status."
        if found is None or found["status"] != "Unknown":
            meta.set_condition(conditions, {"type": kind, "status": "Unknown", "reason": reason, "message": text}, stamp)
            changed = True
    return {**(node.get("status") or {}), "conditions": conditions} if changed else None


def may_evict(all_nodes: Iterable[Object]) -> bool:
    """Enough nodes are healthy to believe that those that are not are really gone."""
    healthy = [nodes.ready_status(node) == "True" for node in all_nodes]
    sick = healthy.count(False)
    if not any(healthy):
        return False
    return not (sick > 2 and sick / len(healthy) >= UNHEALTHY_SHARE)


class NodeLifecycleController(Reconciler):
    name = "node-lifecycle"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.nodes, self.leases, self.pods = self.cache(NODE), self.cache(LEASE), self.cache(POD)
        nodes.index_by_node(self.pods)
        # When each node last gave a sign of life (monotonic), and when we planned to look again.
        self._seen: dict[str, float] = {}
        self._planned: dict[str, float] = {}
        self._may_evict = True

    def watches(self) -> Iterable[Watch]:
        return ((LEASE, self._lease_changed), (NODE, self._node_changed))

    def _lease_changed(self, old: Object | None, new: Object | None) -> Iterable[str]:
        if new is not None and meta.namespace(new) == LEASE_NAMESPACE:
            self._seen[meta.name(new)] = self.clock.monotonic()
        return ()

    def _node_changed(self, old: Object | None, new: Object | None) -> Iterable[str]:
        if new is None:
            name = meta.name(old or {})
            self._seen.pop(name, None)
            self._planned.pop(name, None)
            return self._all_if_disruption_changed()
        if old is None or _heartbeat(old) != _heartbeat(new):
            self._seen[meta.name(new)] = self.clock.monotonic()
        if old is not None and _relevant(old) == _relevant(new):
            return ()
        return {meta.name(new), *self._all_if_disruption_changed()}

    def _all_if_disruption_changed(self) -> Iterable[str]:
        """When evictions are stopped or allowed again every node's taints are to be looked at."""
        before, self._may_evict = self._may_evict, may_evict(self.nodes.list())
        return [meta.name(n) for n in self.nodes.list()] if before != self._may_evict else ()

    async def reconcile(self, key: str) -> float | None:
        node = self.nodes.get(key)
        if node is None:
            return None
        now = self.clock.monotonic()
        planned = self._planned.pop(key, None)
        if planned is not None and now - planned > STALL_SECONDS:
            self._seen = dict.fromkeys(self._seen, now)
        left = self._seen.setdefault(key, now) + self.config.node_monitor_grace - now
        if left <= 0:
            node = await self._silent(node)
        self._may_evict = may_evict(self.nodes.list())
        taints = nodes.wanted_taints(node, evict=self._may_evict, stamp=self.stamp())
        if taints != nodes.taints_of(node):
            patch = {"metadata": {"resourceVersion": meta.resource_version(node)}, "spec": {"taints": taints}}
            await self.client.patch(NODE, key, "", patch)
        # A node that says itself that it is not ready still speaks for its pods.
        if nodes.ready_status(node) == "Unknown":
            await self._mark_pods_not_ready(key)
        # A silent node is looked at again when it renews its lease and posts its status; the timer only finds new silence.
        delay = left if left > 0 else self.config.node_monitor_grace
        self._planned[key] = now + delay
        return delay

    async def _silent(self, node: Object) -> Object:
        status = judge(node, self.stamp())
        if status is None:
            return node
        name = meta.name(node)
        self.events.event(node, "Normal", "NodeNotReady", f"Node {name} status is now: NodeNotReady")
        return await self.client.update(NODE, {**node, "status": status}, subresource="status")

    async def _mark_pods_not_ready(self, name: str) -> None:
        """Services must stop sending to a node that does not answer; its own agent cannot say so."""
        for pod in nodes.pods_on(self.pods, name):
            if not meta.is_true(pod, "Ready"):
                continue
            conditions = clone(meta.conditions(pod))
            meta.set_condition(conditions, {"type": "Ready", "status": "False"}, self.stamp())
            patch = {"metadata": {"resourceVersion": meta.resource_version(pod)}, "status": {"conditions": conditions}}
            try:
                await self.client.patch(POD, meta.name(pod), meta.namespace(pod), patch, subresource="status")
            except ApiError as error:
                if error.code != 404:
                    raise
            else:
                self.events.event(pod, "Warning", "NodeNotReady", "Node is not ready")


def _heartbeat(node: Object) -> list[object]:
    return [c.get("lastHeartbeatTime") for c in meta.conditions(node)]


def _relevant(node: Object) -> tuple[object, ...]:
    """What taints and judgement depend on; a heartbeat alone changes none of it."""
    conditions = tuple((c["type"], c["status"]) for c in meta.conditions(node))
    return (conditions, (node.get("spec") or {}).get("unschedulable"), nodes.taints_of(node), meta.uid(node))
