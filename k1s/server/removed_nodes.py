"""A node that was removed is cut off: what it had open when its certificate became worthless does not go on.

Owns: noticing that a name was taken from a key. Called by: server/app. Never does: decide who is removed (api/node_identity says
what the record means, authn/node_keys refuses whatever comes next).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from k1s.api import node_identity
from k1s.api.catalog import builtin
from k1s.client.interface import InformerFactory, Object

log = logging.getLogger("k1s.server.nodes")

# The node's own watch tells it that it was removed: that line should still arrive.
_LAST_WORDS = 1.0


def cut_off(informers: InformerFactory, drop: Callable[[str], int]) -> None:
    """From now on; `drop` ends the connections of a key and says how many there were."""
    loop = asyncio.get_running_loop()

    def end(name: str, key: str) -> None:
        record = informers.informer(builtin("Secret")).get(node_identity.record_name(name), node_identity.NAMESPACE)
        if node_identity.belongs_to(record, key):
            return  # it has joined again meanwhile
        log.info("node %s was removed: %d of its connections ended", name, drop(key))

    def changed(old: Object | None, new: Object | None) -> None:
        name = node_identity.node_of(old) if old is not None else ""
        if not name or old is None:
            return
        key = node_identity.fingerprint_of(old)
        if not node_identity.belongs_to(new, key):
            loop.call_later(_LAST_WORDS, end, name, key)

    informers.informer(builtin("Secret")).add_handler(changed)
