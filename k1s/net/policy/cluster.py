"""Which addresses stand in which set: pods and namespaces as the peers of policies.

Owns: Cluster: pods, namespaces, the peers and named ports somebody asks for, and the elements that follow. Pure.
Called by: policy.apply (asks, takes changes), agent.network.policy (feeds it). Never does: know what a policy isolates.

Bounds: one entry a pod, an address and a namespace of the cluster; elements for the sets in use only.

An address belongs to the pod that claimed it last, so that one that was used again never speaks for the pod that had it
before, even while the API still shows the old one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from k1s.net.policy.model import NamedPort, Peer, Pod

# (set, element)
Element = tuple[str, str]
_NOTHING: frozenset[Element] = frozenset()


@dataclass(slots=True)
class Changes:
    """Elements to add and to delete, by family version, since they were last taken."""

    added: dict[int, set[Element]] = field(default_factory=lambda: {4: set(), 6: set()})
    removed: dict[int, set[Element]] = field(default_factory=lambda: {4: set(), 6: set()})

    def note(self, version: int, before: Collection[Element], after: Collection[Element]) -> None:
        added, removed = self.added[version], self.removed[version]
        for element in before:
            if element not in after:
                if element in added:
                    added.discard(element)
                else:
                    removed.add(element)
        for element in after:
            if element not in before:
                if element in removed:
                    removed.discard(element)
                else:
                    added.add(element)


class Cluster:
    """Pods by a key of the caller's choice, which no two pods share."""

    def __init__(self) -> None:
        self.pods: dict[str, Pod] = {}
        self._in_namespace: dict[str, set[str]] = {}
        self._namespaces: dict[str, Mapping[str, str]] = {}
        self._claims: dict[str, list[str]] = {}
        self._held: dict[str, frozenset[Element]] = {}
        self._fixed: dict[str, set[Peer]] = {}
        self._everywhere: set[Peer] = set()
        self._ports: dict[tuple[str, str], NamedPort] = {}
        self._changes = Changes()

    def set_pod(self, key: str, pod: Pod | None) -> None:
        """A pod as it is now; None: it is gone."""
        old = self.pods.get(key)
        if old == pod:
            return
        if old is not None:
            self._forget(key, old, set(pod.addresses) if pod is not None else set())
        if pod is not None:
            self.pods[key] = pod
            self._in_namespace.setdefault(pod.namespace, set()).add(key)
            for address in pod.addresses:
                claims = self._claims.setdefault(address, [])
                if key not in claims:
                    claims.append(key)
        self._settle({*(old.addresses if old else ()), *(pod.addresses if pod else ())})

    def _forget(self, key: str, old: Pod, kept: set[str]) -> None:
        del self.pods[key]
        keys = self._in_namespace[old.namespace]
        keys.discard(key)
        if not keys:
            del self._in_namespace[old.namespace]
        for address in set(old.addresses) - kept:
            claims = self._claims[address]
            claims.remove(key)
            if not claims:
                del self._claims[address]

    def set_namespace(self, name: str, labels: Mapping[str, str] | None) -> None:
        old = self._namespaces.get(name)
        if old == labels:
            return
        if labels is None:
            del self._namespaces[name]
        else:
            self._namespaces[name] = labels
        flips = any(_selects(peer, old) != _selects(peer, labels) for peer in self._everywhere)
        if flips:
            self._settle(self._addresses_in(name))

    def want(self, peers: Collection[Peer], ports: Collection[NamedPort]) -> None:
        """Hold elements for exactly these from now on. Elements of sets given up are dropped without a word: the sets go."""
        before = {*self._everywhere, *(peer for found in self._fixed.values() for peer in found)}
        gone = {peer.name for peer in before.difference(peers)} | {p.name for p in {*self._ports.values()}.difference(ports)}
        if gone:
            self._drop(gone)
        new_ports = set(ports).difference(self._ports.values())
        self._ports = {(port.protocol, port.port): port for port in ports}
        new_peers = set(peers) - before
        self._everywhere = {peer for peer in peers if peer.namespaces is not None}
        self._fixed = {}
        for peer in peers:
            if peer.namespaces is None:
                self._fixed.setdefault(peer.namespace, set()).add(peer)
        # A new named port may be any pod's; a new peer only those of its namespaces.
        touched = set(self._claims) if new_ports else {a for peer in new_peers for a in self._candidates(peer)}
        self._settle(touched)

    def take(self) -> Changes:
        """What changed since the last call."""
        taken, self._changes = self._changes, Changes()
        return taken

    def elements(self, version: int) -> dict[str, list[str]]:
        """Everything, by set."""
        found: dict[str, list[str]] = {}
        for address, held in self._held.items():
            if _version(address) == version:
                for name, element in held:
                    found.setdefault(name, []).append(element)
        return found

    def _drop(self, names: set[str]) -> None:
        for address, held in list(self._held.items()):
            kept = frozenset(element for element in held if element[0] not in names)
            if len(kept) != len(held):
                self._keep(address, kept)
        for version in (4, 6):
            for noted in (self._changes.added[version], self._changes.removed[version]):
                noted.difference_update([element for element in noted if element[0] in names])

    def _candidates(self, peer: Peer) -> Iterable[str]:
        if peer.namespaces is None:
            return self._addresses_in(peer.namespace)
        chosen = [name for name, labels in self._namespaces.items() if peer.namespaces.matches(labels)]
        return (address for name in chosen for address in self._addresses_in(name))

    def _addresses_in(self, namespace: str) -> list[str]:
        return [a for key in self._in_namespace.get(namespace, ()) for a in self.pods[key].addresses]

    def _settle(self, addresses: Iterable[str]) -> None:
        """Bring the elements of these addresses up to date."""
        for address in addresses:
            claims = self._claims.get(address)
            wanted = self._elements_of(address, self.pods[claims[-1]]) if claims else _NOTHING
            held = self._held.get(address, _NOTHING)
            if wanted != held:
                self._changes.note(_version(address), held, wanted)
                self._keep(address, wanted)

    def _keep(self, address: str, held: frozenset[Element]) -> None:
        if held:
            self._held[address] = held
        else:
            self._held.pop(address, None)

    def _elements_of(self, address: str, pod: Pod) -> frozenset[Element]:
        labels = pod.labels
        found = [(peer.name, address) for peer in self._fixed.get(pod.namespace, ()) if peer.pods.matches(labels)]
        around = self._namespaces.get(pod.namespace)
        if around is not None:
            found += [(peer.name, address) for peer in self._everywhere if _selects(peer, around) and peer.pods.matches(labels)]
        for protocol, name, number in pod.ports:
            port = self._ports.get((protocol, name))
            if port is not None:
                found.append((port.name, f"{address} . {number}"))
        return frozenset(found)


def _selects(peer: Peer, labels: Mapping[str, str] | None) -> bool:
    return labels is not None and peer.namespaces is not None and peer.namespaces.matches(labels)


def _version(address: str) -> int:
    return 6 if ":" in address else 4
