"""LoadBalancer Services: the controller in virtual time."""

from __future__ import annotations

from typing import Any

from controllers_fake_api import Bench

from k1s.net.announce import eligible
from k1s.server.controllers.config import ControllerConfig
from k1s.server.controllers.service_lb import FINALIZER, ServiceLoadBalancerController
from k1s.server.controllers.service_lb_plan import BalancerConfig
from k1s.server.controllers.service_lb_pool import parse_pools

Object = dict[str, Any]


def bench(*pools: str, enabled: bool = True, nodes: int = 2) -> Bench:
    made = Bench(
        ServiceLoadBalancerController,
        config=ControllerConfig(load_balancer=BalancerConfig(enabled, parse_pools(pools))),
    )
    for number in range(1, nodes + 1):
        add_node(made, f"n{number}", f"192.0.2.{number}")
    return made


def add_node(made: Bench, name: str, address: str, *, ready: str = "True", **labels: str) -> None:
    status = {"addresses": [{"type": "InternalIP", "address": address}], "conditions": [{"type": "Ready", "status": ready}]}
    made.api.add("Node", metadata={"name": name, "labels": labels}, spec={}, status=status)


def add_service(made: Bench, name: str, port: int = 80, labels: dict[str, str] | None = None, **spec: Any) -> None:
    full = {"type": "LoadBalancer", "ipFamilies": ["IPv4"], "ports": [{"port": port, "protocol": "TCP"}], **spec}
    made.api.add("Service", metadata={"name": name, "labels": labels or {}}, spec=full)


def add_endpoint(made: Bench, service: str, *nodes: str) -> None:
    endpoints = [{"addresses": [f"10.42.0.{n}"], "nodeName": node} for n, node in enumerate(nodes, 1)]
    metadata = {"name": f"{service}-x", "labels": {"kubernetes.io/service-name": service}}
    made.api.add("EndpointSlice", metadata=metadata, addressType="IPv4", endpoints=endpoints)


def addresses(made: Bench, name: str) -> list[str]:
    ingress = made.api.object("Service", name).get("status", {}).get("loadBalancer", {}).get("ingress") or []
    assert all(entry["ipMode"] == "VIP" for entry in ingress)
    return [entry["ip"] for entry in ingress]


def reason(made: Bench, name: str) -> str:
    return next(c["reason"] for c in made.api.object("Service", name)["status"]["conditions"] if c["type"] == eligible.CONDITION)


async def test_a_service_gets_the_addresses_of_the_ready_nodes_and_follows_them() -> None:
    async with bench() as b:
        add_service(b, "web")
        await b.settle()
        assert addresses(b, "web") == ["192.0.2.1", "192.0.2.2"]
        assert b.api.object("Service", "web")["metadata"]["finalizers"] == [FINALIZER]
        assert b.reasons() == ["EnsuringLoadBalancer", "EnsuredLoadBalancer"]
        before = len(b.api.calls)
        b.api.set("Node", "n1", metadata={"annotations": {"a": "b"}})
        await b.settle()
        assert len(b.api.calls) == before, "nothing changed, nothing is written"
        b.api.set("Node", "n1", status={"conditions": [{"type": "Ready", "status": "Unknown"}]})
        await b.settle()
        assert addresses(b, "web") == ["192.0.2.2"]
        b.api.kill("Node", "n2")
        await b.settle()
        assert addresses(b, "web") == []
        assert b.reasons()[2:] == ["UpdatedLoadBalancer", "UnAvailableLoadBalancer"]


async def test_a_deleted_service_goes_at_once() -> None:
    async with bench() as b:
        add_service(b, "web")
        await b.settle()
        await b.api.delete(b.controllers[0].services.resource, "web", "default")
        await b.settle()
        assert b.api.objects("Service") == []
        assert b.reasons()[-2:] == ["DeletingLoadBalancer", "DeletedLoadBalancer"]


async def test_a_service_of_another_class_is_never_touched_and_ours_is() -> None:
    async with bench() as b:
        add_service(b, "theirs", loadBalancerClass="example.com/metal")
        add_service(b, "ours", loadBalancerClass="k1s.io/servicelb")
        await b.settle()
        assert "status" not in b.api.object("Service", "theirs")
        assert "finalizers" not in b.api.object("Service", "theirs")["metadata"]
        assert addresses(b, "ours") == ["192.0.2.1", "192.0.2.2"]


