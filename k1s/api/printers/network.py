"""Services, endpoints, ingresses, network policies.

Called by: api/table.py. Never does: resolve anything; cells say what the object says.
"""

from __future__ import annotations

from typing import Any

from k1s.api.meta import Object
from k1s.api.printers.columns import (
    AGE,
    NAME,
    NONE,
    UNKNOWN,
    UNSET,
    Printer,
    age,
    column,
    first,
    format_labels,
    format_selector,
    name,
    spec,
    status,
)

_SHOWN = 3


def _load_balancer(obj: Object) -> list[str]:
    ingress = (status(obj).get("loadBalancer") or {}).get("ingress") or ()
    return sorted({i.get("ip") or i.get("hostname") for i in ingress} - {None, ""})


def _external_ip(obj: Object) -> str:
    kind = spec(obj).get("type")
    external = list(spec(obj).get("externalIPs") or ())
    if kind in ("ClusterIP", "NodePort"):
        return ",".join(external) or NONE
    if kind == "LoadBalancer":
        return ",".join([*_load_balancer(obj), *external]) or "<pending>"
    if kind == "ExternalName":
        return spec(obj).get("externalName") or ""
    return UNKNOWN


def _port(port: Object) -> str:
    number = f"{port.get('port')}:{port['nodePort']}" if port.get("nodePort") else f"{port.get('port')}"
    return f"{number}/{port.get('protocol')}"


def _service(obj: Object, now: float) -> list[Any]:
    addresses = spec(obj).get("clusterIPs") or [spec(obj).get("clusterIP")]
    return [
        name(obj),
        spec(obj).get("type") or "",
        addresses[0] or NONE,
        _external_ip(obj),
        ",".join(map(_port, spec(obj).get("ports") or ())) or NONE,
        age(obj, now),
        format_labels(spec(obj).get("selector")),
    ]


def _host_port(address: str, port: Any) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _endpoints(obj: Object, now: float) -> list[Any]:
    shown: list[str] = []
    for subset in obj.get("subsets") or ():
        addresses = [a.get("ip") or "" for a in subset.get("addresses") or ()]
        ports = subset.get("ports") or ()
        if not ports:
            shown += addresses
        for port in ports:
            shown += [_host_port(address, port.get("port")) for address in addresses]
    return [name(obj), first(shown, _SHOWN, len(shown), NONE), age(obj, now)]


def _slice_port(port: Object) -> str:
    if port.get("port") is not None:
        return str(port["port"])
    return port.get("name") or "*"


def _endpoint_slice(obj: Object, now: float) -> list[Any]:
    ports = [_slice_port(p) for p in obj.get("ports") or ()]
    addresses = [a for e in obj.get("endpoints") or () for a in e.get("addresses") or ()]
    return [
        name(obj),
        obj.get("addressType") or "",
        first(ports, _SHOWN, len(ports), UNSET),
        first(addresses, _SHOWN, len(addresses), UNSET),
        age(obj, now),
    ]


def _ingress(obj: Object, now: float) -> list[Any]:
    hosts = [r["host"] for r in spec(obj).get("rules") or () if r.get("host")]
    return [
        name(obj),
        spec(obj).get("ingressClassName") or NONE,
        first(hosts, _SHOWN, len(hosts), "*"),
        ",".join(_load_balancer(obj)),
        "80, 443" if spec(obj).get("tls") else "80",
        age(obj, now),
    ]


def _ingress_class(obj: Object, now: float) -> list[Any]:
    parameters = spec(obj).get("parameters")
    shown = NONE
    if parameters:
        group = parameters.get("apiGroup")
        kind = f"{parameters.get('kind')}.{group}" if group else parameters.get("kind")
        shown = f"{kind}/{parameters.get('name')}"
    return [name(obj), spec(obj).get("controller") or "", shown, age(obj, now)]


def _network_policy(obj: Object, now: float) -> list[Any]:
    return [name(obj), format_selector(spec(obj).get("podSelector")), age(obj, now)]


def _service_cidr(obj: Object, now: float) -> list[Any]:
    return [name(obj), ",".join(spec(obj).get("cidrs") or ()), age(obj, now)]


def _ip_address(obj: Object, now: float) -> list[Any]:
    parent = spec(obj).get("parentRef") or {}
    group, place = parent.get("group"), "/".join(filter(None, (parent.get("namespace"), parent.get("name"))))
    resource = f"{parent.get('resource')}.{group}" if group else parent.get("resource")
    return [name(obj), f"{resource}/{place}", age(obj, now)]


PRINTERS = {
    ("", "Service"): Printer(
        (
            NAME,
            column("Type", "How the service is exposed."),
            column("Cluster-IP", "Address of the service inside the cluster."),
            column("External-IP", "Addresses of the service outside the cluster."),
            column("Port(s)", "Ports that the service listens on."),
            AGE,
            column("Selector", "Labels of the pods that traffic goes to.", wide=True),
        ),
        _service,
    ),
    ("", "Endpoints"): Printer((NAME, column("Endpoints", "Addresses and ports that are ready."), AGE), _endpoints),
    ("discovery.k8s.io", "EndpointSlice"): Printer(
        (
            NAME,
            column("AddressType", "Type of the addresses in this slice."),
            column("Ports", "Ports of every endpoint in this slice."),
            column("Endpoints", "Addresses in this slice."),
            AGE,
        ),
        _endpoint_slice,
    ),
    ("networking.k8s.io", "Ingress"): Printer(
        (
            NAME,
            column("Class", "The name of the IngressClass resource that should be used for additional configuration"),
            column("Hosts", "Hosts that incoming requests are matched against before the ingress rule"),
            column("Address", "Address is a list containing ingress points for the load-balancer"),
            column("Ports", "Ports of TLS configurations that open"),
            AGE,
        ),
        _ingress,
    ),
    ("networking.k8s.io", "IngressClass"): Printer(
        (
            NAME,
            column("Controller", "Controller that is responsible for handling this class"),
            column("Parameters", "A reference to a resource with additional parameters"),
            AGE,
        ),
        _ingress_class,
    ),
    ("networking.k8s.io", "NetworkPolicy"): Printer(
        (NAME, column("Pod-Selector", "Pods that the policy applies to."), AGE), _network_policy
    ),
    ("networking.k8s.io", "ServiceCIDR"): Printer((NAME, column("CIDRs", "Ranges of service addresses."), AGE), _service_cidr),
    ("networking.k8s.io", "IPAddress"): Printer(
        (NAME, column("ParentRef", "The object that has this address."), AGE), _ip_address
    ),
}
