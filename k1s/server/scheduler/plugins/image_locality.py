"""ImageLocality: prefers nodes that have the pod's images already, the larger the better."""

from __future__ import annotations

from k1s.server.scheduler.plugin import MAX_SCORE, BasePlugin, CycleState
from k1s.server.scheduler.snapshot import NodeInfo, PodInfo

_MEGABYTE = 1024 * 1024
_LEAST = 23 * _MEGABYTE
_MOST_PER_CONTAINER = 1000 * _MEGABYTE


class ImageLocality(BasePlugin):
    name = "ImageLocality"
    weight = 1

    def score(self, pod: PodInfo, node: NodeInfo, state: CycleState) -> int:
        spec = pod.pod["spec"]
        containers = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
        nodes = len(state.snapshot) or 1
        total = 0
        for container in containers:
            size = _size(node, str(container.get("image") or ""))
            if size:
                # An image that many nodes have says less about this one.
                spread = sum(1 for other in state.snapshot.nodes() if _size(other, str(container["image"]))) / nodes
                total += int(size * spread)
        most = _MOST_PER_CONTAINER * max(len(containers), 1)
        return MAX_SCORE * (min(max(total, _LEAST), most) - _LEAST) // (most - _LEAST)


def _size(node: NodeInfo, image: str) -> int:
    name = image if ":" in image.rpartition("/")[2] or "@" in image else f"{image}:latest"
    for candidate in (name, f"docker.io/{name}", f"docker.io/library/{name}"):
        if candidate in node.images:
            return node.images[candidate]
    return 0
