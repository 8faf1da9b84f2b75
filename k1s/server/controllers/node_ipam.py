"""Node IPAM: every node gets its own slice of the cluster's pod range.

Watches: Nodes (own key; a node that goes wakes those that wait for a range). `choose` is the pure plan.
Never does: take a range back from a node that lives, or move one.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network

from k1s.api import meta
from k1s.api.catalog import builtin
from k1s.client.interface import Object
from k1s.server.controllers.reconciler import Context, Reconciler, Watch

NODE = builtin("Node")


def choose(cluster: str, mask: int, taken: Iterable[str]) -> str:
    """The first free range of `cluster` with that mask, or "" if all are taken."""
    network = ip_network(cluster)
    used: set[IPv4Network | IPv6Network] = set()
    for cidr in taken:
        other = ip_network(cidr)
        if other.version == network.version:
            # A range of another size blocks all of ours that it touches.
            used.update(other.subnets(new_prefix=mask) if other.prefixlen <= mask else [other.supernet(new_prefix=mask)])
    prefix = max(mask, network.prefixlen)
    return next((str(candidate) for candidate in network.subnets(new_prefix=prefix) if candidate not in used), "")


class NodeIpamController(Reconciler):
    name = "node-ipam"
    workers = 1  # two at once could choose the same range

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.nodes = self.cache(NODE)
        # Given out, but perhaps not yet in the cache.
        self.given: dict[str, list[str]] = {}

    def watches(self) -> Iterable[Watch]:
        return ((NODE, self._changed),)

    def _changed(self, old: Object | None, new: Object | None) -> Iterable[str]:
        if new is not None:
            return () if new.get("spec", {}).get("podCIDR") else (meta.name(new),)
        return [meta.name(n) for n in self.nodes.list() if not n.get("spec", {}).get("podCIDR")]

    async def reconcile(self, key: str) -> float | None:
        node = self.nodes.get(key)
        if node is None or node.get("spec", {}).get("podCIDR"):
            return None
        known = {meta.name(n): n for n in self.nodes.list()}
        self.given = {n: c for n, c in self.given.items() if n in known and not known[n].get("spec", {}).get("podCIDR")}
        taken = [c for n in known.values() for c in _ranges(n)] + [c for ranges in self.given.values() for c in ranges]
        ranges = self.given.get(key) or [
            choose(c, _mask(c, self.config.node_mask), taken) for c in _split(self.config.cluster_cidr)
        ]
        if not all(ranges):
            text = f"Node {key} status is now: CIDRNotAvailable"
            self.events.event(node, "Normal", "CIDRNotAvailable", text)
            return None  # a node that goes wakes us
        self.given[key] = ranges
        await self.client.patch(NODE, key, "", {"spec": {"podCIDR": ranges[0], "podCIDRs": ranges}})
        return None


def _ranges(node: Object) -> list[str]:
    spec = node.get("spec", {})
    return spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else [])


def _split(cidrs: str) -> list[str]:
    """One range, or one of each family, separated by a comma."""
    return [c.strip() for c in cidrs.split(",") if c.strip()]


def _mask(cidr: str, ipv4: int) -> int:
    """A node has as many IPv6 addresses as upstream gives it: a /64."""
    return 64 if ":" in cidr else ipv4
