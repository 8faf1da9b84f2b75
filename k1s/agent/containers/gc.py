"""Which dead containers and sandboxes are not needed any more: pure.

Owns: the rule: of each container the newest instance and one dead one before it stay (for lastState and `logs --previous`); of
sandboxes only the newest. Called by: pods/worker. Never does: remove.
"""

from __future__ import annotations

from k1s.agent.pods.model import Observed


def superfluous(observed: Observed) -> tuple[list[str], list[str]]:
    """(container ids, sandbox ids) to be removed."""
    seen: dict[str, int] = {}
    containers = []
    for container in observed.containers:
        seen[container.name] = seen.get(container.name, 0) + 1
        if seen[container.name] > 2 and container.state in ("exited", "created"):
            containers.append(container.id)
    sandboxes = [s.id for s in observed.sandboxes[1:] if not s.ready]
    return containers, sandboxes
