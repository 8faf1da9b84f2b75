"""EndpointSlices on the fake API and the pure plan."""

from __future__ import annotations

from typing import Any

from controllers_fake_api import Bench

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
