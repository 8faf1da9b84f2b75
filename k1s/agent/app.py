"""The agent, from nothing to a node: read this first.

Owns: the order in which things start, and making the AgentContext. Called by: cli/agent. Never does: the work of a part.

  credentials > runtime (own containerd, a named one, or the fake) > client, informers, events > PARTS in their order
Every part is `async def run(agent, ready)`; the next starts when it has said ready, except where `waits` is false: those may
take their time (the network waits for the node's pod range). A part that ends or raises ends the agent; its supervisor starts
it again, and containers go on meanwhile.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from k1s.agent import certificates, join, load_balancer, machine
from k1s.agent.config import AgentConfig
from k1s.agent.containerd import Containerd, ContainerdError
from k1s.agent.containers.images import ImageManager
from k1s.agent.context import AgentContext
from k1s.agent.join_request import JoinError
from k1s.agent.network import app as network
from k1s.agent.node import conditions, images, lease, register, removal
from k1s.agent.node.info import NodeFault
from k1s.agent.pods import manager
from k1s.agent.resources.cgroups import Cgroups, cgroup_root
from k1s.agent.serving import app as serving
from k1s.agent.trimming import Trimmer
from k1s.agent.tunnel import app as tunnel
from k1s.agent.volumes.objects import ObjectCache
from k1s.agent.volumes.tokens import TokenManager
from k1s.base.clock import REAL_CLOCK, Clock
from k1s.base.metrics import Registry
from k1s.base.process import find_binary, limit_malloc_arenas
from k1s.base.tasks import Supervisor
from k1s.client.events import EventRecorder
from k1s.client.informer import WatchInformers
from k1s.client.rest import RestClient
from k1s.client.transport import HttpTransport
from k1s.cri.runtime import Runtime

log = logging.getLogger("k1s.agent")
# A node that the server forgets sooner after it has joined does not join once more by itself: its supervisor has more patience.
_FORGOTTEN_SECONDS = 5.0
Part = Callable[[AgentContext, Callable[[], None]], Awaitable[None]]


class StartError(Exception):
    """The agent cannot start; the message says what to do."""


async def _serve(agent: AgentContext, ready: Callable[[], None]) -> None:
    assert agent.server_tls is not None
    await serving.run(agent, agent.server_tls, ready)


@dataclass(frozen=True, slots=True)
class PartEntry:
    """`waits` False: the next part starts at once."""

    name: str
    run: Part
    waits: bool = True


PARTS: tuple[PartEntry, ...] = (
    PartEntry("node", register.run),
    PartEntry("removal", removal.run),
    PartEntry("servers", load_balancer.run),
    PartEntry("tunnel", tunnel.run),
    PartEntry("network", network.run, waits=False),
    PartEntry("images", images.run),
    PartEntry("pods", manager.run),
    PartEntry("serving", _serve),
    PartEntry("lease", lease.run),
    PartEntry("status", conditions.run),
)


async def run(
    config: AgentConfig,
    *,
    clock: Clock = REAL_CLOCK,
    step: Callable[[str], None] = lambda text: None,
    ready: Callable[[str], None] = lambda text: None,
) -> None:
    """Until cancelled. Raises StartError for what the user can mend."""
    limit_malloc_arenas()
    try:
        when = await _until_removed(config, clock, step, ready)
        if when == removal.AT_START and join.leave(config):
            # Removed while this agent was away, and there is a token: whoever started it so wants it back.
            log.warning("this node was removed from its cluster: joining it again with the token")
            await _until_removed(config, clock, step, ready)
        await removal.rest(config, clock)
    except* (JoinError, ContainerdError, NodeFault) as group:
        raise StartError(str(group.exceptions[0])) from group


async def _until_removed(config: AgentConfig, clock: Clock, step: Callable[[str], None], ready: Callable[[str], None]) -> str:
    """Run, and join anew whenever the server has forgotten this node. removal.AT_START or LATER."""
    when = await removal.ended_by(_run(config, clock, step, ready))
    while when == removal.UNKNOWN:
        # Only the server's memory has gone. What this machine has is kept until it has something better.
        if not join.find_token(config):
            raise StartError("the server does not know this node (a database from a backup?): start the agent with a token")
        began = clock.monotonic()
        when = await removal.ended_by(_run(config, clock, step, ready, anew=True))
        if when == removal.UNKNOWN and clock.monotonic() - began < _FORGOTTEN_SECONDS:
            raise StartError("the server has given this node a certificate and does not know it: see the server's log")
    return when


async def _run(
    config: AgentConfig, clock: Clock, step: Callable[[str], None], ready: Callable[[str], None], *, anew: bool = False
) -> None:
    joined = await join.ensure_credentials(config, clock, anew=anew)
    given = load_balancer.split_urls(joined.server)
    learned = load_balancer.servers_file(config.agent_dir)
    config = dataclasses.replace(
        config,
        server=load_balancer.known_servers(given, learned),
        network_backend=joined.network_backend,
        cluster_cidr=joined.cluster_cidr or config.cluster_cidr,
        service_cidr=joined.service_cidr or config.service_cidr,
        cluster_dns=joined.cluster_dns or config.cluster_dns,
        cluster_domain=joined.cluster_domain or config.cluster_domain,
    )
    step(f"credentials of node {joined.node_name}")
    holder = certificates.AgentCertificates(config, joined, clock)
    async with Supervisor() as tasks:
        await tasks.start("certificates", holder.run)
        runtime = await start_runtime(config, clock, tasks)
        step("container runtime")
        tls = holder.client_context()
        balancer = load_balancer.LoadBalancer(given, clock, lambda url: load_balancer.probe(url, tls), learned)
        transport = HttpTransport(balancer, tls)
        # After an outage nobody knows which of the old connections still lead anywhere.
        balancer.on_back.append(transport.disconnect)
        client = RestClient(transport, "kubelet", clock=clock)
        informers = WatchInformers(client, clock=clock, trims=Trimmer().trims)
        events = EventRecorder(client, "kubelet", host=joined.node_name, clock=clock)
        agent = make_context(config, joined.node_name, joined.node_ip, client, informers, events, runtime, clock)
        agent.balancer, agent.client_tls, agent.server_tls = balancer, tls, holder.server_context()
        # Connections from an address that is gone would be noticed only after a while.
        agent.address_handlers += [holder.moved_to, lambda address: transport.disconnect()]
        try:
            tasks.spawn("informers", informers.run())
            tasks.spawn("events", events.run())
            await start_parts(agent, tasks, step)
            ready(f"node {agent.node_name} is up")
            await asyncio.get_running_loop().create_future()
        finally:
            await agent.objects.close()
            await balancer.close()
            await client.close()
            await runtime.close()


async def start_runtime(config: AgentConfig, clock: Clock, tasks: Supervisor) -> Runtime:
    """The runtime the configuration asks for, running. Raises ContainerdError."""
    if config.fake_runtime:
        from k1s.cri.fake import FakeRuntime

        return FakeRuntime(clock=clock)
    from k1s.cri.containerd import ContainerdRuntime

    ctr = find_binary("ctr") or "ctr"
    if config.container_runtime_endpoint:
        return ContainerdRuntime(config.container_runtime_endpoint.removeprefix("unix://"), ctr=ctr)
    await tasks.start("containerd", Containerd(config, clock).run)
    return ContainerdRuntime(str(config.containerd_socket.absolute()), ctr=ctr, snapshotter=config.snapshotter)


def make_context(
    config: AgentConfig,
    node_name: str,
    node_ip: str,
    client: RestClient,
    informers: WatchInformers,
    events: EventRecorder,
    runtime: Runtime,
    clock: Clock,
) -> AgentContext:
    """The context every part is given (tests make theirs with it too)."""
    this = machine.inspect(config.data_dir)
    return AgentContext(
        config=config,
        node_name=node_name,
        node_ip=node_ip.split(",")[0],
        other_ips=tuple(part.strip() for part in node_ip.split(",")[1:]),
        client=client,
        informers=informers,
        clock=clock,
        metrics=Registry(),
        runtime=runtime,
        events=events,
        machine=this,
        cgroups=None if config.fake_runtime else Cgroups(cgroup_root(config)),
        images=ImageManager(runtime, events, clock),
        objects=ObjectCache(client, clock),
        tokens=TokenManager(client, clock),
        starts=asyncio.Semaphore(2 * this.cpus),
    )


async def start_parts(agent: AgentContext, tasks: Supervisor, step: Callable[[str], None]) -> None:
    """Each part in its order."""
    for part in PARTS:

        async def body(announce: Callable[[], None], part: PartEntry = part) -> None:
            await part.run(agent, announce)

        if part.waits:
            await tasks.start(part.name, body)
            step(part.name)
        else:
            tasks.spawn(part.name, body(lambda name=part.name: step(name)))  # type: ignore[misc]
