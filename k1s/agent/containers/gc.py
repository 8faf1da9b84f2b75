"""Which dead containers and sandboxes are not needed any more: pure.

Owns: the rule: of each container the newest instance and one dead one before it stay (for lastState and `logs --previous`); of
sandboxes the newest and those that hold a kept container. Called by: pods/worker. Never does: remove.
"""

from __future__ import annotations

import itertools

from k1s.agent.pods.model import Observed
from k1s.cri.runtime import ContainerStatus


def superfluous(observed: Observed) -> tuple[list[ContainerStatus], list[str]]:
    """(containers, sandbox ids) to be removed; a dead sandbox goes once none of its containers is kept."""
    seen: dict[str, int] = {}
    containers = []
    for container in observed.containers:
        seen[container.name] = seen.get(container.name, 0) + 1
        if seen[container.name] > 2 and container.state in ("exited", "created"):
            containers.append(container)
    # Removing a sandbox removes its containers: those that are kept for their last state keep it.
    kept = [c for c in observed.containers if c not in containers]
    sandboxes = [
        older.id
        for newer, older in itertools.pairwise(observed.sandboxes)
        if not older.ready and not any(older.created_at <= c.created_at < newer.created_at for c in kept)
    ]
    return containers, sandboxes
