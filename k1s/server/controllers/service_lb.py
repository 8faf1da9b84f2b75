"""Services of type LoadBalancer: their addresses, in status.loadBalancer.

Watches: Services (the plan, and their own key), Nodes, EndpointSlices and Pods (the plan, where it depends on them), the Secret
that the nodes sign their heartbeats with (key `secret`, only with pools).
The key PLAN looks at all of them (service_lb_plan) and wakes each Service that has to change; a Service's own key writes.
Owns: the status, the condition eligible.CONDITION and the finalizer of the Services that are ours; what is not ours any more
(type or class changed, servicelb disabled) is taken back where that condition stands. Never does: touch another's Service.
The addresses are served by every node's proxy; those of a pool are announced by one node each (agent/network/announce).
Source: upstream cloud-provider controllers/service (finalizer, events), k3s' ServiceLB (whose addresses).
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterable

from k1s.api import meta
from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.client.interface import Object
from k1s.net.announce import eligible
from k1s.net.announce.key import FIELD, NAME, NAMESPACE
from k1s.server.controllers.reconciler import Context, Reconciler, Watch, same
from k1s.server.controllers.service_lb_plan import Outcome, plan
from k1s.server.controllers.service_lb_ports import NodePorts, host_ports, node_ports

SERVICE, NODE, SLICE, SECRET = builtin("Service"), builtin("Node"), builtin("EndpointSlice"), builtin("Secret")
POD = builtin("Pod")
FINALIZER = "service.kubernetes.io/load-balancer-cleanup"
PLAN, KEY = "plan", "secret"
_SERVICE_NAME = "kubernetes.io/service-name"
_BALANCED, _OF_SERVICE = "load-balanced", "service"


class ServiceLoadBalancerController(Reconciler):
    name = "service-lb"
    workers = 1  # what is given out must not be given out again by a worker beside

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.services, self.nodes, self.slices = self.cache(SERVICE), self.cache(NODE), self.cache(SLICE)
        self.services.add_index(_BALANCED, _balanced)
        self.slices.add_index(_OF_SERVICE, _services_of)
        self.ports = NodePorts(self.services, self.cache(POD))
        self.outcomes: dict[str, Outcome] = {}

    def watches(self) -> Iterable[Watch]:
        config = self.config.load_balancer
        always: list[Watch] = [(SERVICE, self._service_changed)]
        planned: list[Watch] = [(NODE, self._node_changed), (SLICE, self._slice_changed), (POD, self._pod_changed)]
        secret: list[Watch] = [(SECRET, _secret_changed)]
        return [*always, *(planned if config.enabled else []), *(secret if config.enabled and config.pools else [])]

    async def run(self, ready: Callable[[], None]) -> None:
        if self.config.load_balancer.enabled and self.config.load_balancer.pools:
            self.controller.add(KEY)
        await super().run(ready)

    def _service_changed(self, old: Object | None, new: Object | None) -> Iterable[str]:
        concerned = [service for service in (old, new) if service is not None and _balanced(service)]
        if concerned:
            return PLAN, meta.key(concerned[-1])
        before, after = (node_ports(service or {}) for service in (old, new))
        return (PLAN,) if before != after and self._any() else ()

    def _node_changed(self, old: Object | None, new: Object | None) -> Iterable[str]:
        return (PLAN,) if _relevant(old) != _relevant(new) and self._any() else ()

    def _slice_changed(self, old: Object | None, new: Object | None) -> Iterable[str]:
        for key in {*_services_of(old or {}), *_services_of(new or {})}:
            namespace, name = meta.split_key(key)
            service = self.services.get(name, namespace)
            if service is not None and eligible.is_local(service) and eligible.wants_balancer(service):
                return (PLAN,)
        return ()

    def _pod_changed(self, old: Object | None, new: Object | None) -> Iterable[str]:
        before, after = (host_ports(pod or {}) for pod in (old, new))
        return (PLAN,) if before != after and self._any() else ()

    def _any(self) -> bool:
        return any(True for _ in self.services.by_index(_BALANCED, "yes"))

    async def reconcile(self, key: str) -> float | None:
        if key == PLAN:
            return self._plan()
        if key == KEY:
            await self._ensure_secret()
            return None
        namespace, name = meta.split_key(key)
        service = self.services.get(name, namespace)
        if service is None:
            return None
        if eligible.wants_balancer(service) and self.config.load_balancer.enabled:
            await self._serve(service, self.outcomes.get(key))
        elif meta.condition(service, eligible.CONDITION) is not None:
            await self._take_back(service)
        return None

    def _plan(self) -> float | None:
        services = list(self.services.by_index(_BALANCED, "yes"))
        wait = self.hold_back(PLAN, len(services))
        if wait:
            return wait
        given = {key: outcome.addresses for key, outcome in self.outcomes.items()}
        nodes, config = list(self.nodes.list()), self.config.load_balancer
        self.outcomes = plan(services, nodes, self._slices, config, given, self.ports.owner)
        for service in services:
            outcome = self.outcomes.get(meta.key(service))
            if outcome is not None and _differs(service, outcome):
                self.controller.add(meta.key(service))
        return None

    def _slices(self, service: Object) -> Iterable[Object]:
        return self.slices.by_index(_OF_SERVICE, meta.key(service))

    async def _serve(self, service: Object, outcome: Outcome | None) -> None:
        """Until the plan has seen it there is no outcome; the plan wakes it again."""
        if outcome is None or not _differs(service, outcome):
            return
        before = meta.condition(service, eligible.CONDITION)
        if before is None:
            self.events.event(service, "Normal", "EnsuringLoadBalancer", "Ensuring load balancer")
        addresses = _ingress_of(service)
        service = await self._set_status(service, outcome.addresses, _condition(outcome))
        self._tell(service, before, addresses, outcome)
        # After the condition: a finalizer without it would be nobody's.
        if FINALIZER not in meta.finalizers(service):
            await self._set_finalizers(service, [*meta.finalizers(service), FINALIZER])

    def _tell(self, service: Object, before: Object | None, addresses: list[str], outcome: Outcome) -> None:
        was_good = before is not None and before.get("status") == "True"
        if outcome.good and not was_good:
            self.events.event(service, "Normal", "EnsuredLoadBalancer", "Ensured load balancer")
        elif outcome.good and addresses != list(outcome.addresses):
            self.events.event(service, "Normal", "UpdatedLoadBalancer", "Updated load balancer with new hosts")
        elif not outcome.good and not outcome.expected and (before or {}).get("message") != outcome.message:
            if outcome.reason == "NoNodes":
                text = f"There are no available nodes for LoadBalancer: {outcome.message}"
                self.events.event(service, "Warning", "UnAvailableLoadBalancer", text)
            else:
                text = f"Error syncing load balancer: failed to ensure load balancer: {outcome.message}"
                self.events.event(service, "Warning", "SyncLoadBalancerFailed", text)

    async def _take_back(self, service: Object) -> None:
        """The status before the finalizer: a Service that is being deleted goes with it."""
        self.events.event(service, "Normal", "DeletingLoadBalancer", "Deleting load balancer")
        kept = [finalizer for finalizer in meta.finalizers(service) if finalizer != FINALIZER]
        service = await self._set_status(service, (), None)
        if len(kept) != len(meta.finalizers(service)):
            await self._set_finalizers(service, kept)
        self.events.event(service, "Normal", "DeletedLoadBalancer", "Deleted load balancer")

    async def _set_finalizers(self, service: Object, finalizers: list[str]) -> Object:
        change = {"uid": meta.uid(service), "resourceVersion": meta.resource_version(service), "finalizers": finalizers}
        return await self.client.patch(SERVICE, meta.name(service), meta.namespace(service), {"metadata": change})

    async def _set_status(self, service: Object, addresses: Iterable[str], condition: Object | None) -> Object:
        conditions = [dict(c) for c in meta.conditions(service)]
        if condition is not None:
            meta.set_condition(conditions, condition, self.stamp())
        else:
            conditions = [c for c in conditions if c.get("type") != eligible.CONDITION]
        ingress = [{"ip": address, "ipMode": "VIP"} for address in addresses]
        status = {"loadBalancer": {"ingress": ingress or None}, "conditions": conditions or None}
        change = {"metadata": {"resourceVersion": meta.resource_version(service)}, "status": status}
        return await self.client.patch(SERVICE, meta.name(service), meta.namespace(service), change, subresource="status")

    async def _ensure_secret(self) -> None:
        """The key of the heartbeats by which nodes decide who announces what; made once, then the users' to change."""
        if self.cache(SECRET).get(NAME, NAMESPACE) is not None:
            return
        value = base64.b64encode(os.urandom(32)).decode()
        secret = {"metadata": {"name": NAME, "namespace": NAMESPACE}, "type": "Opaque", "data": {FIELD: value}}
        try:
            await self.client.create(SECRET, secret)
        except ApiError as error:
            if error.code != 409:
                raise


