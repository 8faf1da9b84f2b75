"""What every part of the agent is given.

Owns: AgentContext. Called by: app.py (makes it), every part (reads it). Never does: I/O.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from k1s.agent.config import AgentConfig
from k1s.agent.pods.registry import PodRegistry
from k1s.base.clock import Clock
from k1s.base.metrics import Registry
from k1s.client.events import EventRecorder
from k1s.client.interface import Client, InformerFactory
from k1s.cri.runtime import Runtime

if TYPE_CHECKING:
    from k1s.agent.containers.images import ImageManager
    from k1s.agent.load_balancer import LoadBalancer
    from k1s.agent.machine import Machine
    from k1s.agent.resources.cgroups import Cgroups
    from k1s.agent.volumes.objects import ObjectCache
    from k1s.agent.volumes.tokens import TokenManager


@dataclass(slots=True)
class AgentContext:
    """One agent. Parts must not keep state here other than what the fields are for."""

    config: AgentConfig
    node_name: str
    node_ip: str
    client: Client
    informers: InformerFactory
    clock: Clock
    metrics: Registry
    runtime: Runtime
    events: EventRecorder
    machine: Machine
    cgroups: Cgroups | None  # None with the fake runtime: nothing is put on the host
    images: ImageManager
    objects: ObjectCache
    tokens: TokenManager
    # Sandboxes and containers started at once: more than the cpus can take makes all of them slower (20 pods: 1.7 times).
    starts: asyncio.Semaphore
    # The servers, and what this node shows them; None where there is one in the same process (tests).
    balancer: LoadBalancer | None = None
    client_tls: ssl.SSLContext | None = None
    server_tls: ssl.SSLContext | None = None  # what the agent's own listener serves with; renewed in place
    pods: PodRegistry = field(default_factory=PodRegistry)
    # Whoever makes the node more or less fit for pods says so here: name -> why not; empty means ready. See node/conditions.
    not_ready: dict[str, str] = field(default_factory=dict)
    readiness_handlers: list[Callable[[], None]] = field(default_factory=list)
    # Of the other family, where the node has one.
    other_ips: tuple[str, ...] = ()
    # Called with the new address when the machine's has changed; `node_ip` is the new one already.
    address_handlers: list[Callable[[str], None]] = field(default_factory=list)
    # Set once the server has said that this node is none of its cluster any more; node/removal then calls the handlers.
    removed: asyncio.Event = field(default_factory=asyncio.Event)
    # What the server said if it does not know this node: then `removed` is the end of this run only.
    unknown: str = ""
    removal_handlers: list[Callable[[], None]] = field(default_factory=list)
    # Called at every renewal of the node's lease (10 s): the one tick there is, for what must be looked at now and then.
    heartbeat_handlers: list[Callable[[], None]] = field(default_factory=list)

    @property
    def pretend(self) -> bool:
        """With the fake runtime nothing is put on the host: no directories, mounts, cgroups."""
        return self.config.fake_runtime

    @property
    def node_ips(self) -> tuple[str, ...]:
        """All addresses the Node has, the first of which is `node_ip`."""
        return tuple(address for address in (self.node_ip, *self.other_ips) if address)

    @property
    def allocatable(self) -> dict[str, int]:
        """What pods may have: cpu in thousandths, the rest in whole units."""
        machine = self.machine
        return {
            "cpu": machine.cpus * 1000,
            "memory": machine.memory,
            "ephemeral-storage": machine.ephemeral_storage,
            "pods": self.config.max_pods,
            **machine.hugepages,
        }

    def set_node_ip(self, address: str) -> None:
        """The machine has another address (DHCP), or others ("v4,v6"): whoever told others of the old one hears of it."""
        if address == ",".join(self.node_ips):
            return
        self.node_ip, *others = address.split(",")
        self.other_ips = tuple(others)
        for handler in self.address_handlers:
            handler(address)

    def set_ready(self, part: str, why_not: str = "") -> None:
        """A part (network, runtime) is ready, or says why it is not; the Node's Ready condition follows."""
        before = self.not_ready.get(part)
        if why_not:
            self.not_ready[part] = why_not
        else:
            self.not_ready.pop(part, None)
        if before != (why_not or None):
            for handler in self.readiness_handlers:
                handler()
