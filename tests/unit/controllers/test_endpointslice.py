"""EndpointSlices on the fake API and the pure plan."""

from __future__ import annotations

from typing import Any

import pytest
from controllers_fake_api import Bench

from k1s.server.controllers import endpointslice_hints as hints
from k1s.server.controllers.endpointslice import EndpointSliceController, plan

PORTS = [{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP", "appProtocol": "h2c"}]
CONTAINERS = [{"name": "c", "ports": [{"name": "web", "containerPort": 8080, "protocol": "TCP"}]}]


def pod(number: int, *, ready: bool = True, port: int = 8080, **more: Any) -> dict[str, Any]:
    ports = [{"name": "web", "containerPort": port, "protocol": "TCP"}]
    ip = f"10.42.{number // 250}.{number % 250 + 2}"
    return {
        "metadata": {"name": f"p{number}", "namespace": "default", "uid": f"u{number}", "labels": {"app": "a"}, **more},
        "spec": {"nodeName": "node1", "containers": [{"name": "c", "ports": ports}]},
        "status": {"phase": "Running", "podIPs": [{"ip": ip}], "conditions": [{"type": "Ready", "status": str(ready)}]},
    }


def service(**spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "s", "namespace": "default", "uid": "us", "labels": {"team": "x"}},
        "spec": {"selector": {"app": "a"}, "ports": PORTS, "clusterIP": "10.43.0.1", "ipFamilies": ["IPv4"], **spec},
    }


def slices_of(todo: Any) -> list[int]:
    return [len(s["endpoints"]) for s in todo.create]


def no_zone(node: str) -> str:
    return ""


def test_one_slice_with_everything_in_it() -> None:
    todo = plan(service(), [pod(1), pod(2, ready=False), pod(3, deletionTimestamp="x")], [], lambda node: "z1")
    (made,) = todo.create
    assert made["metadata"]["labels"] == {
        "team": "x", "kubernetes.io/service-name": "s",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    }  # fmt: skip
    assert made["metadata"]["ownerReferences"][0]["uid"] == "us" and made["metadata"]["generateName"] == "s-"
    assert made["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP", "appProtocol": "h2c"}]
    assert [e["conditions"] for e in made["endpoints"]] == [
        {"ready": True, "serving": True, "terminating": False},
        {"ready": False, "serving": False, "terminating": False},
        {"ready": False, "serving": True, "terminating": True},
    ]
    assert made["endpoints"][0] == {
        "addresses": ["10.42.0.3"], "conditions": {"ready": True, "serving": True, "terminating": False}, "nodeName": "node1",
        "zone": "z1", "targetRef": {"kind": "Pod", "namespace": "default", "name": "p1", "uid": "u1"},
    }  # fmt: skip


def test_unready_is_ready_when_published() -> None:
    (made,) = plan(service(publishNotReadyAddresses=True), [pod(1, ready=False)], [], no_zone).create
    assert made["endpoints"][0]["conditions"] == {"ready": True, "serving": False, "terminating": False}


def test_headless_without_ports_and_with_hostnames() -> None:
    headless = service(clusterIP="None", ports=[])
    member = pod(1)
    member["spec"].update(hostname="h", subdomain="s")
    (made,) = plan(headless, [member], [], no_zone).create
    assert made["ports"] == [] and made["endpoints"][0]["hostname"] == "h"
    assert made["metadata"]["labels"]["service.kubernetes.io/headless"] == ""


def test_pods_with_other_ports_get_another_slice_and_ended_ones_none() -> None:
    ended = pod(3)
    ended["status"]["phase"] = "Succeeded"
    todo = plan(service(), [pod(1), pod(2, port=9090), ended], [], no_zone)
    assert slices_of(todo) == [1, 1]
    assert sorted(s["ports"][0]["port"] for s in todo.create) == [8080, 9090]


def test_an_empty_service_has_one_empty_slice() -> None:
    assert slices_of(plan(service(), [], [], no_zone)) == [0]


