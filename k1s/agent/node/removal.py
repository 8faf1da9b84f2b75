"""A node that was removed from its cluster: its pods end, the agent rests, and comes back only with a token.

Owns: NodeRemoved, the end of the node's work, and the rest after it; NodeUnknown. Called by: agent/app, as a part and around all
parts; register and lease, which hear the server's words, too.
Never does: believe anything but the server's own words, heard twice; end a pod because a server does not know this node
(api/node_identity: that may be a database from a backup); exit: a supervisor would start the agent again and again. The agent
beside a server is no machine that somebody could take away: it ends after PAUSE, and its server starts it to join again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from k1s.agent.config import AgentConfig
from k1s.agent.context import AgentContext
from k1s.agent.join import find_token
from k1s.agent.join_request import JoinError
from k1s.api import node_identity
from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.base.clock import REAL_CLOCK, Clock

log = logging.getLogger("k1s.agent.node")

AT_START, LATER, UNKNOWN = "at start", "later", "unknown"
# Pods get this long to end in peace; what is left is killed.
_PATIENCE = 60.0
_ASK, _ASK_SECONDS = 2, 0.5
_MOST_QUESTIONS = 6
PAUSE = 5.0


class NodeRemoved(Exception):
    """The server says that this node is none of its cluster any more."""

    when = AT_START


class _RemovedLater(NodeRemoved):
    when = LATER


class NodeUnknown(NodeRemoved):
    """The server does not know this node: it has to join anew, and its pods go on meanwhile."""

    when = UNKNOWN


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
    if agent.unknown:
        raise NodeUnknown(agent.unknown)
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
        heard = 0
        for _ in range(_MOST_QUESTIONS):
            try:
                await agent.client.get(builtin("Node"), agent.node_name)
                break
            except ApiError as error:
                # Anything else may be the moment before: the heartbeat goes on asking.
                heard = heard + 1 if node_identity.says_removed(error) else 0
            if heard == _ASK:
                agent.removed.set()
                return
            await agent.clock.sleep(_ASK_SECONDS)


def told_unknown(agent: AgentContext, error: ApiError) -> None:
    """While running, and for a while: with a token the agent joins anew, without one it goes on as it is."""
    try:
        token = find_token(agent.config)
    except JoinError as fault:
        log.warning("%s", fault)
        token = ""
    if token:
        log.warning("%s: joining it again with the token, its pods go on", error.message)
        agent.unknown = error.message
        agent.removed.set()
    else:
        log.error("%s; its pods go on: restart the agent with a token (on the server: k1s token create)", error.message)


async def ended_by(work: Coroutine[Any, Any, None]) -> str:
    """Run the agent's parts until the node is removed; AT_START, LATER or UNKNOWN. Other errors are raised."""
    when = ""
    try:
        await work
    except* NodeRemoved as group:
        when = _first(group).when
    return when


async def rest(config: AgentConfig, clock: Clock = REAL_CLOCK) -> None:
    """For ever, with nothing of ours left on this host; beside a server only for PAUSE."""
    if not config.fake_runtime:
        from k1s.agent import teardown
        from k1s.agent.network.app import remove_cni
        from k1s.net import teardown as network

        await teardown.stop_all(config)
        await asyncio.to_thread(remove_cni, config)
        await asyncio.to_thread(network.remove_all, config.agent_dir / "network")
    if config.supervised:
        log.error("this host's node was removed from the cluster: it joins again in %.0f s (k1s server --disable-agent)", PAUSE)
        await clock.sleep(PAUSE)
        return
    log.error(
        "this machine is no node of the cluster any more and does nothing; to join again restart it with a token "
        "(on the server: k1s token create)"
    )
    await asyncio.get_running_loop().create_future()


def _first(group: BaseExceptionGroup[NodeRemoved]) -> NodeRemoved:
    found = group.exceptions[0]
    return found if isinstance(found, NodeRemoved) else _first(found)
