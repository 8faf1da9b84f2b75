"""Which way a connection takes: the node's tunnel or the direct one, in which order, and what is remembered."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest

from k1s.base.clock import VirtualClock
from k1s.server.apiserver import dial
from k1s.server.apiserver.dial import Dialer
from k1s.server.apiserver.forward import Target

NODES = [
    {
        "metadata": {"name": name},
        "spec": {"podCIDRs": [f"10.42.{number}.0/24", f"fd00:42:{number}::/64"]},
        "status": {"addresses": [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": f"192.0.2.{number}"}]},
    }
    for number, name in enumerate(("a", "b", "c"))
]
POD_ON_B, NODE_B = "10.42.1.7", "192.0.2.1"


class Nodes:
    """An informer of nodes, and the factory that gives it."""

    def __init__(self) -> None:
        self.objects = [dict(node) for node in NODES]

    def informer(self, resource: Any, **_: Any) -> Any:
        return self

    def list(self) -> Any:
        return self.objects


class Network:
    """Ways that work, fail or never answer; `tried` is the order in which they were."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *tunnels: str) -> None:
        self.tunnels, self.tried = list(tunnels), []
        self.direct: Any = True
        self.through: Any = True
        self.closed: list[str] = []
        self.opened = asyncio.Event()
        monkeypatch.setattr(dial, "direct", self._direct)
        monkeypatch.setattr(dial, "streams_over", self._streams_over)
        for name in ("STAGGER", "POD_STAGGER", "TUNNEL_SECONDS"):
            monkeypatch.setattr(dial, name, 0.05)

    def nodes(self) -> list[str]:
        return self.tunnels

    def has(self, node: str) -> bool:
        return node in self.tunnels

    async def appeared(self, node: str) -> None:
        await self.opened.wait()

    async def stream(self, node: str, host: str, port: int) -> str:
        self.tried.append(f"tunnel {node}")
        await self._do(self.through)
        return node

    async def _streams_over(self, stream: str, *_: Any, **__: Any) -> Any:
        return stream, Writer(self, f"tunnel {stream}")

    async def _direct(self, target: Target) -> Any:
        self.tried.append("direct")
        await self._do(self.direct)
        return "direct", Writer(self, "direct")

    @staticmethod
    async def _do(what: Any) -> None:
        if isinstance(what, BaseException):
            raise what
        if what is None:
            await asyncio.get_running_loop().create_future()


class Writer:
    def __init__(self, network: Network, name: str) -> None:
        self._network, self._name = network, name

    def close(self) -> None:
        self._network.closed.append(self._name)


def dialer(network: Network, local: str = "a", nodes: Nodes | None = None) -> tuple[Dialer, VirtualClock]:
    clock = VirtualClock()
    made = Dialer(nodes or Nodes(), network, local_node=local, service_cidr="10.43.0.0/16,fd00:43::/112", clock=clock)  # type: ignore[arg-type]
    return made, clock


async def got(made: Dialer, host: str, node: str = "") -> str:
    return str((await asyncio.wait_for(made.connect(Target(host, 80, "/", node=node)), 2))[0])


@pytest.mark.parametrize(
    ("host", "node", "local", "order"),
    [
        (NODE_B, "b", "a", ["tunnel b", "direct"]),
        (NODE_B, "b", "", ["tunnel b", "direct"]),
        ("192.0.2.0", "a", "a", ["direct", "tunnel a"]),
        (NODE_B, "", "a", ["direct", "tunnel b"]),
        (NODE_B, "", "", ["direct", "tunnel b"]),
        (POD_ON_B, "", "a", ["direct", "tunnel b"]),
        (POD_ON_B, "", "", ["tunnel b", "direct"]),
        ("fd00:42:1::5", "", "", ["tunnel b", "direct"]),
        ("10.42.0.9", "", "a", ["direct", "tunnel a"]),
        ("10.43.0.10", "", "a", ["direct"]),
        ("10.43.0.10", "", "", ["tunnel a"]),
        ("fd00:43::1", "", "", ["tunnel a"]),
        ("8.8.8.8", "", "", ["direct"]),
        ("hook.example.com", "", "", ["direct"]),
    ],
)
async def test_the_order_of_ways(monkeypatch: pytest.MonkeyPatch, host: str, node: str, local: str, order: list[str]) -> None:
    network = Network(monkeypatch, "a", "b", "c")
    network.direct = network.through = OSError(113, "No route to host")
    made, _ = dialer(network, local)
    with pytest.raises(OSError, match="No route"):
        await got(made, host, node)
    assert network.tried == order
    network.direct = network.through = True
    network.tried.clear()
    assert await got(made, host, node) == order[0].removeprefix("tunnel ") and network.tried == order[:1]


