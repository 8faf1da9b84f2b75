"""IPAddress objects, ServiceCIDRs and the Service `kubernetes` on the fake API."""

from __future__ import annotations

from typing import Any

from controllers_fake_api import Bench, FakeApi

from k1s.api.catalog import builtin
from k1s.server.controllers.kubernetes_service import KubernetesServiceController
from k1s.server.controllers.service_addresses import ServiceAddressController
from k1s.server.controllers.service_cidr import FINALIZER, ServiceCidrController

GATEWAY = {"group": "example.com", "resource": "gateways", "namespace": "default", "name": "g"}


def service(api: FakeApi, name: str, *ips: str) -> None:
    api.add("Service", metadata={"name": name}, spec={"clusterIP": ips[0], "clusterIPs": list(ips)})


def held(api: FakeApi) -> dict[str, str]:
    return {found["metadata"]["name"]: found["spec"]["parentRef"]["name"] for found in api.objects("IPAddress")}


async def test_every_cluster_address_has_an_object() -> None:
    async with Bench(ServiceAddressController) as bench:
        api = bench.api
        service(api, "web", "10.43.0.7", "fd00:43::7")
        service(api, "headless", "None")
        await bench.settle()
        assert held(api) == {"10.43.0.7": "web", "fd00:43::7": "web"}
        found = api.object("IPAddress", "fd00:43::7", "")
        assert found["metadata"]["labels"] == {
            "ipaddress.kubernetes.io/ip-family": "IPv6",
            "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
        }
        assert found["spec"]["parentRef"] == {"group": "", "resource": "services", "namespace": "default", "name": "web"}
        # The second family goes, the address goes to another, an object is deleted by hand.
        api.set("Service", "web", spec={"clusterIPs": ["10.43.0.7"]})
        await bench.settle()
        assert held(api) == {"10.43.0.7": "web"}
        api.kill("Service", "web")
        service(api, "other", "10.43.0.7")
        await bench.settle()
        assert held(api) == {"10.43.0.7": "other"}
        api.kill("IPAddress", "10.43.0.7", "")
        await bench.settle()
        assert held(api) == {"10.43.0.7": "other"}


async def test_addresses_of_others_are_left_alone() -> None:
    async with Bench(ServiceAddressController) as bench:
        api = bench.api
        api.add("IPAddress", metadata={"name": "10.43.0.8"}, spec={"parentRef": GATEWAY})
        stamp = bench.controllers[0].stamp()
        ours = {"resource": "services", "namespace": "default", "name": "later"}
        api.add("IPAddress", metadata={"name": "10.43.0.9", "creationTimestamp": stamp}, spec={"parentRef": ours})
        await bench.settle()
        assert held(api) == {"10.43.0.8": "g", "10.43.0.9": "later"}
        await bench.settle(90)
        assert held(api) == {"10.43.0.8": "g"}, "one for a Service that never came goes after a while"


def cidr(api: FakeApi, name: str, *cidrs: str, **metadata: Any) -> None:
    api.add("ServiceCIDR", metadata={"name": name, **metadata}, spec={"cidrs": list(cidrs)})


def ready(api: FakeApi, name: str) -> str:
    (condition,) = api.object("ServiceCIDR", name, "")["status"]["conditions"]
    return str(condition["status"])


async def test_a_range_in_use_waits_for_its_last_address() -> None:
    async with Bench(ServiceCidrController, ServiceAddressController) as bench:
        api = bench.api
        cidr(api, "kubernetes", "10.43.0.0/16")
        cidr(api, "more", "10.99.0.0/24")
        service(api, "web", "10.99.0.7")
        await bench.settle()
        assert (ready(api, "kubernetes"), ready(api, "more")) == ("True", "True")
        writes = len(api.calls)
        await bench.settle(30)
        assert len(api.calls) == writes, "nothing to do, nothing written"
        assert api.object("ServiceCIDR", "more", "")["metadata"]["finalizers"] == [FINALIZER]
        await api.delete(builtin("ServiceCIDR"), "more")
        await bench.settle()
        assert ready(api, "more") == "False"
        assert api.object("ServiceCIDR", "more", "")["status"]["conditions"][0]["reason"] == "Terminating"
        api.kill("Service", "web")
        await bench.settle()
        assert [found["metadata"]["name"] for found in api.objects("ServiceCIDR")] == ["kubernetes"]


async def test_a_range_may_go_when_another_holds_its_addresses() -> None:
    async with Bench(ServiceCidrController, ServiceAddressController) as bench:
        api = bench.api
        cidr(api, "more", "10.99.0.0/24")
        service(api, "web", "10.99.0.7")
        await bench.settle()
        await api.delete(builtin("ServiceCIDR"), "more")
        await bench.settle()
        assert ready(api, "more") == "False"
        cidr(api, "larger", "10.99.0.0/16")
        await bench.settle()
        assert [found["metadata"]["name"] for found in api.objects("ServiceCIDR")] == ["larger"]


async def test_the_service_of_the_api_server_comes_back_as_it_was() -> None:
    async with Bench(KubernetesServiceController) as bench:
        api = bench.api
        labels = {"component": "apiserver"}
        spec = {"clusterIP": "10.43.0.1", "clusterIPs": ["10.43.0.1"], "ports": [{"name": "https", "port": 443}]}
        api.add("Service", metadata={"name": "kubernetes", "labels": labels}, spec=spec)
        service(api, "web", "10.43.0.7")
        await bench.settle()
        before = api.object("Service", "kubernetes")
        for name in ("kubernetes", "web"):
            api.kill("Service", name)
        await bench.settle()
        (after,) = api.objects("Service")
        assert (after["spec"], after["metadata"]["labels"]) == (before["spec"], labels)
        assert after["metadata"]["uid"] != before["metadata"]["uid"]