def test_slices_hold_at_most_100_and_change_as_little_as_possible() -> None:
    members = [pod(n) for n in range(250)]
    todo = plan(service(), members, [], no_zone)
    assert slices_of(todo) == [100, 100, 50]
    existing = [{**s, "metadata": {**s["metadata"], "name": f"s-{i}"}} for i, s in enumerate(todo.create)]
    again = plan(service(), members, existing, no_zone)
    assert not again.create and not again.update and not again.delete
    fewer = plan(service(), [*members[1:], pod(999)], existing, no_zone)
    assert not fewer.create and not fewer.delete
    assert [s["metadata"]["name"] for s in fewer.update] == ["s-0"]
    gone = plan(service(), members[:100], existing, no_zone)
    assert [s["metadata"]["name"] for s in gone.delete] == ["s-1", "s-2"] and not gone.update


def test_the_empty_slice_becomes_the_first_real_one() -> None:
    (empty,) = plan(service(), [], [], no_zone).create
    empty["metadata"]["name"] = "s-1"
    todo = plan(service(), [pod(1)], [empty], no_zone)
    assert not todo.create and not todo.delete
    assert [(s["metadata"]["name"], len(s["endpoints"]), s["ports"][0]["port"]) for s in todo.update] == [("s-1", 1, 8080)]


def test_a_service_that_lost_its_selector_loses_its_slices() -> None:
    (made,) = plan(service(), [pod(1)], [], no_zone).create
    assert plan(service(selector=None), [], [made], no_zone).delete == [made]


async def test_follows_pods_and_never_makes_a_slice_twice() -> None:
    async with Bench(EndpointSliceController) as bench:
        api = bench.api
        api.add("Node", metadata={"name": "node1"})
        api.add("Service", metadata={"name": "s"}, spec=service()["spec"])
        await bench.settle()
        assert [s["endpoints"] for s in api.objects("EndpointSlice")] == [[]]
        api.add("Pod", **{k: v for k, v in pod(1).items()})
        await bench.settle()
        (found,) = api.objects("EndpointSlice")
        assert [e["targetRef"]["name"] for e in found["endpoints"]] == ["p1"]
        writes = len(api.calls)
        api.set("Pod", "p1", metadata={"annotations": {"irrelevant": "1"}})
        await bench.settle()
        assert len(api.calls) == writes
        api.set("Pod", "p1", metadata={"labels": {"app": "b"}})
        await bench.settle()
        assert api.objects("EndpointSlice")[0]["endpoints"] == []
        api.kill("EndpointSlice", api.objects("EndpointSlice")[0]["metadata"]["name"])
        await bench.settle()
        assert len(api.objects("EndpointSlice")) == 1
        api.held = []
        api.kill("EndpointSlice", api.objects("EndpointSlice")[0]["metadata"]["name"])
        api.held.pop(0)()
        await bench.settle()
        bench.controllers[0].controller.add("default/s")
        await bench.settle()
        assert len(api.objects("EndpointSlice")) == 1
        api.release()


async def test_endpoints_leave_with_their_node_and_follow_its_zone() -> None:
    async with Bench(EndpointSliceController) as bench:
        api = bench.api
        api.add("Node", metadata={"name": "node1", "labels": {hints.ZONE: "a"}})
        api.add("Service", metadata={"name": "s"}, spec=service(trafficDistribution="PreferClose")["spec"])
        api.add("Pod", **pod(1))
        await bench.settle()

        def zones() -> list[Any]:
            return [(e["zone"], e["hints"]["forZones"][0]["name"]) for e in api.objects("EndpointSlice")[0]["endpoints"]]

        assert zones() == [("a", "a")]
        api.set("Node", "node1", "", metadata={"labels": {hints.ZONE: "b"}})
        await bench.settle()
        assert zones() == [("b", "b")]
        api.kill("Node", "node1", "")
        await bench.settle()
        assert zones() == []


async def test_who_publishes_unready_pods_keeps_those_of_lost_nodes() -> None:
    async with Bench(EndpointSliceController) as bench:
        bench.api.add("Service", metadata={"name": "s"}, spec=service(publishNotReadyAddresses=True)["spec"])
        bench.api.add("Pod", **pod(1))
        await bench.settle()
        assert len(bench.api.objects("EndpointSlice")[0]["endpoints"]) == 1


