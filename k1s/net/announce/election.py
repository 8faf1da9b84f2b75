"""Which node holds which pool address, decided by every node for itself from what it hears.

Owns: the rule, and what is known of the other nodes. Called by: announcer, one Election a link and family; pure.
Never does: I/O, read a clock (`now` is any monotonic one's).

The rule: of the nodes that offer an address and have been heard within DEAD_SECONDS, the one with the highest rank (a hash of
address and node, so that addresses spread and few move when a node comes or goes) is to hold it.
- Who is to hold it and does not, takes it; but one that has just started listens first, else it would take what others have.
- Who holds it and should not, lets go once the other says that it holds it: an address is never without a node.
- Two that hold it (the LAN was parted, a killed agent's kernel still had it) hear of each other by the same packets: the lower
  lets go, the higher says once more where the address is, because the neighbours may have believed the other. It does so
  whenever a node appears that offers the address: that one may have let go before it was heard.
Only what nodes say themselves counts, not what the API says of them: all nodes decide by the same facts, server or no server.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache

from k1s.net.announce.packet import Heartbeat

BEAT_SECONDS = 0.5
# Four beats. With the beat that notices it and the announcement: an address is back 2.0 to 2.6 s after its node died.
DEAD_SECONDS = 2.0
LISTEN_SECONDS = 1.25
# Former starts of a node that a recording of cannot be mistaken for it.
_FORMER_BOOTS = 16
_RANKS = 4096


@dataclass(slots=True)
class _Peer:
    boot: int
    number: int
    heard: float
    offered: frozenset[str]
    held: frozenset[str]
    former: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """`repeat`: held already, but neighbours may think otherwise. `alone`: held, and nobody else could take it over.
    `again`: look again after so many seconds, even if nothing is heard.
    """

    claim: frozenset[str] = frozenset()
    release: frozenset[str] = frozenset()
    repeat: frozenset[str] = frozenset()
    alone: frozenset[str] = frozenset()
    again: float | None = None


class Election:
    """One node's view. `offered` is what it may hold; `held` what it does, as the caller has carried it out."""

    def __init__(self, node: str, now: float, held: Iterable[str] = ()) -> None:
        """`held`: what the kernel has from before a restart."""
        self.node = node
        self.offered: frozenset[str] = frozenset()
        self.held: frozenset[str] = frozenset(held)
        # Nobody can hear this node (its packets are refused): then it must not rely on its rank.
        self.mute = False
        self._started = now
        self._peers: dict[str, _Peer] = {}
        self._contested: frozenset[str] = frozenset()
        # Offered by nodes that have appeared since the last decision.
        self._appeared: frozenset[str] = frozenset()

    def hear(self, beat: Heartbeat, now: float) -> bool:
        """Take a heartbeat in; True if it says something new, so that `decide` may decide otherwise."""
        if beat.node == self.node:
            return False
        known = self._peers.get(beat.node)
        if known is None:
            self._peers[beat.node] = _Peer(beat.boot, beat.number, now, beat.offered, beat.held)
            self._appeared |= beat.offered
            return True
        if beat.boot == known.boot:
            if beat.number <= known.number:
                return False
        elif beat.boot in known.former:
            return False
        else:
            known.former = (*known.former, known.boot)[-_FORMER_BOOTS:]
        back = beat.boot != known.boot or now - known.heard >= DEAD_SECONDS
        news = back or (beat.offered, beat.held) != (known.offered, known.held)
        self._appeared |= beat.offered if back else frozenset()
        known.boot, known.number, known.heard = beat.boot, beat.number, now
        known.offered, known.held = beat.offered, beat.held
        return news

    def forget(self, nodes: Collection[str]) -> None:
        """Keep only peers of these names (nodes that were deleted)."""
        self._peers = {name: peer for name, peer in self._peers.items() if name in nodes}

    def decide(self, now: float) -> Decision:
        alive = {name: peer for name, peer in self._peers.items() if now - peer.heard < DEAD_SECONDS}
        quiet = self._started + LISTEN_SECONDS - now
        claim, release, alone, contested = set(), set(), set(), set()
        for address in self.offered | self.held:
            rivals = [name for name, peer in alive.items() if address in peer.offered]
            runners = rivals if self.mute and rivals else [*rivals, self.node]
            best = max(runners, key=lambda name: rank(address, name))
            if address not in self.offered:
                release.add(address)
            elif best != self.node:
                if address in self.held and address in alive[best].held:
                    release.add(address)
            elif address not in self.held:
                if quiet <= 0:
                    claim.add(address)
            elif any(address in peer.held for peer in alive.values()):
                contested.add(address)
            if not rivals:
                alone.add(address)
        repeat = (frozenset(contested) ^ self._contested) | self._appeared
        self._contested, self._appeared = frozenset(contested), frozenset()
        waits = [peer.heard + DEAD_SECONDS - now for peer in alive.values()] + ([quiet] if quiet > 0 else [])
        return Decision(
            claim=frozenset(claim),
            release=frozenset(release),
            repeat=repeat & self.held - release,
            alone=frozenset(alone),
            again=min(waits, default=None),
        )

    def peers(self, now: float) -> list[str]:
        return sorted(name for name, peer in self._peers.items() if now - peer.heard < DEAD_SECONDS)


@lru_cache(_RANKS)
def rank(address: str, node: str) -> bytes:
    """Rendezvous hash (highest random weight)."""
    return hashlib.sha256(f"{address} {node}".encode()).digest()