def _balanced(service: Object) -> list[str]:
    """Ours to serve, or served by us until now."""
    ours = eligible.wants_balancer(service) or meta.condition(service, eligible.CONDITION) is not None
    return ["yes"] if ours else []


def _services_of(piece: Object) -> list[str]:
    name = meta.labels(piece).get(_SERVICE_NAME)
    return [f"{meta.namespace(piece)}/{name}"] if name else []


def _secret_changed(old: Object | None, new: Object | None) -> Iterable[str]:
    gone = new is None and old is not None and (meta.namespace(old), meta.name(old)) == (NAMESPACE, NAME)
    return (KEY,) if gone else ()


def _relevant(node: Object | None) -> object:
    """What the plan depends on; two equal answers mean that nothing need be done."""
    if node is None:
        return None
    status, spec = node.get("status") or {}, node.get("spec") or {}
    labels = [meta.labels(node).get(name) for name in (eligible.ENABLE_LABEL, eligible.POOL_LABEL, eligible.EXCLUDE_LABEL)]
    taints = [taint.get("key") for taint in spec.get("taints") or ()]
    ports = status.get("daemonEndpoints")
    return labels, taints, status.get("addresses"), ports, meta.is_true(node, "Ready"), meta.is_deleting(node)


def _condition(outcome: Outcome) -> Object:
    status = "True" if outcome.good else "False"
    return {"type": eligible.CONDITION, "status": status, "reason": outcome.reason, "message": outcome.message}


def _ingress_of(service: Object) -> list[str]:
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    return [entry.get("ip") or "" for entry in ingress]


def _differs(service: Object, outcome: Outcome) -> bool:
    wanted = [{"ip": address, "ipMode": "VIP"} for address in outcome.addresses]
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    condition = {k: v for k, v in (meta.condition(service, eligible.CONDITION) or {}).items() if k != "lastTransitionTime"}
    return FINALIZER not in meta.finalizers(service) or ingress != wanted or not same(condition, _condition(outcome))
