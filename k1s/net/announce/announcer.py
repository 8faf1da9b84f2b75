"""One node's side of announcing pool addresses: the loop that hears, decides and does.

Owns: an Election for each link and family, the rhythm of heartbeats, announcements and renewals. Called by:
agent/network/announce. Never does: know a Service; decide (election).

It talks to the kernel without waiting for another thread (a tenth of a millisecond each): its loop has nothing else to do
(thread.py). While there is no pool address nothing runs: no socket, no timer; a node that may hold none of them only listens, so
that it knows what there is when it may. Bounds: addresses as many as a heartbeat names (packet.fits), the first in order; peers
as many as there are Nodes; a beat each 0.5 s and one for each change.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field

from k1s.base.clock import Clock
from k1s.net.announce import gratuitous, holder, packet, uplinks
from k1s.net.announce.channel import Channel
from k1s.net.announce.election import BEAT_SECONDS, DEAD_SECONDS, LISTEN_SECONDS, Election
from k1s.net.announce.uplinks import Uplink

# A neighbour that misses the first learns by the others.
_REPEATS = (0.0, 0.3, 1.0, 3.0)
_HOLD_SECONDS, _RENEW_SECONDS = 6, 2.0
# An address that the kernel refused is offered again after this long; until then another node may have it.
# So is a link on which heartbeats could not be had (another program has the port).
_REFUSED_SECONDS = 10.0
_SILENCE_SECONDS = 10.0
_log = logging.getLogger("k1s.net.announce")

Place = tuple[str, int, int]  # (link, its index, IP version)


@dataclass(slots=True)
class _Lan:
    """One link and family."""

    uplink: Uplink
    version: int
    channel: Channel
    election: Election
    beat_due: float
    sent: float
    renew_due: float
    # When to say again where an address is.
    repeats: dict[str, list[float]] = field(default_factory=dict)
    alone: frozenset[str] = frozenset()
    # What this node said last: that it may hold something.
    involved: bool = False
    # When to say that no other node is heard; 0 once that is done with.
    silence_due: float = 0.0


class Announcer:
    """Tell it what this node may hold (`offer`), the key and the nodes there are, then `run` it."""

    def __init__(
        self,
        node: str,
        clock: Clock,
        taken: Callable[[str, str], None] = lambda address, link: None,
        homeless: Callable[[str], None] = lambda address: None,
    ) -> None:
        """`taken(address, link)`: this node has just taken it. `homeless(address)`: no link of this node is of its LAN."""
        self._node, self._clock, self._told, self._tell_homeless = node, clock, taken, homeless
        self._boot, self._number = secrets.randbits(64), 0
        self._offered: frozenset[str] = frozenset()
        self._all: frozenset[str] = frozenset()
        self._nodes: frozenset[str] = frozenset()
        self._key = b""
        self._lans: dict[Place, _Lan] = {}
        self._look = True
        self._homeless: frozenset[str] = frozenset()
        # Address or link -> when to try it again.
        self._refused: dict[str, float] = {}
        self._wake = asyncio.Event()

    def offer(self, addresses: Collection[str], every: Collection[str], nodes: Collection[str]) -> None:
        """What this node may hold from now on, of all pool addresses; the names of all nodes (others are not heard)."""
        wanted = frozenset(addresses), frozenset(every), frozenset(nodes)
        if wanted != (self._offered, self._all, self._nodes):
            self._offered, self._all, self._nodes = wanted
            self._look = True
            self._wake.set()

    def set_key(self, key: bytes) -> None:
        """Without a key nothing is held: other nodes could not be heard."""
        if key != self._key:
            self._key, self._look = key, True
            self._wake.set()

    @property
    def held(self) -> dict[str, str]:
        """Address -> link."""
        # A copy first: this may be another thread.
        return {address: lan.uplink.name for lan in list(self._lans.values()) for address in lan.election.held}

    async def run(self) -> None:
        """Until cancelled. What is held stays in the kernel then, for the agent that comes next (see holder)."""
        with ExitStack() as stack:
            stack.callback(self._close_all)
            watch = stack.enter_context(ExitStack())
            watching = False
            while True:
                active = bool(self._all and self._key)
                if active and not watching:
                    watch.enter_context(uplinks.watch(self._links_changed))
                elif not active and watching:
                    watch.close()
                watching = active
                if self._look:
                    self._look = False
                    self._arrange(active)
                await self._wait(self._round())

    def _links_changed(self) -> None:
        self._look = True
        self._wake.set()

    async def _wait(self, seconds: float | None) -> None:
        if seconds is None:
            await self._wake.wait()
        elif seconds > 0 and not self._wake.is_set():
            waiting = [asyncio.ensure_future(self._wake.wait()), asyncio.ensure_future(self._clock.sleep(seconds))]
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in waiting:
                    task.cancel()
        self._wake.clear()

    @property
    def _solo(self) -> bool:
        """There is no other node: nobody to listen to, nobody to tell."""
        return not self._nodes - {self._node}

    # --- which links

    def _arrange(self, active: bool) -> None:
        """Channels for the links that the offered addresses belong to; what is held and not offered any more goes."""
        wanted: dict[Place, set[str]] = {}
        links = uplinks.read() if active else []
        in_kernel = holder.held()
        by_place: dict[Place, Uplink] = {}
        homeless = set()
        offered = self._offered.difference(self._refused)
        for address in sorted(self._all) if active else ():
            uplink = uplinks.choose(address, links)
            if uplink is None:
                homeless |= {address} & offered
                continue
            place = (uplink.name, uplink.index, 6 if ":" in address else 4)
            by_place[place] = uplink
            wanted.setdefault(place, set()).update({address} & offered)
        for address in sorted(homeless - self._homeless):
            self._tell_homeless(address)
        self._homeless = frozenset(homeless)
        for place in self._lans.keys() - wanted.keys():
            self._leave(self._lans.pop(place))
        for place, addresses in wanted.items():
            lan = self._lans.get(place) or self._join(by_place[place], place[2], in_kernel & addresses)
            if lan is None:
                continue
            self._lans[place] = lan
            lan.uplink = by_place[place]
            most = packet.fits(place[2], self._node)
            if len(addresses) > most:
                _log.error("%d addresses on %s, of which %d can be announced", len(addresses), place[0], most)
            lan.election.offered = frozenset(sorted(addresses)[:most])
            lan.election.forget(self._nodes)
            # What somebody took off our link is taken again by this round.
            lan.election.held &= in_kernel
            lan.beat_due = 0.0
        ours = {address for lan in self._lans.values() for address in lan.election.held}
        for address in sorted(in_kernel - ours):
            holder.drop(address)

    def _join(self, uplink: Uplink, version: int, held: Iterable[str]) -> _Lan | None:
        now = self._clock.monotonic()
        election = Election(self._node, now - LISTEN_SECONDS if self._solo else now, held)

        def received(data: bytes) -> None:
            beat = packet.decode(data, version, self._key)
            if beat is not None and beat.node in self._nodes and election.hear(beat, self._clock.monotonic()):
                self._wake.set()

        try:
            channel = Channel(uplink.name, uplink.index, version, received)
        except OSError as error:
            _log.warning("no heartbeats on %s (UDP port %d): %s", uplink.name, packet.PORT, error)
            self._refused[f"link {uplink.name}"] = now + _REFUSED_SECONDS
            return None
        return _Lan(uplink, version, channel, election, beat_due=0.0, sent=now, renew_due=0.0, silence_due=now + _SILENCE_SECONDS)

    def _leave(self, lan: _Lan) -> None:
        for address in lan.election.held:
            holder.drop(address)
        lan.election.offered = lan.election.held = frozenset()
        if self._key:
            self._beat(lan)  # so that another takes over at once
        lan.channel.close()

    def _close_all(self) -> None:
        for lan in self._lans.values():
            lan.channel.close()
        self._lans.clear()

    # --- what to do now

    def _round(self) -> float | None:
        """Do what is due; returns the seconds until something is due again, None where nothing is."""
        waits: list[float] = []
        for lan in list(self._lans.values()):
            waits += self._serve(lan)
        now = self._clock.monotonic()
        for what, until in list(self._refused.items()):
            if now >= until:
                del self._refused[what]
                self._look = True
            waits.append(max(until - now, 0.0))
        return min(waits, default=None)

    def _serve(self, lan: _Lan) -> list[float]:
        """The seconds until this link wants to be looked at again."""
        now, election = self._clock.monotonic(), lan.election
        if not lan.involved:
            lan.sent = now  # there was nothing to say
        election.mute = now - lan.sent > DEAD_SECONDS and not self._solo
        decision = election.decide(now)
        for address in sorted(decision.release):
            holder.drop(address)
            election.held -= {address}
            lan.repeats.pop(address, None)
            _log.info("this node lets go of %s", address)
        self._hold(lan, decision.claim, decision.alone)
        for address in sorted(decision.claim & election.held):
            _log.info("this node holds %s on %s", address, lan.uplink.name)
            self._told(address, lan.uplink.name)
        for address in (decision.claim | decision.repeat) & election.held:
            lan.repeats[address] = [now + delay for delay in _REPEATS]
        self._renew(lan, now, decision.alone)
        self._say(lan, now)
        self._mind_silence(lan, now)
        waits = [times[0] - now for times in lan.repeats.values()]
        involved = bool(election.offered or election.held)
        if decision.again is not None and involved:
            waits.append(decision.again)
        if not self._solo:
            # Once more after the last address was withdrawn, so that another node takes it at once.
            if decision.claim or decision.release or (now >= lan.beat_due and (involved or lan.involved)):
                self._beat(lan)
                lan.beat_due, lan.involved = now + BEAT_SECONDS, involved
            if involved:
                waits.append(lan.beat_due - now)
        return [max(seconds, 0.001) for seconds in waits]

    def _hold(self, lan: _Lan, addresses: Iterable[str], alone: frozenset[str]) -> None:
        """Take or renew them. Those that another node could take over end by themselves unless they are renewed."""
        for part, seconds in ((alone.intersection(addresses), None), (frozenset(addresses) - alone, _HOLD_SECONDS)):
            if not part:
                continue
            refused = holder.renew(sorted(part), lan.uplink.name, seconds)
            for address, why in refused.items():
                _log.error("%s", why)
                self._refused[address] = self._clock.monotonic() + _REFUSED_SECONDS
            lan.election.offered -= frozenset(refused)
            lan.election.held = (lan.election.held | part) - frozenset(refused)

    def _renew(self, lan: _Lan, now: float, alone: frozenset[str]) -> None:
        due = (alone ^ lan.alone) & lan.election.held
        lan.alone = alone
        if now >= lan.renew_due:
            due |= lan.election.held - alone
            lan.renew_due = now + _RENEW_SECONDS
        self._hold(lan, due, alone)

    def _mind_silence(self, lan: _Lan, now: float) -> None:
        """Nodes that do not hear each other all hold the same addresses: mostly a firewall's doing, and hard to see."""
        if not lan.silence_due or self._solo:
            return
        if lan.election.peers(now):
            lan.silence_due = 0.0
        elif now >= lan.silence_due and lan.election.held:
            lan.silence_due = 0.0
            text = "no heartbeat of another node on %s: where they are on this network too, let UDP port %d through between nodes"
            _log.warning(text, lan.uplink.name, packet.PORT)

    def _say(self, lan: _Lan, now: float) -> None:
        for address, times in list(lan.repeats.items()):
            if times[0] > now:
                continue
            lan.repeats[address] = [time for time in times if time > now]
            if not lan.repeats[address]:
                del lan.repeats[address]
            try:
                gratuitous.announce(address, lan.uplink.name, lan.uplink.index, lan.uplink.mac)
            except OSError as error:
                # The link went down under us; its notification is on the way.
                _log.warning("%s could not be announced on %s: %s", address, lan.uplink.name, error)

    def _beat(self, lan: _Lan) -> None:
        self._number += 1
        election = lan.election
        beat = packet.Heartbeat(self._node, self._boot, self._number, election.offered, election.held)
        try:
            lan.channel.send(packet.encode(beat, lan.version, self._key))
        except OSError as error:
            if not election.mute:
                _log.debug("heartbeat on %s: %s", lan.uplink.name, error)
            return
        lan.sent = self._clock.monotonic()
