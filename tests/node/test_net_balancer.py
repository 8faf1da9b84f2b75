"""Pool addresses through the proxy's rules, on the node that has them: whose client, whose ports."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import netlab
from test_net_proxy import World, peer, world  # noqa: F401

from k1s.net import hostport
from k1s.net.announce import eligible, holder
from k1s.net.cni import add
from k1s.net.cni.call import Call

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
VIP = "192.0.2.240"
CONDITION = {"type": eligible.CONDITION, "status": "True", "reason": eligible.FROM_POOL}
STATUS = {"loadBalancer": {"ingress": [{"ip": VIP, "ipMode": "VIP"}]}, "conditions": [CONDITION]}


async def balanced(world: World, targets: list[tuple[str, str]], **spec: Any) -> None:  # noqa: F811
    holder.hold(VIP, "up0", None)
    await world.set("web", targets, type="LoadBalancer", status=STATUS, **spec)


async def served(world: World, name: str) -> tuple[str, str]:  # noqa: F811
    address = await world.pod(name)
    world.servers.start(world.netns(name), name)
    return address, "node-a"


async def test_with_policy_local_pods_see_the_client(world: World) -> None:  # noqa: F811
    here = await served(world, "here")
    world.servers.start(world.peer, "far", port=8080)
    far = ("192.0.2.2", "node-b")
    await balanced(world, [here, far], externalTrafficPolicy="Local")
    assert set(netlab.ask(world.peer, VIP, 80, times=20)) == {"here 192.0.2.2"}
    await balanced(world, [far], externalTrafficPolicy="Local")
    assert netlab.ask(world.peer, VIP, 80, timeout=0.5) == ["TimeoutError"]
    # Pods and the node itself reach it wherever it runs.
    assert netlab.ask("", VIP, 80)[0].startswith("far ")


async def test_source_ranges_hold_at_pool_addresses(world: World) -> None:  # noqa: F811
    here = await served(world, "here")
    await balanced(world, [here], loadBalancerSourceRanges=["203.0.113.0/24"])
    assert netlab.ask(world.peer, VIP, 80, timeout=0.5) == ["TimeoutError"]
    await balanced(world, [here], loadBalancerSourceRanges=["192.0.2.0/30"])
    assert netlab.ask(world.peer, VIP, 80) == ["here 192.0.2.2"]


async def test_the_nodes_own_ports_are_not_the_addresss(world: World) -> None:  # noqa: F811
    """The node has the address, but what listens on all of its addresses is none of the Service's business."""
    here = await served(world, "here")
    world.servers.start("", "ssh", port=22)
    await balanced(world, [here])
    assert netlab.ask(world.peer, "192.0.2.1", 22) == ["ssh 192.0.2.2"]
    assert netlab.ask(world.peer, VIP, 22) == ["ConnectionRefusedError"]
    assert netlab.ask(world.peer, VIP, 80) == ["here 192.0.2.2"]


async def test_a_host_port_does_not_take_the_addresss_port(world: World) -> None:  # noqa: F811
    here = await served(world, "here")
    with netlab.namespace() as netns:
        ports = {"portMappings": [{"hostPort": 80, "containerPort": 8080, "protocol": "tcp"}]}
        call = Call("ADD", "greedy", "eth0", netlab.path_of(netns), {}, {"cniVersion": "1.0.0", "runtimeConfig": ports})
        await add.add(world.network, call)
        world.servers.start(netns, "greedy")
        await balanced(world, [here])
        # Whichever table was written last.
        await world.network.nft.run(hostport.plan(world.network.ipam.attachments()))
        assert netlab.ask(world.peer, "192.0.2.1", 80) == ["greedy 192.0.2.2"]
        assert netlab.ask(world.peer, VIP, 80) == ["here 192.0.2.2"]