async def test_what_stops_being_a_load_balancer_is_taken_back() -> None:
    async with bench() as b:
        add_service(b, "web")
        await b.settle()
        b.api.set(
            "Service", "web", status={"conditions": [*b.api.object("Service", "web")["status"]["conditions"], {"type": "X"}]}
        )
        b.api.set("Service", "web", spec={"type": "ClusterIP"})
        await b.settle()
        found = b.api.object("Service", "web")
        assert addresses(b, "web") == []
        assert found["status"]["conditions"] == [{"type": "X"}], "others' conditions stay"
        assert found["metadata"]["finalizers"] == []


async def test_disabled_it_serves_nothing_and_gives_back_what_it_served() -> None:
    async with bench() as b:
        add_service(b, "web")
        await b.settle()
    async with Bench(
        ServiceLoadBalancerController, config=ControllerConfig(load_balancer=BalancerConfig(enabled=False)), api=b.api
    ) as off:
        add_service(off, "new")
        await off.settle()
        assert addresses(off, "web") == []
        assert off.api.object("Service", "web")["metadata"]["finalizers"] == []
        assert "status" not in off.api.object("Service", "new")


async def test_the_older_service_has_the_port_and_the_other_hears_of_it() -> None:
    async with bench() as b:
        add_service(b, "first")
        await b.settle(2)
        add_service(b, "second")
        add_service(b, "beside", port=81)
        await b.settle()
        assert addresses(b, "second") == []
        assert addresses(b, "beside") == ["192.0.2.1", "192.0.2.2"]
        (event,) = [e for e in b.api.objects("Event") if e["reason"] == "SyncLoadBalancerFailed"]
        assert "80/TCP of the nodes is taken by Service default/first" in event["message"]
        b.api.kill("Service", "first")
        await b.settle()
        assert addresses(b, "second") == ["192.0.2.1", "192.0.2.2"]


async def test_ports_of_the_nodes_are_refused() -> None:
    async with bench() as b:
        for name, port in (("api", 6443), ("kubelet", 10250)):
            add_service(b, name, port=port)
        await b.settle()
        assert [reason(b, name) for name in ("api", "kubelet")] == ["PortReserved", "PortReserved"]
        assert addresses(b, "api") == addresses(b, "kubelet") == []


async def test_a_port_that_a_pod_or_a_node_port_had_before_is_not_taken() -> None:
    async with bench() as b:
        containers = [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}]}]
        b.api.add("Pod", metadata={"name": "proxy"}, spec={"nodeName": "n1", "containers": containers}, status={})
        ports = [{"port": 1, "nodePort": 32400, "protocol": "TCP"}]
        b.api.add("Service", metadata={"name": "old"}, spec={"type": "NodePort", "ports": ports})
        await b.settle(2)
        add_service(b, "web")
        add_service(b, "media", port=32400)
        await b.settle()
        assert addresses(b, "web") == ["192.0.2.2"]
        assert addresses(b, "media") == []
        messages = [e["message"] for e in b.api.objects("Event") if e["reason"] == "SyncLoadBalancerFailed"]
        assert ["32400/TCP of the nodes is taken by Service default/old as its node port" in m for m in messages] == [True]
        b.api.set("Pod", "proxy", status={"phase": "Succeeded"})
        b.api.kill("Service", "old")
        await b.settle()
        assert addresses(b, "web") == addresses(b, "media") == ["192.0.2.1", "192.0.2.2"]
        # What comes later does not push out who is there.
        b.api.add("Pod", metadata={"name": "late"}, spec={"nodeName": "n1", "containers": containers}, status={})
        await b.settle()
        assert addresses(b, "web") == ["192.0.2.1", "192.0.2.2"]


