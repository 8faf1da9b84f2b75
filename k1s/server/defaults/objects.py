"""Default objects that are not roles: namespaces, priority classes, the service range, the services `kubernetes` and `kube-dns`.

Owns: their content. Called by: bootstrap. Never does: write them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

import orjson

Object = dict[str, Any]

NAMESPACES = ("kube-system", "default", "kube-public", "kube-node-lease")


def namespaces() -> list[Object]:
    return [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in NAMESPACES]


def priority_classes() -> list[Object]:
    rows = (
        (
            "system-node-critical",
            2000001000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
        (
            "system-cluster-critical",
            2000000000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
    )
    return [
        {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": name},
            "value": value,
            "description": text,
            "preemptionPolicy": "PreemptLowerPriority",
        }
        for name, value, text in rows
    ]


def service_cidr(cidr: str) -> Object:
    ranges = [part.strip() for part in cidr.split(",")]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": ranges},
    }


def kubernetes_service(cidr: str, port: int) -> Object:
    """The API server as a Service, on the first address of the service range."""
    first = ipaddress.ip_network(cidr.split(",")[0].strip(), strict=False)[1]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": str(first),
            "clusterIPs": [str(first)],
            "ipFamilies": [f"IPv{first.version}"],
            "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster",
            "sessionAffinity": "None",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}],
        },
    }


def kubernetes_endpoints(address: str, port: int) -> list[Object]:
    """Endpoints and EndpointSlice of that Service: it has no selector, so no controller makes them."""
    ports = [{"name": "https", "port": port, "protocol": "TCP"}]
    return [
        {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {
                "name": "kubernetes",
                "namespace": "default",
                "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
            },
            "subsets": [{"addresses": [{"ip": address}], "ports": ports}],
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "kubernetes",
                "namespace": "default",
                "labels": {"kubernetes.io/service-name": "kubernetes"},
            },
            "addressType": f"IPv{ipaddress.ip_address(address).version}",
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
            "ports": ports,
        },
    ]


def dns_service(addresses: Sequence[str]) -> list[Object]:
    """The cluster's DNS as the Service that everybody looks for. Each node's agent serves the addresses itself, so that they
    are their own endpoints."""
    ports = (("dns", "UDP", 53), ("dns-tcp", "TCP", 53), ("metrics", "TCP", 9153))
    listed = [{"name": name, "port": port, "protocol": protocol} for name, protocol, port in ports]
    labels = {"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}
    families = [f"IPv{ipaddress.ip_address(address).version}" for address in addresses]
    meta: Object = {"name": "kube-dns", "namespace": "kube-system"}
    spec: Object = {
        "type": "ClusterIP",
        "clusterIP": addresses[0],
        "clusterIPs": [*addresses],
        "ipFamilies": families,
        "ipFamilyPolicy": "SingleStack" if len(addresses) == 1 else "RequireDualStack",
        "internalTrafficPolicy": "Cluster",
        "sessionAffinity": "None",
        "ports": [{**port, "targetPort": port["port"]} for port in listed],
    }
    skip = {"endpointslice.kubernetes.io/skip-mirror": "true"}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": {**meta, "labels": labels}, "spec": spec},
        {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {**meta, "labels": {**labels, **skip}},
            "subsets": [{"addresses": [{"ip": addresses[0]}], "ports": listed}],
        },
        *(_dns_slice(meta, labels, family, address, listed) for family, address in zip(families, addresses, strict=True)),
    ]


def _dns_slice(meta: Object, labels: Object, family: str, address: str, ports: list[Object]) -> Object:
    name = meta["name"] if family == "IPv4" else f"{meta['name']}-{family.lower()}"
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {**meta, "name": name, "labels": {**labels, "kubernetes.io/service-name": meta["name"]}},
        "addressType": family,
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        "ports": ports,
    }


def extension_authentication(client_ca: str, request_header_ca: str) -> Object:
    """What extension API servers read to authenticate those whom this one vouches for."""

    def names(*values: str) -> str:
        return orjson.dumps(list(values)).decode()

    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
        "data": {
            "client-ca-file": client_ca,
            "requestheader-allowed-names": names("system:auth-proxy"),
            "requestheader-client-ca-file": request_header_ca,
            "requestheader-extra-headers-prefix": names("X-Remote-Extra-"),
            "requestheader-group-headers": names("X-Remote-Group"),
            "requestheader-uid-headers": names("X-Remote-Uid"),
            "requestheader-username-headers": names("X-Remote-User"),
        },
    }
