"""The Node object: made at the first start, completed at every one.

Owns: registration. Called by: app.py as a part. Never does: status (conditions.py), the pod range (the server gives it).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from k1s.agent.context import AgentContext
from k1s.agent.node import info
from k1s.agent.node.removal import NodeRemoved, NodeUnknown
from k1s.api import node_identity
from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.base.backoff import Backoff
from k1s.client.servers import loudness

log = logging.getLogger("k1s.agent.node")
_RETRY = Backoff(initial=0.2, maximum=7.0, jitter=0.2)
# A server whose cache is behind another's, with which this machine has just joined, knows it a moment later.
_UNKNOWN = 3


async def run(agent: AgentContext, ready: Callable[[], None]) -> None:
    """Registers, then has nothing more to do: the labels it owns are put right at every start."""
    failures = removed = unknown = 0
    while True:
        try:
            await register(agent)
            break
        except ApiError as error:
            removed = removed + 1 if node_identity.says_removed(error) else 0
            unknown = unknown + 1 if node_identity.says_unknown(error) else 0
            if removed > 1:
                raise NodeRemoved(str(error)) from error
            if unknown > _UNKNOWN:
                raise NodeUnknown(str(error)) from error
            if error.code in (401, 403, 422) and not removed and not unknown:
                raise  # waiting would not help
            failures += 1
            log.log(loudness(error), "node %s: cannot register: %s", agent.node_name, error)
            await agent.client.pause(_RETRY.delay(failures))
    ready()
    await asyncio.get_running_loop().create_future()


async def register(agent: AgentContext) -> None:
    """Create the Node, or give an existing one the labels and annotations it should have. Raises ApiError."""
    resource = builtin("Node")
    node = info.new_node(agent.node_name, agent.config, agent.machine)
    try:
        await agent.client.create(resource, node)
        return
    except ApiError as error:
        if error.code != 409:
            raise
    current = await agent.client.get(resource, agent.node_name)
    have, wanted = current["metadata"], node["metadata"]
    patch = {
        field: {k: v for k, v in wanted[field].items() if (have.get(field) or {}).get(k) != v}
        for field in ("labels", "annotations")
    }
    if any(patch.values()):
        await agent.client.patch(resource, agent.node_name, "", {"metadata": patch})
