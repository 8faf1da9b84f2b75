"""What services point at: pods as endpoints.

Owns: which pods belong in a service's endpoints, in which state, on which ports; which services a pod concerns (all pure).
Called by: endpointslice, endpoints. Never does: I/O.
Source: upstream pkg/controller/util/endpoint and k8s.io/endpointslice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from k1s.api import meta
from k1s.client.interface import Informer, Object
from k1s.server.controllers import pods

PUBLISH_ANNOTATION = "service.alpha.kubernetes.io/tolerate-unready-endpoints"
HEADLESS = "service.kubernetes.io/headless"
# Index: services by one pair of their selector. A pod's change must not cost a look at every service of its namespace.
BY_SELECTOR = "services-by-selector"


def has_endpoints(service: Object) -> bool:
    """The service's endpoints are derived from pods (not hand-made, not a DNS alias)."""
    spec = service["spec"]
    return bool(spec.get("selector")) and spec.get("type") != "ExternalName"


def publishes_unready(service: Object) -> bool:
    return bool(service["spec"].get("publishNotReadyAddresses")) or meta.annotations(service).get(PUBLISH_ANNOTATION) == "true"


def is_headless(service: Object) -> bool:
    return bool(service["spec"].get("clusterIP") == "None")


def selects(service: Object, pod: Object) -> bool:
    labels = meta.labels(pod)
    return has_endpoints(service) and all(labels.get(k) == v for k, v in service["spec"]["selector"].items())


def belongs(pod: Object, *, terminating: bool) -> bool:
    """The pod may be an endpoint at all; `terminating`: also while it is being deleted."""
    if pods.is_terminal(pod) or not addresses(pod):
        return False
    return terminating or not meta.is_deleting(pod)


def addresses(pod: Object) -> list[str]:
    status = pod.get("status") or {}
    many = [entry["ip"] for entry in status.get("podIPs") or () if entry.get("ip")]
    return many or ([status["podIP"]] if status.get("podIP") else [])


def address_of(pod: Object, family: str) -> str:
    """The pod's first address of that family ("IPv4" or "IPv6"), or ""."""
    return next((a for a in addresses(pod) if (":" in a) == (family == "IPv6")), "")


def target_port(pod: Object, port: Object) -> int:
    """The number behind a service port on this pod; 0 if it names a container port the pod does not have."""
    target: Any = port.get("targetPort") or port["port"]
    if isinstance(target, int) or str(target).isdigit():
        return int(target)
    protocol = port.get("protocol", "TCP")
    for container in _containers(pod):
        for candidate in container.get("ports") or ():
            if candidate.get("name") == target and candidate.get("protocol", "TCP") == protocol:
                return int(candidate["containerPort"])
    return 0


def _containers(pod: Object) -> Iterator[Object]:
    spec = pod.get("spec") or {}
    yield from spec.get("containers") or ()
    yield from (c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always")


def endpoint_ports(service: Object, pod: Object) -> list[Object]:
    """discovery.k8s.io EndpointPorts of this pod; ports it does not have are left out."""
    out: list[Object] = []
    for port in service["spec"].get("ports") or ():
        number = target_port(pod, port)
        if number:
            entry: Object = {"name": port.get("name", ""), "port": number, "protocol": port.get("protocol", "TCP")}
            if port.get("appProtocol"):
                entry["appProtocol"] = port["appProtocol"]
            out.append(entry)
    return out


def hostname_of(pod: Object, service: Object) -> str:
    spec = pod.get("spec") or {}
    same = spec.get("subdomain") == meta.name(service) and meta.namespace(pod) == meta.namespace(service)
    return str(spec.get("hostname") or "") if same else ""


def relevant(pod: Object | None) -> tuple[Any, ...] | None:
    """Everything about a pod that endpoints depend on: two equal answers mean that nothing need be done."""
    if pod is None:
        return None
    spec = pod.get("spec") or {}
    state = (pods.is_ready(pod), meta.is_deleting(pod), pods.phase(pod), tuple(addresses(pod)), spec.get("nodeName"))
    identity = (meta.uid(pod), tuple(sorted(meta.labels(pod).items())), spec.get("hostname"), spec.get("subdomain"))
    return (*state, *identity)


def index_selectors(services: Informer) -> None:
    """Make `concerned` possible on this cache."""
    services.add_index(BY_SELECTOR, _selector_pair)


def _selector_pair(service: Object) -> Iterable[str]:
    """One pair of the selector: a pod that is selected has it too."""
    if not has_endpoints(service):
        return ()
    key, value = min(service["spec"]["selector"].items())
    return (f"{meta.namespace(service)}/{key}={value}",)


def concerned(services: Informer, old: Object | None, new: Object | None) -> Iterable[str]:
    """The keys of the services that select the pod, before or after the change."""
    if relevant(old) == relevant(new):
        return ()
    present = [pod for pod in (old, new) if pod is not None]
    pairs = {f"{meta.namespace(pod)}/{key}={value}" for pod in present for key, value in meta.labels(pod).items()}
    candidates = [service for pair in sorted(pairs) for service in services.by_index(BY_SELECTOR, pair)]
    return [meta.key(service) for service in candidates if any(selects(service, pod) for pod in present)]