def zone_by_node(node: str) -> str:
    return {"node1": "a", "node2": "b", "node3": "c"}.get(node, "")


def placed(number: int, node: str, **more: Any) -> dict[str, Any]:
    found = pod(number, **more)
    found["spec"]["nodeName"] = node
    return found


@pytest.mark.parametrize(
    ("distribution", "want"),
    [
        ("PreferClose", {"forZones": [{"name": "a"}]}),
        ("PreferSameZone", {"forZones": [{"name": "a"}]}),
        ("PreferSameNode", {"forZones": [{"name": "a"}], "forNodes": [{"name": "node1"}]}),
        (None, None),
    ],
)
def test_traffic_distribution(distribution: str | None, want: Any) -> None:
    members = [placed(1, "node1"), placed(2, "node1", ready=False)]
    (made,) = plan(service(trafficDistribution=distribution), members, [], zone_by_node).create
    assert [e.get("hints") for e in made["endpoints"]] == [want, None]
    made["metadata"]["name"] = "s-1"
    # Taken back when the Service no longer wants them.
    (after,) = plan(service(), members, [made], zone_by_node).update if want else ({"endpoints": []},)
    assert not any("hints" in e for e in after["endpoints"])


def auto(members: list[Any], shares: dict[str, float]) -> list[Any]:
    balanced = service(trafficDistribution="PreferSameNode")
    balanced["metadata"]["annotations"] = {hints.MODE: "Auto"}
    made = plan(balanced, members, [], zone_by_node, shares).create
    return [(e["zone"], (e.get("hints") or {}).get("forZones", [{}])[0].get("name")) for s in made for e in s["endpoints"]]


def test_topology_mode_auto_shares_endpoints_out_by_cpus() -> None:
    halves = {"a": 0.5, "b": 0.5}
    even = [placed(n, f"node{1 + n % 2}") for n in range(4)]
    assert all(zone == hint for zone, hint in auto(even, halves))
    # Three of four in one zone: one of them is for the other.
    found = auto([placed(n, "node1") for n in range(3)] + [placed(9, "node2")], halves)
    assert sorted(hint for _, hint in found) == ["a", "a", "b", "b"]
    assert dict(found[-1:]) == {"b": "b"}
    # A zone without its share of endpoints, or none at all known, means no hints.
    for members, shares in (([placed(1, "node1")], halves), (even, {}), (even, {"a": 1.0})):
        assert {hint for _, hint in auto(members, shares)} == {None}


def test_zones_weigh_what_their_ready_workers_have() -> None:
    def node(zone: str, cpu: str, ready: str = "True", **labels: str) -> dict[str, Any]:
        status = {"conditions": [{"type": "Ready", "status": ready}], "allocatable": {"cpu": cpu}}
        return {"metadata": {"name": zone, "labels": {hints.ZONE: zone, **labels}}, "status": status}

    server = node("c", "64", **{"node-role.kubernetes.io/control-plane": "true"})
    assert hints.cpu_shares([node("a", "3"), node("b", "500m"), node("b", "500m"), server]) == {"a": 0.75, "b": 0.25}
    assert hints.cpu_shares([node("a", "3"), node("b", "1", "False")]) == {}
    assert hints.cpu_shares([node("a", "3"), node("", "1")]) == {}


def test_two_families_have_slices_of_their_own() -> None:
    both = pod(1)
    both["status"]["podIPs"].append({"ip": "fd00:42::2"})
    todo = plan(service(ipFamilies=["IPv6", "IPv4"]), [both, pod(2)], [], no_zone)
    found = {s["addressType"]: [e["addresses"][0] for e in s["endpoints"]] for s in todo.create}
    assert found == {"IPv4": ["10.42.0.3", "10.42.0.4"], "IPv6": ["fd00:42::2"]}
    existing = [{**s, "metadata": {**s["metadata"], "name": s["addressType"]}} for s in todo.create]
    less = plan(service(ipFamilies=["IPv4"]), [both, pod(2)], existing, no_zone)
    assert [s["metadata"]["name"] for s in less.delete] == ["IPv6"]
    assert not less.update
