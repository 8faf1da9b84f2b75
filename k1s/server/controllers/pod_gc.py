"""Pod GC: pods that nobody else will clear away.

Watches: Nodes and Pods. Keys: node/<name> (pods of a node that is gone), pod/<namespace>/<name> (deleted before it was ever
scheduled, or on a node that is out of service), ended (more ended pods than the threshold allows).
Never does: delete a living pod of a node that exists, except where an administrator declared the node out of service.
Source: upstream pkg/controller/podgc.
"""

from __future__ import annotations

from collections.abc import Iterable

from k1s.api import meta
from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.client.interface import Object
from k1s.server.controllers import nodes, pods
from k1s.server.controllers.reconciler import Context, Reconciler, Watch
from k1s.server.controllers.taint_eviction import disrupt

NODE, POD = builtin("Node"), builtin("Pod")
# A node may be made again under its name (an agent that registers afresh): wait before its pods are given up.
QUARANTINE_SECONDS = 40.0
_ENDED = "ended"


class PodGcController(Reconciler):
    name = "pod-garbage-collector"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.nodes, self.pods = self.cache(NODE), self.cache(POD)
        nodes.index_by_node(self.pods)
        self._missing: dict[str, float] = {}
        self._ended: set[str] = set()

    def watches(self) -> Iterable[Watch]:
        return ((NODE, self._node_changed), (POD, self._pod_changed))

    def _node_changed(self, old: Object | None, new: Object | None) -> Iterable[str]:
        if new is None:
            yield f"node/{meta.name(old or {})}"
        elif _out_of_service(new) and not (old is not None and _out_of_service(old)):
            for pod in nodes.pods_on(self.pods, meta.name(new)):
                if meta.is_deleting(pod):
                    yield f"pod/{meta.key(pod)}"

    def _pod_changed(self, old: Object | None, new: Object | None) -> Iterable[str]:
        uid = meta.uid(new if new is not None else old or {})
        if new is None or not pods.is_terminal(new):
            self._ended.discard(uid)
        else:
            self._ended.add(uid)
            if len(self._ended) > self.config.terminated_pod_threshold > 0:
                yield _ENDED
        if new is None:
            return
        node = (new.get("spec") or {}).get("nodeName") or ""
        if meta.is_deleting(new) and not (old is not None and meta.is_deleting(old)):
            found = self.nodes.get(node) if node else None
            if not node or (found is not None and _out_of_service(found)):
                yield f"pod/{meta.key(new)}"
        if node and (old is None or (old.get("spec") or {}).get("nodeName") != node) and self.nodes.get(node) is None:
            yield f"node/{node}"

    async def reconcile(self, key: str) -> float | None:
        kind, _, rest = key.partition("/")
        if kind == "node":
            return await self._gone_node(rest)
        if kind == "pod":
            return await self._stuck_pod(rest)
        return await self._too_many()

    async def _gone_node(self, name: str) -> float | None:
        left = list(nodes.pods_on(self.pods, name))
        if self.nodes.get(name) is not None or not left:
            self._missing.pop(name, None)
            return None
        now = self.clock.monotonic()
        wait = self._missing.setdefault(name, now) + QUARANTINE_SECONDS - now
        if wait > 0:
            return wait
        try:
            await self.client.get(NODE, name)
        except ApiError as error:
            if error.code != 404:
                raise
        else:
            return None
        for pod in left:
            await disrupt(self, pod, "DeletionByPodGC", "PodGC: node no longer exists", fail=True, grace=0)
        self._missing.pop(name, None)
        return None

    async def _stuck_pod(self, key: str) -> float | None:
        namespace, name = meta.split_key(key)
        pod = self.pods.get(name, namespace)
        if pod is None or not meta.is_deleting(pod):
            return None
        node_name = (pod.get("spec") or {}).get("nodeName") or ""
        node = self.nodes.get(node_name) if node_name else None
        if node_name and (node is None or not _out_of_service(node)):
            return None
        text = "PodGC: node is out of service" if node_name else "PodGC: pod was deleted before it was scheduled"
        await disrupt(self, pod, "DeletionByPodGC", text, fail=bool(node_name), grace=0)
        return None

    async def _too_many(self) -> float | None:
        ended = [pod for pod in self.pods.list() if pods.is_terminal(pod)]
        excess = len(ended) - self.config.terminated_pod_threshold
        if excess <= 0:
            return None
        # Evicted pods first, then the oldest.
        ended.sort(
            key=lambda p: ((p.get("status") or {}).get("reason") != "Evicted", p["metadata"].get("creationTimestamp") or "")
        )
        for pod in ended[:excess]:
            try:
                await self.client.delete(POD, meta.name(pod), meta.namespace(pod), uid=meta.uid(pod), grace_period_seconds=0)
            except ApiError as error:
                if error.code != 404:
                    raise
        return None


def _out_of_service(node: Object) -> bool:
    """Not ready, and declared out of service by an administrator."""
    return nodes.ready_status(node) != "True" and any(t["key"] == nodes.OUT_OF_SERVICE for t in nodes.taints_of(node))
