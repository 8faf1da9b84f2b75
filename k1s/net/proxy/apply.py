"""Services into the kernel: the whole table at start, afterwards only the elements that changed.

Owns: what the kernel holds at the moment, who owns a frontend that two Services claim, and the transactions.
Called by: agent.network.app. Never does: watch the API; decide what a Service means (plan).

Bounds: state is one plan per Service. Chains made on demand are kept until the next full load, which comes by itself when
more than 512 have gathered. A transaction that the kernel refuses (somebody changed the table) is answered by a full load;
if that fails too the error goes up.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from k1s.net import conntrack
from k1s.net.family import IPV4, Family
from k1s.net.nft import Nft, NftError
from k1s.net.proxy import affinity, sticky_rule, table
from k1s.net.proxy.endpoints import Place
from k1s.net.proxy.plan import EMPTY, Balance, Chain, Elements, ServicePlan, Stick, plan_service

Object = dict[str, Any]
# namespace/name -> the Service, or None if there is none, and its EndpointSlices.
Lookup = Callable[[str], tuple[Object | None, Iterable[Object]]]

_MOST_CHAINS = 512
_NONE: Mapping[str, tuple[Object, Sequence[Object]]] = {}
# Made with the table: a chain that has to be added later makes nft read every element first (0.1 s at 1,000 Services).
_COMMON: frozenset[Chain] = frozenset(
    Balance("ip", protocol, targets, False, False) for protocol in ("tcp", "udp") for targets in range(1, 17)
)
_log = logging.getLogger("k1s.net.proxy")


@dataclass(slots=True)
class _State:
    """One family's table."""

    family: Family
    plans: dict[str, ServicePlan] = field(default_factory=dict)
    # Frontends of a Service that another one had first: their elements are in its plan, not in the kernel.
    lost: dict[str, set[str]] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    waiting: dict[str, set[str]] = field(default_factory=dict)
    chains: set[Chain] = field(default_factory=set)


@dataclass(slots=True)
class _Change:
    """What one transaction does, and what is to be cut off after it."""

    chains: set[Chain] = field(default_factory=set)
    deletes: Elements = field(default_factory=dict)
    adds: Elements = field(default_factory=dict)
    udp: dict[str, frozenset[str]] = field(default_factory=dict)
    sticky: bool = False
    # Frontends that lead elsewhere now for some clients, so that what clients remember there is void.
    void: set[str] = field(default_factory=set)


