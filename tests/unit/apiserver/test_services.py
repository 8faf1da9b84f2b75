"""Services on the API: families, cluster addresses, node ports, and what changes of type and policy do to them."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator
from typing import Any

import pytest

from k1s.server.config import ServerConfig

from .conftest import SERVICES, Api, running

Object = dict[str, Any]
V4, V6 = ipaddress.ip_network("10.43.0.0/24"), ipaddress.ip_network("fd00:43::/112")


@pytest.fixture
async def dual() -> AsyncIterator[Api]:
    async with running(config=ServerConfig(service_cidr=f"{V4},{V6}")) as api:
        yield api


def service(name: str = "web", **spec: Any) -> Object:
    return {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], "selector": {"app": "web"}, **spec}}


async def made(api: Api, name: str = "web", **spec: Any) -> Object:
    found: Object = (await api.ok("POST", SERVICES, service(name, **spec)))["spec"]
    return found


async def patched(api: Api, name: str = "web", **spec: Any) -> Object:
    change = {"spec": spec}
    found: Object = (await api.ok("PATCH", f"{SERVICES}/{name}", change, type="application/merge-patch+json"))["spec"]
    return found


async def refused(api: Api, method: str, target: str, body: Object) -> str:
    kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
    answer = await api(method, target, body, type=kind)
    assert answer.status == 422, answer.raw
    return str(answer.json["message"])


def families(spec: Object) -> list[Any]:
    in_ranges = [any(ipaddress.ip_address(ip) in net for net in (V4, V6)) for ip in spec.get("clusterIPs") or () if ip != "None"]
    assert all(in_ranges)
    assert spec.get("clusterIP") == (spec.get("clusterIPs") or [None])[0]
    return [spec.get("ipFamilyPolicy"), spec.get("ipFamilies"), [6 if ":" in ip else 4 for ip in spec.get("clusterIPs") or ()]]


@pytest.mark.parametrize(
    ("spec", "want"),
    [
        ({}, ["SingleStack", ["IPv4"], [4]]),
        ({"ipFamilies": ["IPv6"]}, ["SingleStack", ["IPv6"], [6]]),
        ({"ipFamilyPolicy": "PreferDualStack"}, ["PreferDualStack", ["IPv4", "IPv6"], [4, 6]]),
        ({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]}, ["RequireDualStack", ["IPv6", "IPv4"], [6, 4]]),
        ({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6", "IPv4"]}, ["PreferDualStack", ["IPv6", "IPv4"], [6, 4]]),
        ({"clusterIP": "fd00:43::77"}, ["SingleStack", ["IPv6"], [6]]),
        (
            {"clusterIP": "fd00:43::77", "clusterIPs": ["fd00:43::77", "10.43.0.9"], "ipFamilyPolicy": "RequireDualStack"},
            ["RequireDualStack", ["IPv6", "IPv4"], [6, 4]],
        ),
    ],
)
async def test_families_of_a_new_service(dual: Api, spec: Object, want: list[Any]) -> None:
    assert families(await made(dual, **spec)) == want


async def test_families_of_headless_services(api: Api, dual: Api) -> None:
    assert families(await made(dual, clusterIP="None", ipFamilyPolicy="PreferDualStack"))[1] == ["IPv4", "IPv6"]
    # Without a selector only its author knows the addresses: both families, also where the cluster has one.
    bare = await made(api, clusterIP="None", selector=None)
    assert families(bare)[:2] == ["RequireDualStack", ["IPv4", "IPv6"]]
    assert bare["clusterIPs"] == ["None"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"ipFamilyPolicy": "RequireDualStack"}, "this cluster is not configured for dual-stack services"),
        ({"ipFamilies": ["IPv6"]}, 'spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster'),
        ({"clusterIP": "fd00:43::7"}, "IPv6 is not configured on this cluster"),
        ({"clusterIP": "10.99.0.7"}, "failed to allocate IP 10.99.0.7: the provided IP (10.99.0.7) is not in the valid range"),
        (
            {"ipFamilies": ["IPv4", "IPv6"]},
            "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified",
        ),
        ({"clusterIPs": ["10.43.0.7"]}, "must be empty when `clusterIP` is not specified"),
        ({"clusterIP": "10.43.0.7", "clusterIPs": ["10.43.0.8"]}, "first value must match `clusterIP`"),
        (
            {"clusterIP": "10.43.0.7", "clusterIPs": ["10.43.0.7", "10.43.0.8"], "ipFamilyPolicy": "PreferDualStack"},
            "may specify no more than one IP for each IP family",
        ),
        ({"clusterIP": "10.43.0.7", "ipFamilies": ["IPv6"]}, "expected an IPv6 value as indicated by `ipFamilies[0]`"),
    ],
)
async def test_what_a_single_stack_cluster_refuses(api: Api, spec: Object, message: str) -> None:
    assert message in await refused(api, "POST", SERVICES, service(**spec))


async def test_the_second_family_comes_and_goes(dual: Api) -> None:
    first = (await made(dual))["clusterIP"]
    both = await patched(dual, ipFamilyPolicy="PreferDualStack")
    assert families(both) == ["PreferDualStack", ["IPv4", "IPv6"], [4, 6]]
    assert both["clusterIP"] == first
    assert (await patched(dual, sessionAffinity="ClientIP"))["clusterIPs"] == both["clusterIPs"]
    at = f"{SERVICES}/web"
    less = {"spec": {"clusterIPs": [first], "ipFamilies": ["IPv4"]}}
    assert "must be 'SingleStack' to release the secondary" in await refused(dual, "PATCH", at, less)
    single = await patched(dual, ipFamilyPolicy="SingleStack")
    assert families(single) == ["SingleStack", ["IPv4"], [4]]
    # What was given back can be taken by another.
    assert (await made(dual, "other", clusterIP=both["clusterIPs"][1]))["clusterIP"] == both["clusterIPs"][1]
    chosen = await patched(dual, ipFamilyPolicy="RequireDualStack", clusterIPs=[first, "fd00:43::99"])
    assert chosen["clusterIPs"] == [first, "fd00:43::99"]


async def test_first_address_and_family_stay(dual: Api) -> None:
    await made(dual, "one")
    assert "spec.clusterIPs[0]" in await refused(dual, "PATCH", f"{SERVICES}/one", {"spec": {"clusterIP": "10.43.0.99"}})
    await made(dual, ipFamilyPolicy="PreferDualStack")
    at = f"{SERVICES}/web"
    turned = {"spec": {"ipFamilies": ["IPv6", "IPv4"], "clusterIP": "fd00:43::5", "clusterIPs": ["fd00:43::5", "10.43.0.99"]}}
    text = await refused(dual, "PATCH", at, turned)
    assert "spec.ipFamilies[0]" in text
    assert "may not change once set" in text
    # Sending what was there without what the server added changes nothing.
    before = (await dual.ok("GET", at))["spec"]
    after = (await dual.ok("PUT", at, service(ipFamilyPolicy="PreferDualStack")))["spec"]
    assert [after[k] for k in ("clusterIPs", "ipFamilies")] == [before[k] for k in ("clusterIPs", "ipFamilies")]


async def test_external_names_give_up_addresses_and_take_new_ones(dual: Api) -> None:
    await made(dual, ipFamilyPolicy="PreferDualStack", type="NodePort")
    external = await patched(dual, type="ExternalName", externalName="example.com")
    assert not {"clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "externalTrafficPolicy"} & external.keys()
    assert "nodePort" not in external["ports"][0]
    back = await patched(dual, type="ClusterIP", externalName=None)
    assert families(back) == ["SingleStack", ["IPv4"], [4]]
    assert "may not be set for ExternalName" in await refused(
        dual, "POST", SERVICES, service("x", type="ExternalName", externalName="a.b", ipFamilies=["IPv4"])
    )


async def test_node_ports(api: Api) -> None:
    both = [{"name": n, "port": 53, "protocol": p} for n, p in (("udp", "UDP"), ("tcp", "TCP"))]
    dns = await made(api, "dns", type="NodePort", ports=both)
    assert dns["ports"][0]["nodePort"] == dns["ports"][1]["nodePort"]
    number = dns["ports"][0]["nodePort"]
    taken = service("x", type="NodePort", ports=[{"port": 1, "nodePort": number}])
    assert "provided port is already allocated" in await refused(api, "POST", SERVICES, taken)
    away = service("x", type="NodePort", ports=[{"port": 1, "nodePort": 80}])
    assert "The range of valid ports is 30000-32767" in await refused(api, "POST", SERVICES, away)
    # By the port's name, whatever else about it changes.
    moved = [{**both[0], "port": 5353}, {"name": "more", "port": 54}]
    ports = (await api.ok("PUT", f"{SERVICES}/dns", service("dns", type="NodePort", ports=moved)))["spec"]["ports"]
    assert ports[0]["nodePort"] == number
    assert ports[1]["nodePort"] != number
    inside = await patched(api, "dns", type="ClusterIP")
    assert not any("nodePort" in port for port in inside["ports"])
    assert "externalTrafficPolicy" not in inside
    assert (await made(api, "y", type="NodePort", ports=[{"port": 1, "nodePort": number}]))["ports"][0]["nodePort"] == number


async def test_balancers_without_node_ports(api: Api) -> None:
    spec = await made(api, type="LoadBalancer", allocateLoadBalancerNodePorts=False)
    assert "nodePort" not in spec["ports"][0]
    assert "nodePort" in (await patched(api, allocateLoadBalancerNodePorts=True))["ports"][0]
    kept = await patched(api, allocateLoadBalancerNodePorts=False)
    assert "nodePort" not in kept["ports"][0], "the ports go with what asked for them, unless the client chose them"
    inside = await patched(api, type="ClusterIP")
    assert "allocateLoadBalancerNodePorts" not in inside
    assert "loadBalancerClass" not in inside


async def test_health_check_node_port(api: Api) -> None:
    spec = await made(api, type="LoadBalancer", externalTrafficPolicy="Local")
    number = spec["healthCheckNodePort"]
    assert number not in (0, spec["ports"][0]["nodePort"])
    at = f"{SERVICES}/web"
    assert (await api.ok("PUT", at, service(type="LoadBalancer", externalTrafficPolicy="Local")))["spec"][
        "healthCheckNodePort"
    ] == number
    assert "field is immutable" in await refused(api, "PATCH", at, {"spec": {"healthCheckNodePort": number ^ 1}})
    assert "healthCheckNodePort" not in await patched(api, externalTrafficPolicy="Cluster")
    assert (await patched(api, externalTrafficPolicy="Local", healthCheckNodePort=number))["healthCheckNodePort"] == number
    taken = service("x", type="LoadBalancer", externalTrafficPolicy="Local", healthCheckNodePort=number)
    assert "already allocated" in await refused(api, "POST", SERVICES, taken)
    only = service("x", healthCheckNodePort=30123)
    assert "may only be set when `type` is 'LoadBalancer'" in await refused(api, "POST", SERVICES, only)


async def test_ranges_of_service_cidrs(api: Api) -> None:
    cidrs = "/apis/networking.k8s.io/v1/servicecidrs"
    extra = {"metadata": {"name": "more", "finalizers": ["example.com/hold"]}, "spec": {"cidrs": ["10.99.0.0/24"]}}
    await api.ok("POST", cidrs, extra)
    assert (await made(api, clusterIP="10.99.0.7"))["clusterIP"] == "10.99.0.7"
    assert "is not in the valid range" in await refused(api, "POST", SERVICES, service("x", clusterIP="10.99.0.255"))
    await api.ok("DELETE", f"{cidrs}/more")
    assert "is not in the valid range" in await refused(api, "POST", SERVICES, service("x", clusterIP="10.99.0.8"))
    assert (await patched(api, sessionAffinity="ClientIP"))["clusterIP"] == "10.99.0.7"


async def test_an_address_that_something_else_holds(api: Api) -> None:
    addresses = "/apis/networking.k8s.io/v1/ipaddresses"
    gateway = {"parentRef": {"group": "example.com", "resource": "gateways", "namespace": "default", "name": "g"}}
    await api.ok("POST", addresses, {"metadata": {"name": "10.43.0.77"}, "spec": gateway})
    assert "already allocated" in await refused(api, "POST", SERVICES, service(clusterIP="10.43.0.77"))


async def test_small_ranges_fill_up() -> None:
    async with running(config=ServerConfig(service_cidr="10.43.0.0/29", cluster_dns="10.43.0.2")) as api:
        # Of eight addresses two are no hosts', two are kept for those who ask by name.
        assert len({(await made(api, f"s{n}"))["clusterIP"] for n in range(4)}) == 4
        answer = await api("POST", SERVICES, service("more"))
        assert "range is full" in answer.json["message"]
        assert (await made(api, "dns", clusterIP="10.43.0.2"))["clusterIP"] == "10.43.0.2"


async def test_a_balancers_addresses_go_with_it(api: Api) -> None:
    await made(api, type="LoadBalancer")
    status = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}
    kind = "application/merge-patch+json"
    await api.ok("PATCH", f"{SERVICES}/web/status", status, type=kind)
    await patched(api, sessionAffinity="ClientIP")
    assert (await api.ok("GET", f"{SERVICES}/web"))["status"]["loadBalancer"]["ingress"]
    await patched(api, type="ClusterIP")
    assert not (await api.ok("GET", f"{SERVICES}/web"))["status"]["loadBalancer"]
    answer = await api("PATCH", f"{SERVICES}/web/status", status, type=kind)
    assert answer.status == 422
    assert "may only be used when `spec.type` is" in answer.json["message"]