async def test_what_a_node_says_of_itself_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the address of a webhook outside as its own, or that of a Service."""
    network, nodes = Network(monkeypatch, "b"), Nodes()
    outside, service = "203.0.113.9", "10.43.0.77"
    nodes.objects[1]["status"] = {"addresses": [{"address": NODE_B}, {"address": outside}, {"address": service}]}
    made, _ = dialer(network, nodes=nodes)
    network.through = ssl.SSLError("certificate verify failed")
    assert await got(made, outside) == "direct" and network.tried == ["direct"]
    network.tried.clear()
    # The true one is slow: a lie that comes first does not end it.

    async def answers_late(target: Target) -> Any:
        await asyncio.sleep(0.2)
        return "direct", Writer(network, "direct")

    monkeypatch.setattr(dial, "direct", answers_late)
    for lie in (ssl.SSLError("certificate verify failed"), ConnectionRefusedError(111, "Connection refused")):
        network.through = lie
        assert await got(made, outside) == "direct"
    assert network.tried == ["tunnel b", "tunnel b"]
    assert made._owner(service) == ("", False)


async def test_a_way_that_does_not_answer_gets_a_rival(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(monkeypatch, "b")
    network.through = None
    made, _ = dialer(network)
    assert await got(made, NODE_B, "b") == "direct"
    assert network.tried == ["tunnel b", "direct"]


async def test_a_pod_that_was_reached_only_by_tunnel_is_asked_there_first_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(monkeypatch, "b")
    network.direct = None
    made, clock = dialer(network)
    assert await got(made, POD_ON_B) == "b"
    network.tried.clear()
    assert await got(made, POD_ON_B) == "b" and network.tried == ["tunnel b"]
    await clock.advance(61)
    network.tried.clear()
    assert await got(made, POD_ON_B) == "b" and network.tried == ["direct", "tunnel b"]


async def test_what_the_target_says_through_its_node_is_final(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(monkeypatch, "b")
    for error in (ConnectionRefusedError(111, "connection refused"), ssl.SSLError(1, "bad")):
        network.through = error
        network.tried.clear()
        made, _ = dialer(network)
        with pytest.raises(type(error)):
            await got(made, NODE_B, "b")
        assert network.tried == ["tunnel b"]


async def test_a_tunnel_that_is_just_being_opened_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(monkeypatch)
    network.direct = None
    made, _ = dialer(network)
    asking = asyncio.create_task(got(made, NODE_B, "b"))
    await asyncio.sleep(0.01)
    network.tunnels.append("b")
    network.opened.set()
    assert await asking == "b"


async def test_without_tunnel_and_direct_way_the_direct_ways_error_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(monkeypatch)
    network.direct = OSError(113, "No route to host")
    made, _ = dialer(network)
    with pytest.raises(OSError, match="No route to host"):
        await got(made, NODE_B, "b")


async def test_an_address_that_two_nodes_claim_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = Nodes()
    nodes.objects[2]["status"] = {"addresses": [{"type": "InternalIP", "address": a} for a in (NODE_B, POD_ON_B, "10.0.0.5")]}
    network = Network(monkeypatch, "a", "b", "c")
    made, _ = dialer(network, "", nodes)
    assert await got(made, NODE_B) == "direct", "claimed twice"
    assert await got(made, POD_ON_B) == "b", "ranges are the server's word"


async def test_the_loser_of_a_race_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(monkeypatch, "b")
    release = asyncio.Event()

    async def late(target: Target) -> Any:
        await release.wait()
        return "direct", Writer(network, "direct")

    async def stream(node: str, host: str, port: int) -> str:
        await release.wait()
        return node

    monkeypatch.setattr(dial, "direct", late)
    network.stream = stream  # type: ignore[method-assign]
    made, _ = dialer(network)
    asking = asyncio.create_task(got(made, NODE_B, "b"))
    await asyncio.sleep(0.1)
    release.set()
    winner = await asking
    await asyncio.sleep(0.01)
    assert network.closed == (["direct"] if winner == "b" else ["tunnel b"])


async def test_a_dial_that_is_given_up_leaves_nothing_running(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(monkeypatch, "b")
    network.direct = network.through = None
    made, _ = dialer(network)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.15):
            await made.connect(Target(NODE_B, 80, "/", node="b"))
    await asyncio.sleep(0)
    assert [task for task in asyncio.all_tasks() if task.get_name() == "dial"] == []
