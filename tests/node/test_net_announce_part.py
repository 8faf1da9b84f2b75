"""The agent's part of announcing: from Services, nodes and endpoints to addresses in the kernel."""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import netlab
from test_net_agent import StoreInformers

from k1s.agent.network.announce import AnnouncePart
from k1s.agent.service_watch import ServiceWatch
from k1s.base.clock import REAL_CLOCK
from k1s.base.metrics import Registry
from k1s.base.tasks import Supervisor
from k1s.net.announce import eligible, holder, key

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
VIP = "192.0.2.240"


class Agent:
    """As much of an agent as the part is given; the node is called `a`."""

    def __init__(self) -> None:
        self.informers, self._versions = StoreInformers(), itertools.count(1)
        self.said: list[tuple[str, str]] = []
        events = SimpleNamespace(event=lambda obj, kind, reason, text: self.said.append((reason, text)))
        self.context: Any = SimpleNamespace(
            node_name="a", clock=REAL_CLOCK, metrics=Registry(), readiness_handlers=[], not_ready={}, events=events
        )
        self.context.informers = self.informers
        self.watch = ServiceWatch(self.informers)
        network: Any = SimpleNamespace(agent=self.context, services=self.watch)
        self.part = AnnouncePart(network)
        self.put("Node", "a")
        self.put("Secret", key.NAME, key.NAMESPACE, data={key.FIELD: base64.b64encode(b"k" * 32).decode()})

    def put(self, kind: str, name: str, namespace: str = "", labels: dict[str, str] | None = None, **fields: Any) -> None:
        meta = {"name": name, "namespace": namespace, "labels": labels or {}, "resourceVersion": str(next(self._versions))}
        self.informers.put(kind, {"kind": kind, "metadata": meta, **fields})

    def service(self, name: str = "web", address: str = VIP, labels: dict[str, str] | None = None, **spec: Any) -> None:
        conditions = [{"type": eligible.CONDITION, "status": "True", "reason": eligible.FROM_POOL}]
        status = {"loadBalancer": {"ingress": [{"ip": address}]}, "conditions": conditions}
        self.put("Service", name, "default", labels, spec={"type": "LoadBalancer", **spec}, status=status)

    def endpoints(self, *nodes: str) -> None:
        entries = [{"addresses": ["10.42.0.9"], "nodeName": node} for node in nodes]
        self.put("EndpointSlice", "web-x", "default", {"kubernetes.io/service-name": "web"}, endpoints=entries)


@pytest.fixture
def agent() -> Any:
    with netlab.host():
        yield Agent()
        holder.drop_all()


@pytest.fixture
async def running(agent: Agent) -> AsyncIterator[Callable[[], Any]]:
    async with Supervisor() as tasks:

        async def start() -> None:
            await agent.watch.start()
            await agent.part.start()
            tasks.spawn("part", agent.part.follow())

        yield start
        tasks.stop()


async def until(what: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    while not what():
        assert asyncio.get_running_loop().time() < deadline, "never became true"
        await asyncio.sleep(0.01)


async def test_the_only_node_takes_it_and_lets_go_with_the_service(agent: Agent, running: Callable[[], Any]) -> None:
    await running()
    assert holder.held() == frozenset()
    agent.service()
    await until(lambda: holder.held() == {VIP})
    await until(lambda: agent.said == [("AnnouncingAddress", f"node a announces {VIP} on up0")])
    agent.service(loadBalancerClass="example.com/other")
    await until(lambda: holder.held() == frozenset())


async def test_without_a_pool_address_nothing_more_is_watched(agent: Agent, running: Callable[[], Any]) -> None:
    agent.informers.stores.pop("Node")
    agent.informers.stores.pop("Secret")
    await running()
    await asyncio.sleep(0.1)
    assert not {"Node", "Secret"} & agent.informers.stores.keys()


async def test_what_was_held_before_a_restart_never_goes_away(agent: Agent, running: Callable[[], Any]) -> None:
    holder.hold(VIP, "up0", None)
    holder.hold("192.0.2.250", "up0", None)
    agent.service()
    gone: list[str] = []
    await running()
    # The one that is nobody's any more goes, the other one stays all the time.
    await until(lambda: gone.append("x") if VIP not in holder.held() else holder.held() == {VIP})
    assert gone == []


async def test_what_was_left_and_is_nobodys_is_taken_back(agent: Agent, running: Callable[[], Any]) -> None:
    holder.hold(VIP, "up0", None)
    await running()
    await until(lambda: holder.held() == frozenset())


async def test_labels_of_the_node_and_endpoints_here_decide(agent: Agent, running: Callable[[], Any]) -> None:
    await running()
    agent.service(externalTrafficPolicy="Local")
    agent.endpoints("b")
    await asyncio.sleep(0.2)
    assert holder.held() == frozenset()
    agent.endpoints("b", "a")
    await until(lambda: holder.held() == {VIP})
    agent.put("Node", "a", labels={eligible.EXCLUDE_LABEL: "true"})
    await until(lambda: holder.held() == frozenset())
    agent.put("Node", "a")
    await until(lambda: holder.held() == {VIP})
    agent.context.not_ready["network"] = "no pod range"
    for handler in agent.context.readiness_handlers:
        handler()
    await until(lambda: holder.held() == frozenset())


async def test_without_a_usable_key_nothing_is_announced(agent: Agent, running: Callable[[], Any]) -> None:
    agent.put("Secret", key.NAME, key.NAMESPACE, data={key.FIELD: "c2hvcnQ="})
    await running()
    agent.service()
    await asyncio.sleep(0.2)
    assert holder.held() == frozenset()
    agent.put("Secret", key.NAME, key.NAMESPACE, data={key.FIELD: base64.b64encode(b"n" * 32).decode()})
    await until(lambda: holder.held() == {VIP})


async def test_an_address_of_another_network_is_told_to_the_user(agent: Agent, running: Callable[[], Any]) -> None:
    await running()
    agent.service(address="203.0.113.7")
    await until(lambda: [reason for reason, _ in agent.said] == ["AddressOfNoLink"])
    assert holder.held() == frozenset()
