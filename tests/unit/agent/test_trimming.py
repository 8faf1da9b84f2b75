"""What a node keeps of Services and EndpointSlices says the same to the proxy, and is shared where it is equal."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from k1s.agent.trimming import Trimmer
from k1s.net.family import IPV4, IPV6
from k1s.net.proxy.endpoints import Place
from k1s.net.proxy.plan import plan_service


def service(**spec: Any) -> dict[str, Any]:
    meta = {
        "name": "web", "namespace": "ns", "uid": "u", "resourceVersion": "7", "labels": {"app": "web"},
        "annotations": {"a": "b"}, "managedFields": [{}], "creationTimestamp": "2026-11-22T00:00:00Z",
    }  # fmt: skip
    body = {
        "clusterIP": "10.43.0.7", "clusterIPs": ["10.43.0.7"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
        "type": "NodePort", "selector": {"app": "web"}, "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
        "externalTrafficPolicy": "Cluster", "ports": [{"name": "http", "port": 80, "targetPort": 8080, "nodePort": 30080}],
    }  # fmt: skip
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {**body, **spec}, "status": {"loadBalancer": {}}}


def piece(number: int = 0, kind: str = "IPv4") -> dict[str, Any]:
    prefix = "10.42.0." if kind == "IPv4" else "fd00:42::"
    ends = [
        {
            "addresses": [f"{prefix}{n}"], "nodeName": f"node-{n % 2}", "zone": "z", "targetRef": {"kind": "Pod"},
            "conditions": {"ready": n != 3, "serving": True, "terminating": n == 3}, "hints": {"forZones": [{"name": "z"}]},
        }
        for n in (2, 3, 4)
    ]  # fmt: skip
    labels = {"kubernetes.io/service-name": "web", "app": "web", "endpointslice.kubernetes.io/managed-by": "x"}
    meta = {"name": f"web-{number}", "namespace": "ns", "uid": "v", "labels": labels, "ownerReferences": [{"uid": "u"}]}
    ports = [{"name": "http", "port": 8080, "protocol": "TCP"}]
    return {"metadata": meta, "addressType": kind, "ports": ports, "endpoints": ends}


SPECS = st.fixed_dictionaries(
    {
        "sessionAffinity": st.sampled_from(["None", "ClientIP"]),
        "internalTrafficPolicy": st.sampled_from(["Cluster", "Local"]),
        "externalTrafficPolicy": st.sampled_from(["Cluster", "Local"]),
        "clusterIPs": st.sampled_from([["10.43.0.7"], ["10.43.0.7", "fd00:43::7"]]),
        "type": st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]),
        "externalIPs": st.sampled_from([[], ["198.51.100.1"]]),
    }
)


@given(SPECS, st.booleans())
def test_the_proxy_sees_no_difference(spec: dict[str, Any], headless: bool) -> None:
    trimmer, whole = Trimmer(), service(**{**spec, **({"clusterIP": "None", "clusterIPs": ["None"]} if headless else {})})
    slices = [piece(), piece(kind="IPv6")]
    small, small_slices = copy.deepcopy(whole), copy.deepcopy(slices)
    trimmer.service(small)
    for found in small_slices:
        trimmer.endpoint_slice(found)
    for family in (IPV4, IPV6):
        place = Place("node-0", "z")
        want = plan_service(whole, slices, family=family, place=place)
        assert plan_service(small, small_slices, family=family, place=place) == want


def test_what_is_kept_and_shared() -> None:
    trimmer = Trimmer()
    first, second = piece(1), piece(2)
    for found in (first, second):
        trimmer.endpoint_slice(found)
    assert first["ports"] is second["ports"]
    assert first["endpoints"][0]["conditions"] is second["endpoints"][2]["conditions"]
    assert first["metadata"] == {"name": "web-1", "namespace": "ns", "uid": "v", "labels": {"kubernetes.io/service-name": "web"}}
    small = service()
    trimmer.service(small)
    assert small["metadata"].keys() == {"name", "namespace", "uid", "resourceVersion", "labels"}
    assert small["spec"] == {
        "clusterIP": "10.43.0.7",
        "type": "NodePort",
        "ports": [{"name": "http", "port": 80, "nodePort": 30080}],
    }
    kept = service(type="LoadBalancer")
    kept["status"] = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}, "conditions": [{"type": "x"}]}
    trimmer.service(kept)
    assert kept["status"]["conditions"]
