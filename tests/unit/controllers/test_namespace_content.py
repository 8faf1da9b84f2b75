"""What every namespace gets (default ServiceAccount, root CA), and pod ranges for nodes."""

from __future__ import annotations

import pytest
from controllers_fake_api import Bench

from k1s.server.controllers.config import ControllerConfig
from k1s.server.controllers.node_ipam import NodeIpamController, choose
from k1s.server.controllers.root_ca import RootCaController
from k1s.server.controllers.service_account import ServiceAccountController

NAME = "kube-root-ca.crt"


async def test_default_account_comes_and_comes_back() -> None:
    async with Bench(ServiceAccountController) as bench:
        bench.api.add("Namespace", metadata={"name": "n"}, spec={})
        bench.api.add("Namespace", metadata={"name": "going"}, spec={}, status={"phase": "Terminating"})
        await bench.settle()
        assert [o["metadata"]["namespace"] for o in bench.api.objects("ServiceAccount")] == ["n"]
        bench.api.kill("ServiceAccount", "default", "n")
        await bench.settle()
        assert bench.api.object("ServiceAccount", "default", "n")


async def test_root_ca_is_published_and_put_right() -> None:
    async with Bench(RootCaController, config=ControllerConfig(ca_bundle="PEM")) as bench:
        bench.api.add("Namespace", metadata={"name": "n"}, spec={})
        await bench.settle()
        assert bench.api.object("ConfigMap", NAME, "n")["data"] == {"ca.crt": "PEM"}
        bench.api.set("ConfigMap", NAME, "n", data={"ca.crt": "other", "more": "x"})
        await bench.settle()
        assert bench.api.object("ConfigMap", NAME, "n")["data"] == {"ca.crt": "PEM"}
        bench.api.kill("ConfigMap", NAME, "n")
        await bench.settle()
        assert bench.api.object("ConfigMap", NAME, "n")["data"] == {"ca.crt": "PEM"}


@pytest.mark.parametrize(
    ("taken", "expected"),
    [
        ([], "10.42.0.0/24"),
        (["10.42.0.0/24", "10.42.2.0/24"], "10.42.1.0/24"),
        (["10.42.0.0/23"], "10.42.2.0/24"),
        (["10.42.0.128/25", "fd00::/64"], "10.42.1.0/24"),
        ([f"10.42.{n}.0/24" for n in range(256)], ""),
    ],
)
def test_choose_a_range(taken: list[str], expected: str) -> None:
    assert choose("10.42.0.0/16", 24, taken) == expected


async def test_nodes_get_ranges_even_before_the_cache_shows_the_last_one() -> None:
    async with Bench(NodeIpamController, config=ControllerConfig(cluster_cidr="10.42.0.0/23")) as bench:
        for name in ("a", "b", "c"):
            bench.api.add("Node", metadata={"name": name}, spec={})
        bench.api.held = []
        await bench.settle()
        ranges = {o["metadata"]["name"]: o["spec"].get("podCIDR") for o in bench.api.objects("Node")}
        assert ranges == {"a": "10.42.0.0/24", "b": "10.42.1.0/24", "c": None}
        bench.api.release()
        assert bench.api.object("Node", "a")["spec"]["podCIDRs"] == ["10.42.0.0/24"]
        bench.api.kill("Node", "a")
        await bench.settle()
        assert bench.api.object("Node", "c")["spec"]["podCIDR"] == "10.42.0.0/24"


async def test_two_families_give_two_ranges() -> None:
    async with Bench(NodeIpamController, config=ControllerConfig(cluster_cidr="10.42.0.0/16,fd42::/48")) as bench:
        bench.api.add("Node", metadata={"name": "a"}, spec={})
        bench.api.add("Node", metadata={"name": "b"}, spec={})
        await bench.settle()
        assert bench.api.object("Node", "b")["spec"] == {
            "podCIDR": "10.42.1.0/24",
            "podCIDRs": ["10.42.1.0/24", "fd42:0:0:1::/64"],
        }