class ServiceProxy:
    """The proxy of one node. Not to be called concurrently: one task owns it."""

    def __init__(
        self,
        nft: Nft,
        lookup: Lookup,
        *,
        place: Place,
        ranges: table.Ranges,
        families: Sequence[Family] = (IPV4,),
        own_addresses: Collection[str] = (),
        own_services: Mapping[str, tuple[Object, Sequence[Object]]] = _NONE,
    ) -> None:
        """`own_addresses` are served by the agent itself, Services there are left alone; `own_services` stand beside those
        of the API, under keys that no Service has.
        """
        self._nft, self._lookup = nft, lookup
        self._place, self._ranges = place, ranges
        self._own_addresses = frozenset(own_addresses)
        self._own_services = own_services
        self._can_cut = True
        self._states = [_State(family) for family in families]

    async def move(self, place: Place) -> None:
        """The node's zone or addresses are others now: every Service may have nearer targets."""
        if place != self._place:
            self._place = place
            await self.update(self._known(()))

    async def load(self, services: Collection[str]) -> None:
        """Replace the tables by ones that hold exactly these Services, in one transaction. Clients keep their targets."""
        texts, changes = [], []
        stuck = [await affinity.held(self._nft, state.family) for state in self._states]
        for number, old in enumerate(self._states):
            state = self._states[number] = _State(old.family)
            change = self._stage(state, {*services, *self._own_services})
            change.chains |= _COMMON
            state.chains |= _COMMON
            texts.append(table.begin_text(state.family, self._ranges) + _text(state.family, change))
            texts.append(affinity.carry_over(state.family, stuck[number], self._sticky(state.family)))
            changes.append((state.family, change))
        await self._nft.run("".join(texts))
        for family, change in changes:
            await self._remember(family, change)
        # Flows that outlived a target while nobody watched.
        for family, change in changes:
            await self._cut_udp(family, change)

    async def update(self, services: Collection[str]) -> None:
        """Bring the kernel up to date with these Services, whether changed, new or gone."""
        if any(len(state.chains) > _MOST_CHAINS for state in self._states):
            await self.load(self._known(services))
            return
        changes = [(state.family, self._stage(state, services)) for state in self._states]
        text = "".join(_text(family, change) for family, change in changes)
        if not text:
            return
        try:
            await self._nft.run(text)
            for family, change in changes:
                await self._remember(family, change)
        except NftError as error:
            _log.warning("service table is not as it was left, writing it anew: %s", error)
            await self.load(self._known(services))
        for family, change in changes:
            await self._cut_udp(family, change)
            if change.sticky or change.void:
                kept = {frontend: targets for frontend, targets in self._sticky(family).items() if frontend not in change.void}
                await affinity.forget(self._nft, family, kept)

    def _known(self, services: Collection[str]) -> set[str]:
        return {key for state in self._states for key in state.plans} | set(services)

    async def _remember(self, family: Family, change: _Change) -> None:
        """Until this is done (and only for the first of its kind) a client's target is not remembered, nothing worse."""
        for chain in change.chains:
            if isinstance(chain, Stick) and family.version == 6:
                await self._nft.in_thread(partial(sticky_rule.append, chain.name, chain.seconds))

    async def _cut_udp(self, family: Family, change: _Change) -> None:
        if not change.udp or not self._can_cut:
            return
        try:
            await conntrack.cut_udp(family, change.udp)
        except conntrack.Unsupported as error:
            # TCP does not need it; `k1s check-config` tells of it too.
            self._can_cut = False
            _log.error("clients may go on sending UDP to endpoints that are gone: %s", error)

    def _sticky(self, family: Family) -> dict[str, frozenset[str]]:
        state = next(s for s in self._states if s.family is family)
        return {frontend: targets for plan in state.plans.values() for frontend, targets in plan.sticky.items()}

    def _stage(self, state: _State, services: Collection[str]) -> _Change:
        """Plan these Services, note the new state and return the way to it."""
        change = _Change()
        queue = deque(sorted(services))
        while queue:
            key = queue.popleft()
            before, held = state.plans.pop(key, EMPTY), state.lost.pop(key, ())
            own = self._own_services.get(key)
            service, slices = own or self._lookup(key)
            plan = EMPTY
            if service is not None:
                plan = plan_service(
                    service,
                    slices,
                    family=state.family,
                    place=self._place,
                    before=before,
                    own_addresses=frozenset() if own else self._own_addresses,
                )
                state.plans[key] = plan
            lost = self._claim(state, key, before, plan, queue)
            if lost:
                state.lost[key] = lost
            _difference(change, before.elements(held), plan.elements(lost))
            change.chains |= plan.chains - state.chains
            _note_flows(change, before, plan)
        state.chains |= change.chains
        return change

    def _claim(self, state: _State, key: str, before: ServicePlan, plan: ServicePlan, queue: deque[str]) -> set[str]:
        """Note whose the frontends are and return those that are not the Service's; what it gave up goes to who waits."""
        lost = set()
        for frontend in plan.frontends:
            if state.owners.setdefault(frontend, key) != key:
                lost.add(frontend)
                state.waiting.setdefault(frontend, set()).add(key)
        for frontend in before.frontends.keys() - plan.frontends.keys():
            waiting = state.waiting.get(frontend, set())
            waiting.discard(key)
            if state.owners.get(frontend) == key:
                del state.owners[frontend]
                queue.extend(sorted(waiting))
                waiting.clear()
            if not waiting:
                state.waiting.pop(frontend, None)
        return lost


def _difference(change: _Change, held: Elements, now: Elements) -> None:
    for element, value in held.items():
        if now.get(element) != value:
            # What this very transaction was to add needs no delete; it happens when a frontend changes hands.
            if change.adds.pop(element, None) is None:
                change.deletes[element] = value
    for element, value in now.items():
        if held.get(element) != value:
            change.adds[element] = value


def _note_flows(change: _Change, before: ServicePlan, plan: ServicePlan) -> None:
    old, new = before.udp_targets(), plan.udp_targets()
    for frontend in old.keys() | new.keys():
        if old.get(frontend) != new.get(frontend):
            change.udp[frontend] = new.get(frontend, frozenset())
    for frontend, targets in before.sticky.items():
        if targets - plan.sticky.get(frontend, frozenset()):
            change.sticky = True
        elif before.is_local(frontend) != plan.is_local(frontend):
            change.void.add(frontend)


def _text(family: Family, change: _Change) -> str:
    chains = "".join(table.chain_text(family, chain) for chain in sorted(change.chains, key=lambda c: c.name))
    deletes = table.elements_text("delete", family, list(change.deletes.items()))
    return chains + deletes + table.elements_text("add", family, list(change.adds.items()))
