"""`k1s node forget NAME`: the name is free for another machine.

Owns: that verb. Called by: cli/main. Never does: delete the Node, or touch the machine that had the name.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from k1s.api import node_identity
from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.cli.admin import Cluster, Parser, add_kubeconfig, ask


def run(words: Sequence[str]) -> int:
    parser = Parser(prog="k1s node", description="Nodes of the cluster.")
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True)
    forget = verbs.add_parser("forget", help="free a node's name, so that another machine can join under it")
    forget.add_argument("name", metavar="NAME", nargs="+")
    add_kubeconfig(forget)
    given = parser.parse_args(words[1:])

    async def work(cluster: Cluster) -> list[str]:
        return [line for name in given.name for line in await _forget(cluster, name)]

    lines: list[str] = ask(given.kubeconfig, work)
    print("\n".join(lines))
    return 0


async def _forget(cluster: Cluster, name: str) -> list[str]:
    """What was done, in lines. Raises ApiError."""
    known, resource = await _has_node(cluster, name), builtin("Secret")
    record = await _record(cluster, name)
    if record is None or not node_identity.fingerprint_of(record):
        state = "there is a Node of that name, but no machine has joined under it" if known else "no such node"
        return [f'node "{name}": nothing to forget: {state}']
    patch = node_identity.freed(record, time.time())
    await cluster.client.patch(resource, node_identity.record_name(name), node_identity.NAMESPACE, patch)
    out = [f'node "{name}" forgotten: the machine that had the name is shut out, the next one that joins as "{name}" has it']
    if known:
        out.append(f"its Node and the pods bound to it are still there; without a successor run: kubectl delete node {name}")
    return out


async def _record(cluster: Cluster, name: str) -> dict[str, Any] | None:
    try:
        return await cluster.client.get(builtin("Secret"), node_identity.record_name(name), node_identity.NAMESPACE)
    except ApiError as error:
        if error.code != 404:
            raise
        return None


async def _has_node(cluster: Cluster, name: str) -> bool:
    try:
        await cluster.client.get(builtin("Node"), name)
    except ApiError as error:
        if error.code != 404:
            raise
        return False
    return True
