"""The node's heartbeat: its Lease in kube-node-lease, renewed every ten seconds.

Owns: the Lease, and the tick that others may hang on to. Called by: app.py as a part. Never does: status.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from k1s.agent.context import AgentContext
from k1s.agent.node import removal
from k1s.api import node_identity
from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.base.backoff import Backoff
from k1s.base.clock import rfc3339_micro
from k1s.client.servers import loudness

log = logging.getLogger("k1s.agent.node")

NAMESPACE = "kube-node-lease"
DURATION = 40
RENEW_EVERY = 10.0
_RETRY = Backoff(initial=0.2, maximum=7.0)
# So many heartbeats in a row, over about 20 s, that a server answers with not knowing this node.
_UNKNOWN = 8


async def run(agent: AgentContext, ready: Callable[[], None]) -> None:
    failures = removed = unknown = 0
    while True:
        delay = RENEW_EVERY
        try:
            await renew(agent)
            failures = removed = unknown = 0
        except ApiError as error:
            failures += 1
            delay = _RETRY.delay(failures)
            removed = removed + 1 if node_identity.says_removed(error) else 0
            if removed > 1:
                agent.removed.set()
                await asyncio.get_running_loop().create_future()
            unknown = unknown + 1 if node_identity.says_unknown(error) else 0
            if unknown == _UNKNOWN:
                removal.told_unknown(agent, error)
            if failures == 1 and not removed:
                log.log(loudness(error), "node %s: lease not renewed: %s", agent.node_name, error)
        ready()  # also without a lease: the node works, and the server will notice that it cannot be heard
        for handler in agent.heartbeat_handlers:
            handler()
        await agent.client.pause(delay)


async def renew(agent: AgentContext) -> None:
    """One renewal; makes the Lease if there is none. Raises ApiError."""
    resource = builtin("Lease")
    spec = {
        "holderIdentity": agent.node_name,
        "leaseDurationSeconds": DURATION,
        "renewTime": rfc3339_micro(agent.clock.now()),
    }
    try:
        await agent.client.patch(resource, agent.node_name, NAMESPACE, {"spec": spec})
    except ApiError as error:
        if error.code != 404:
            raise
        node = await agent.client.get(builtin("Node"), agent.node_name)
        owner = {"apiVersion": "v1", "kind": "Node", "name": agent.node_name, "uid": node["metadata"]["uid"]}
        lease = {"metadata": {"name": agent.node_name, "namespace": NAMESPACE, "ownerReferences": [owner]}, "spec": spec}
        await agent.client.create(resource, lease, NAMESPACE)
