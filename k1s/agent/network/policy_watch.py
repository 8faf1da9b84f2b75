"""What network policies are made of, from the API to the rules' state.

Owns: following policies and this node's pods; all other pods and the namespaces only while some policy asks for them, reduced
to labels, addresses and named ports. Called by: network.policy. Never does: I/O on the kernel.

Bounds: per policy, per pod of this node, per namespace one entry; per pod elsewhere about 1.5 KB, and nothing without policies.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any

from k1s.agent.context import AgentContext
from k1s.api.catalog import builtin
from k1s.client.projection import Projection
from k1s.net.ipam import Attachment
from k1s.net.policy.apply import PolicyRules
from k1s.net.policy.model import Pod, addresses_of, compile_policy, on_pod_network, pod_of

Object = dict[str, Any]

# How long new rules wait for the list of pods elsewhere. After that they are written without: who is unknown is not let in.
_PATIENCE = 5.0
_log = logging.getLogger("k1s.agent.network.policy")


class PolicyWatch:
    """Feeds `rules`; `changed` is set whenever they may have something to write."""

    def __init__(self, agent: AgentContext, rules: PolicyRules) -> None:
        self._agent, self._rules = agent, rules
        self.changed = asyncio.Event()
        self._policies = agent.informers.informer(builtin("NetworkPolicy"))
        self._own_pods = agent.informers.informer(builtin("Pod"), field_selector=f"spec.nodeName={agent.node_name}")
        self._addresses: dict[str, tuple[str, ...]] = {}
        self._elsewhere = _Elsewhere(agent, rules, self.changed.set)

    async def start(self, attachments: Iterable[Attachment]) -> None:
        """Return when everything is known that policies ask for."""
        await self._policies.synced()
        await self._own_pods.synced()
        self._policies.add_handler(self._policy_changed)
        self.attached(attachments)
        self._own_pods.add_handler(self._pod_changed)
        await self.complete()

    async def complete(self) -> None:
        """Follow what policies ask for, and return when it is there; at most once a wait of some seconds.

        Other nodes are followed from the first pod of this node on that is judged by who others are, until no policy is left
        that asks: pods that come and go do not make the list of all pods come again.
        """
        isolation = self._rules.isolation
        if isolation.wanted().looks_beyond_node:
            await self._elsewhere.follow()
        elif self._elsewhere.following and not isolation.looks_beyond_node():
            await self._elsewhere.leave()

    def attached(self, attachments: Iterable[Attachment]) -> None:
        """The addresses that this node's sandboxes have now. What is no pod of the API, made by hand, is nobody's business."""
        now: dict[str, tuple[str, ...]] = {}
        for attachment in attachments:
            if attachment.pod:
                now[attachment.pod] = now.get(attachment.pod, ()) + attachment.addresses
        before, self._addresses = self._addresses, now
        for key in before.keys() | now.keys():
            if before.get(key) != now.get(key):
                self._refresh(key)

    async def close(self) -> None:
        await self._elsewhere.leave()

    def _policy_changed(self, old: Object | None, new: Object | None) -> None:
        meta = (new or old or {})["metadata"]
        policy = compile_policy(new) if new is not None else None
        self._rules.isolation.set_policy(f"{meta['namespace']}/{meta['name']}", policy)
        self.changed.set()

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        meta = (new or old or {})["metadata"]
        key = f"{meta['namespace']}/{meta['name']}"
        if key in self._addresses:
            self._refresh(key)

    def _refresh(self, key: str) -> None:
        """A pod of this node: its addresses are those it was given here, whatever its status says already or still."""
        namespace, _, name = key.partition("/")
        addresses = self._addresses.get(key, ())
        obj = self._own_pods.get(name, namespace)
        before = self._rules.cluster.pods.get(key)
        if not addresses:
            pod = None
        elif obj is not None:
            pod = pod_of(obj, addresses)
        else:
            # Deleted in the API, its sandbox still to be ended: it stays what it was.
            pod = Pod(namespace, name, before.labels if before else {}, addresses, before.ports if before else ())
        self._rules.isolation.set_local(key, namespace, pod.labels if pod else {}, addresses)
        self._rules.cluster.set_pod(key, pod)
        if pod != before:
            self.changed.set()


class _Elsewhere:
    """Pods of other nodes and namespaces."""

    def __init__(self, agent: AgentContext, rules: PolicyRules, changed: Callable[[], None]) -> None:
        self._agent, self._rules, self._changed = agent, rules, changed
        self._tasks: list[asyncio.Task[None]] = []
        self._keys: tuple[set[str], set[str]] = (set(), set())
        self._waited = False

    @property
    def following(self) -> bool:
        return bool(self._tasks)

    async def follow(self) -> None:
        if not self._tasks:
            self._waited = False
            self._start()
        for task in self._tasks:
            # A watch ends by a fault of ours only.
            if task.done():
                task.result()
        if self._waited:
            return
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._pods.synced()
                await self._namespaces.synced()
        except TimeoutError:
            _log.warning("pods of other nodes are not known yet: policies let in and out only whom they name by address")
        self._waited = True

    async def leave(self) -> None:
        """Nobody asks any more: the watches end, and what they told is forgotten."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        pods, namespaces = self._keys
        for key in list(pods):
            self._pod(key, None)
        for name in list(namespaces):
            self._namespace(name, None)

    def _start(self) -> None:
        agent = self._agent
        others = f"spec.nodeName!={agent.node_name},spec.hostNetwork=false,status.podIP!="
        running = "status.phase!=Succeeded,status.phase!=Failed"
        self._pods = Projection(
            agent.client, builtin("Pod"), agent.clock, read=_read, changed=self._pod, field_selector=f"{others},{running}"
        )
        self._namespaces = Projection(agent.client, builtin("Namespace"), agent.clock, read=_labels, changed=self._namespace)
        self._tasks = [
            asyncio.create_task(self._pods.run(), name="policy-pods"),
            asyncio.create_task(self._namespaces.run(), name="policy-namespaces"),
        ]
        for task in self._tasks:
            task.add_done_callback(lambda _: self._changed())

    def _pod(self, key: str, pod: Pod | None) -> None:
        _note(self._keys[0], key, pod is not None)
        # A name may be another node's still and this node's already: its keys must not meet.
        key, cluster = f"elsewhere {key}", self._rules.cluster
        # Most changes of pods are of what is not kept.
        if cluster.pods.get(key) != pod:
            cluster.set_pod(key, pod)
            self._changed()

    def _namespace(self, name: str, labels: dict[str, str] | None) -> None:
        _note(self._keys[1], name, labels is not None)
        self._rules.cluster.set_namespace(name, labels)
        self._changed()


def _note(keys: set[str], key: str, there: bool) -> None:
    if there:
        keys.add(key)
    else:
        keys.discard(key)


def _read(obj: Object) -> Pod | None:
    addresses = addresses_of(obj)
    return pod_of(obj, addresses) if addresses and on_pod_network(obj) else None


def _labels(obj: Object) -> dict[str, str]:
    return dict(obj["metadata"].get("labels") or {})
