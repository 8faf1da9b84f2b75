"""Taint eviction: pods leave a node with NoExecute taints they do not tolerate, or do not tolerate for ever.

Watches: Nodes (their pods, when NoExecute taints change), Pods (own key, on a tainted node). Owns: `stay` (pure).
Time counts on the monotonic clock from when this process first saw pod and taints together: a jump of the wall clock evicts
nobody. Source: upstream pkg/controller/tainteviction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from k1s.api import meta
from k1s.api.catalog import builtin
from k1s.api.clone import clone
from k1s.api.errors import ApiError
from k1s.client.interface import Object
from k1s.server.controllers import nodes, pods
from k1s.server.controllers.reconciler import Context, Reconciler, Watch

NODE, POD = builtin("Node"), builtin("Pod")


def no_execute(node: Object | None) -> list[Object]:
    return [t for t in nodes.taints_of(node) if t.get("effect") == "NoExecute"] if node is not None else []


def stay(tolerations: Sequence[Object], taints: Sequence[Object]) -> float | None:
    """How long a pod may stay: 0 at once away, None for ever, else seconds from the beginning."""
    if nodes.untolerated(tolerations, taints, ("NoExecute",)):
        return 0.0
    used = [tol for tol in tolerations if any(nodes.tolerates(tol, taint) for taint in taints)]
    limits = [float(max(tol["tolerationSeconds"], 0)) for tol in used if tol.get("tolerationSeconds") is not None]
    return min(limits, default=None)


class TaintEvictionController(Reconciler):
    name = "taint-eviction"
    workers = 4

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.nodes, self.pods = self.cache(NODE), self.cache(POD)
        nodes.index_by_node(self.pods)
        # Pod UID -> since when it stands on a tainted node; only such pods.
        self._since: dict[str, float] = {}

    def watches(self) -> Iterable[Watch]:
        return ((NODE, self._node_changed), (POD, self._pod_changed))

    def _node_changed(self, old: Object | None, new: Object | None) -> Iterable[str]:
        before, after = ([(t["key"], t.get("value")) for t in no_execute(node)] for node in (old, new))
        if before == after or new is None:
            return ()
        return [meta.key(pod) for pod in nodes.pods_on(self.pods, meta.name(new))]

    def _pod_changed(self, old: Object | None, new: Object | None) -> Iterable[str]:
        if new is None:
            self._since.pop(meta.uid(old or {}), None)
            return ()
        spec = new.get("spec") or {}
        if not spec.get("nodeName") or not no_execute(self.nodes.get(spec["nodeName"])):
            return ()
        before = (old or {}).get("spec") or {}
        same = all(before.get(f) == spec.get(f) for f in ("nodeName", "tolerations"))
        return () if same else (meta.key(new),)

    async def reconcile(self, key: str) -> float | None:
        namespace, name = meta.split_key(key)
        pod = self.pods.get(name, namespace)
        if pod is None or meta.is_deleting(pod):
            return None
        taints = no_execute(self.nodes.get((pod.get("spec") or {}).get("nodeName", "")))
        if not taints:
            if self._since.pop(meta.uid(pod), None) is not None:
                self.events.event(pod, "Normal", "TaintManagerEviction", f"Cancelling deletion of Pod {key}")
            return None
        limit = stay((pod.get("spec") or {}).get("tolerations") or (), taints)
        if limit is None:
            self._since.pop(meta.uid(pod), None)
            return None
        now = self.clock.monotonic()
        left = self._since.setdefault(meta.uid(pod), now) + limit - now
        if left > 0:
            return left
        self.events.event(pod, "Normal", "TaintManagerEviction", f"Marking for deletion Pod {key}")
        text = "Taint manager: deleting due to NoExecute taint"
        await disrupt(self, pod, "DeletionByTaintManager", text)
        return None


async def disrupt(
    controller: Reconciler, pod: Object, reason: str, message: str, *, fail: bool = False, grace: int | None = None
) -> None:
    """Say on the pod why it goes (condition DisruptionTarget), then delete it. `fail`: also end it, its node being gone."""
    conditions = clone(meta.conditions(pod))
    meta.set_condition(
        conditions, {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}, controller.stamp()
    )
    status: Object = {"conditions": conditions}
    if fail and not pods.is_terminal(pod):
        status["phase"] = "Failed"
    patch = {"metadata": {"uid": meta.uid(pod), "resourceVersion": meta.resource_version(pod)}, "status": status}
    try:
        if not pods.is_terminal(pod):
            await controller.client.patch(POD, meta.name(pod), meta.namespace(pod), patch, subresource="status")
        await controller.client.delete(POD, meta.name(pod), meta.namespace(pod), uid=meta.uid(pod), grace_period_seconds=grace)
    except ApiError as error:
        if error.code != 404:
            raise