async def test_local_traffic_policy_takes_nodes_with_endpoints_only() -> None:
    async with bench(nodes=3) as b:
        add_service(b, "web", externalTrafficPolicy="Local")
        await b.settle()
        assert (addresses(b, "web"), reason(b, "web")) == ([], "NoLocalEndpoints")
        add_endpoint(b, "web", "n3", "n1")
        await b.settle()
        assert addresses(b, "web") == ["192.0.2.1", "192.0.2.3"]
        b.api.kill("EndpointSlice", "web-x")
        await b.settle()
        assert addresses(b, "web") == []
        assert "SyncLoadBalancerFailed" not in b.reasons()


async def test_labels_choose_nodes_as_with_k3s() -> None:
    async with bench() as b:
        add_node(b, "n3", "192.0.2.3", **{eligible.ENABLE_LABEL: "true", eligible.POOL_LABEL: "a"})
        add_node(b, "n4", "192.0.2.4", **{eligible.ENABLE_LABEL: "true", eligible.POOL_LABEL: "b"})
        add_node(b, "n5", "192.0.2.5", **{eligible.ENABLE_LABEL: "true", eligible.EXCLUDE_LABEL: ""})
        add_service(b, "any", port=80)
        add_service(b, "pooled", port=81, labels={eligible.POOL_LABEL: "b"})
        await b.settle()
        assert addresses(b, "any") == ["192.0.2.3", "192.0.2.4"]
        assert addresses(b, "pooled") == ["192.0.2.4"]


async def test_a_pool_gives_each_service_an_address_that_it_keeps() -> None:
    async with bench("192.0.2.240-192.0.2.241") as b:
        add_service(b, "a")
        await b.settle(2)
        add_service(b, "b")
        await b.settle(2)
        add_service(b, "c")
        await b.settle()
        assert [addresses(b, n) for n in "abc"] == [["192.0.2.240"], ["192.0.2.241"], []]
        assert reason(b, "a") == eligible.FROM_POOL
        assert reason(b, "c") == "PoolExhausted"
        assert b.api.object("Secret", "k1s-load-balancer", "kube-system")["data"]["key"]
        b.api.kill("Service", "a")
        await b.settle()
        assert [addresses(b, n) for n in "bc"] == [["192.0.2.241"], ["192.0.2.240"]]
    restarted = Bench(
        ServiceLoadBalancerController,
        config=ControllerConfig(load_balancer=BalancerConfig(pools=parse_pools(["192.0.2.230-192.0.2.250"]))),
        api=b.api,
    )
    async with restarted:
        assert [addresses(b, n) for n in "bc"] == [["192.0.2.241"], ["192.0.2.240"]], "a larger pool moves nobody"


async def test_addresses_asked_for_are_honoured_or_refused() -> None:
    async with bench("192.0.2.240-192.0.2.250") as b:
        add_service(b, "a", loadBalancerIP="192.0.2.245")
        await b.settle(2)
        add_service(b, "b", loadBalancerIP="192.0.2.245")
        add_service(b, "c", loadBalancerIP="192.0.3.1")
        add_service(b, "d")
        b.api.set("Service", "d", metadata={"annotations": {"metallb.io/loadBalancerIPs": "192.0.2.250"}})
        await b.settle()
        assert [addresses(b, n) for n in "abcd"] == [["192.0.2.245"], [], [], ["192.0.2.250"]]
        assert [reason(b, n) for n in "bc"] == ["AddressInUse", "AddressNotInPool"]
        messages = [e["message"] for e in b.api.objects("Event") if e["reason"] == "SyncLoadBalancerFailed"]
        assert any("192.0.2.245 is the address of Service default/a" in m for m in messages)
        b.api.set("Service", "a", spec={"loadBalancerIP": "192.0.2.246"})
        await b.settle()
        assert [addresses(b, n) for n in "ab"] == [["192.0.2.246"], ["192.0.2.245"]]


async def test_the_key_of_the_heartbeats_is_made_again_and_only_with_a_pool() -> None:
    async with bench() as b:
        await b.settle()
        assert b.api.objects("Secret") == []
    async with bench("192.0.2.240/29") as b:
        await b.settle()
        first = b.api.object("Secret", "k1s-load-balancer", "kube-system")["data"]["key"]
        b.api.kill("Secret", "k1s-load-balancer", "kube-system")
        await b.settle()
        assert b.api.object("Secret", "k1s-load-balancer", "kube-system")["data"]["key"] != first
