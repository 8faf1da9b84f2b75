"""A node that was removed from its cluster: its pods end, the agent rests, and comes back only with a token.

Owns: NodeRemoved, the end of the node's work, and the rest after it. Called by: agent/app, as a part and around all parts.
Never does: believe anything but the server's own words, heard twice (register and lease hear them, too); exit: a supervisor would
start the agent again and again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from k1s.agent.config import AgentConfig
from k1s.agent.context import AgentContext
from k1s.api import node_identity
from k1s.api.catalog import builtin
from k1s.api.errors import ApiError

log = logging.getLogger("k1s.agent.node")

AT_START, LATER = "at start", "later"
# Pods get this long to end in peace; what is left is killed.
_PATIENCE = 60.0
_ASK, _ASK_SECONDS = 2, 0.5


class NodeRemoved(Exception):
    """The server says that this node is none of its cluster any more."""

    when = AT_START


class _RemovedLater(NodeRemoved):
    when = LATER


async def run(agent: AgentContext, ready: Callable[[], None]) -> None:
    """The part: once the node is removed, end its pods while the network still serves them, then all other parts."""
    node, gone = builtin("Node"), asyncio.Event()
    informer = agent.informers.informer(node, field_selector=f"metadata.name={agent.node_name}")
    informer.add_handler(lambda old, new: gone.set() if new is None else None)
    asking = asyncio.create_task(_ask(agent, gone), name="removal-ask")
    ready()
    try:
        await agent.removed.wait()
    finally:
        asking.cancel()
    log.error("node %s was removed from the cluster: ending its %d pods", agent.node_name, len(agent.pods))
    for handler in agent.removal_handlers:
        handler()
    try:
        async with asyncio.timeout(_PATIENCE):
            await agent.pods.empty()
    except TimeoutError:
        log.warning("%d pods did not end in %.0f s and are killed", len(agent.pods), _PATIENCE)
    raise _RemovedLater(agent.node_name)


async def _ask(agent: AgentContext, gone: asyncio.Event) -> None:
    """The Node was seen to go: what does the server say? (Without this the next heartbeat finds out.)"""
    while not agent.removed.is_set():
        await gone.wait()
        gone.clear()
        for _ in range(_ASK):
            try:
                await agent.client.get(builtin("Node"), agent.node_name)
                break
            except ApiError as error:
                if not node_identity.says_removed(error):
                    break
            await agent.clock.sleep(_ASK_SECONDS)
        else:
            agent.removed.set()


async def ended_by(work: Coroutine[Any, Any, None]) -> str:
    """Run the agent's parts until the node is removed; AT_START or LATER. Other errors are raised."""
    when = ""
    try:
        await work
    except* NodeRemoved as group:
        when = _first(group).when
    return when


async def rest(config: AgentConfig) -> None:
    """For ever, with nothing of ours left on this host."""
    if not config.fake_runtime:
        from k1s.agent import teardown
        from k1s.agent.network.app import remove_cni
        from k1s.net import teardown as network

        await teardown.stop_all(config)
        await asyncio.to_thread(remove_cni, config)
        await asyncio.to_thread(network.remove_all, config.agent_dir / "network")
    log.error(
        "this machine is no node of the cluster any more and does nothing; to join again restart it with a token "
        "(on the server: k1s token create)"
    )
    await asyncio.get_running_loop().create_future()


def _first(group: BaseExceptionGroup[NodeRemoved]) -> NodeRemoved:
    found = group.exceptions[0]
    return found if isinstance(found, NodeRemoved) else _first(found)
