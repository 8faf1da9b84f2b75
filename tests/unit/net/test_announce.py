"""Heartbeats, the election, what is told to neighbours, and which link an address belongs to."""

from __future__ import annotations

import heapq
import ipaddress
import itertools
import struct
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k1s.net.announce import packet, uplinks
from k1s.net.announce.election import BEAT_SECONDS, DEAD_SECONDS, LISTEN_SECONDS, Election, rank
from k1s.net.announce.gratuitous import advertisement, arp_frames
from k1s.net.announce.packet import Heartbeat, decode, encode
from k1s.net.announce.uplinks import Uplink, choose

KEY = b"0123456789abcdef"
VIP = "192.0.2.240"


def beat(node: str, *offered: str, held: tuple[str, ...] = (), boot: int = 1, number: int = 1) -> Heartbeat:
    return Heartbeat(node, boot, number, frozenset(offered), frozenset(held))


# --- packets


@pytest.mark.parametrize(("version", "addresses"), [(4, ["192.0.2.1", "10.0.0.9"]), (6, ["2001:db8::1", "fd00::"]), (4, [])])
def test_a_heartbeat_arrives_as_it_was_sent(version: int, addresses: list[str]) -> None:
    sent = Heartbeat("node-a", 2**64 - 1, 7, frozenset(addresses), frozenset(addresses[:1]))
    assert decode(encode(sent, version, KEY), version, KEY) == sent


@given(data=st.binary(max_size=200))
def test_no_packet_of_a_stranger_is_taken(data: bytes) -> None:
    assert decode(data, 4, KEY) is None


@given(position=st.integers(0, 60), bit=st.integers(0, 7))
def test_no_changed_packet_is_taken(position: int, bit: int) -> None:
    data = bytearray(encode(beat("node-a", VIP), 4, KEY))
    data[position % len(data)] ^= 1 << bit
    assert decode(bytes(data), 4, KEY) is None


def test_a_packet_of_another_key_or_family_is_not_taken() -> None:
    assert decode(encode(beat("a"), 4, KEY), 4, b"x" * 16) is None
    assert decode(encode(beat("a"), 4, KEY), 6, KEY) is None


@pytest.mark.parametrize("version", [4, 6])
def test_as_many_addresses_as_said_fit_into_a_packet(version: int) -> None:
    node, count = "n" * 253, packet.fits(version, "n" * 253)
    first = int(ipaddress.ip_address("10.0.0.0" if version == 4 else "fd00::"))
    addresses = [str((ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address)(first + n)) for n in range(count)]
    data = encode(beat(node, *addresses), version, KEY)
    assert packet.LARGEST - 17 < len(data) <= packet.LARGEST
    assert decode(data, version, KEY) is not None


def test_a_body_that_is_cut_short_is_refused_though_signed() -> None:
    body = encode(beat("a", VIP), 4, KEY)[:-16]
    for length in range(5, len(body)):
        assert decode(body[:length] + packet._mac(body[:length], 4, KEY), 4, KEY) is None


# --- the rule


def test_a_node_alone_listens_and_takes_it() -> None:
    election = Election("a", 10.0)
    election.offered = frozenset({VIP})
    decision = election.decide(10.0)
    assert (decision.claim, decision.again) == (frozenset(), LISTEN_SECONDS)
    decision = election.decide(10.0 + LISTEN_SECONDS)
    assert decision.claim == decision.alone == {VIP}


def two(now: float = 10.0) -> tuple[Election, str]:
    """The election of the node of the highest rank, long after its start, and the other's name."""
    high, low = sorted("ab", key=lambda node: rank(VIP, node), reverse=True)
    election = Election(high, now - 60)
    election.offered = frozenset({VIP})
    return election, low


def test_the_lower_waits_for_the_higher_to_hold_before_it_lets_go() -> None:
    election, low = two()
    high = election.node
    other = Election(low, 0.0, held=[VIP])
    other.offered = frozenset({VIP})
    assert other.hear(beat(high, VIP), 10.0)
    assert other.decide(10.0).release == frozenset()
    assert other.hear(beat(high, VIP, held=(VIP,), number=2), 10.5)
    assert other.decide(10.5).release == {VIP}
    other.held = frozenset()
    # It dies: two seconds later, and not before.
    assert other.decide(10.5 + DEAD_SECONDS - 0.01).claim == frozenset()
    assert other.decide(10.5 + DEAD_SECONDS).claim == {VIP}


def test_a_dispute_is_told_to_the_neighbours_at_its_beginning_and_end() -> None:
    election, low = two()
    election.held = frozenset({VIP})
    election.hear(beat(low, VIP), 9.5)
    election.decide(9.5)
    election.hear(beat(low, VIP, held=(VIP,), number=2), 10.0)
    assert election.decide(10.0).repeat == {VIP}
    assert election.decide(10.1).repeat == frozenset()
    election.hear(beat(low, VIP, number=3), 10.5)
    assert election.decide(10.5).repeat == {VIP}


def test_a_node_that_appears_may_have_been_believed() -> None:
    """It let go when it heard us, before we heard it."""
    election, low = two()
    election.held = frozenset({VIP})
    election.hear(beat(low, VIP), 10.0)
    assert election.decide(10.0).repeat == {VIP}
    election.hear(beat(low, VIP, number=2), 10.5)
    assert election.decide(10.5).repeat == frozenset()
    election.hear(beat(low, VIP, number=3), 10.5 + DEAD_SECONDS)
    assert election.decide(10.5 + DEAD_SECONDS).repeat == {VIP}
    election.hear(beat(low, VIP, boot=2, number=1), 13.0)
    assert election.decide(13.0).repeat == {VIP}


def test_what_is_not_offered_any_more_is_released_at_once() -> None:
    election, _ = two()
    election.held, election.offered = frozenset({VIP}), frozenset()
    assert election.decide(10.0).release == {VIP}


def test_a_mute_node_does_not_rely_on_its_rank() -> None:
    election, low = two()
    election.held, election.mute = frozenset({VIP}), True
    assert election.decide(10.0).release == frozenset(), "nobody else is there"
    election.hear(beat(low, VIP, held=(VIP,)), 10.0)
    assert election.decide(10.0).release == {VIP}


def test_recordings_are_not_heard() -> None:
    election, low = two()
    assert election.hear(beat(low, VIP, number=5), 10.0)
    assert not election.hear(beat(low, VIP, number=5), 20.0)
    assert not election.hear(beat(low, VIP, number=4), 20.0)
    assert election.hear(beat(low, VIP, boot=2, number=1), 20.0), "it has started anew"
    assert not election.hear(beat(low, VIP, boot=1, number=99), 30.0), "that start is over"
    assert election.peers(30.0) == []


def test_a_deleted_node_is_forgotten() -> None:
    election, low = two()
    election.hear(beat(low, VIP), 10.0)
    election.forget([election.node])
    assert election.peers(10.0) == []


def test_addresses_spread_and_few_move_when_a_node_goes() -> None:
    nodes = [f"node-{n}" for n in range(4)]
    addresses = [f"192.0.2.{n}" for n in range(200)]
    before = {a: max(nodes, key=lambda n: rank(a, n)) for a in addresses}
    assert all(30 <= list(before.values()).count(node) <= 75 for node in nodes)
    after = {a: max(nodes[1:], key=lambda n: rank(a, n)) for a in addresses}
    assert all(after[a] == before[a] for a in addresses if before[a] != nodes[0])


# --- several nodes, with packets that are lost and late


@dataclass
class World:
    """Nodes that beat as the announcer does; `lost(number)` says which packets do not arrive."""

    names: list[str]
    lost: set[int]
    delays: list[float]
    now: float = 0.0
    nodes: dict[str, Election] = field(default_factory=dict)
    queue: list[tuple[float, int, str, Heartbeat | None]] = field(default_factory=list)
    order: itertools.count[int] = field(default_factory=itertools.count)
    sent: int = 0
    parted: set[str] = field(default_factory=set)
    nobody: list[float] = field(default_factory=list)

    def start(self, name: str, at: float) -> None:
        heapq.heappush(self.queue, (at, next(self.order), name, None))

    def run(self, until: float) -> None:
        while self.queue and self.queue[0][0] <= until:
            self.now, _, name, heard = heapq.heappop(self.queue)
            if heard is None:
                self._tick(name)
            elif name in self.nodes and (name in self.parted) == (heard.node in self.parted):
                self.nodes[name].hear(heard, self.now)
                self._decide(name)
        self.now = until

    def _tick(self, name: str) -> None:
        if name not in self.nodes:
            self.nodes[name] = Election(name, self.now)
            self.nodes[name].offered = frozenset({VIP})
        self._decide(name)
        self._send(name)
        heapq.heappush(self.queue, (self.now + BEAT_SECONDS, next(self.order), name, None))

    def _decide(self, name: str) -> None:
        election = self.nodes[name]
        before = self.holders()
        decision = election.decide(self.now)
        election.held = (election.held | decision.claim) - decision.release
        if before and not self.holders():
            self.nobody.append(self.now)
        if decision.claim or decision.release:
            self._send(name)

    def _send(self, name: str) -> None:
        self.sent += 1
        election = self.nodes[name]
        if self.sent in self.lost:
            return
        said = Heartbeat(name, hash(name) & 0xFFFF, self.sent, election.offered, election.held)
        for other in self.names:
            delay = self.delays[self.sent % len(self.delays)]
            heapq.heappush(self.queue, (self.now + delay, next(self.order), other, replace(said)))

    def holders(self) -> list[str]:
        return [name for name, election in self.nodes.items() if VIP in election.held]


@settings(max_examples=60, deadline=None)
@given(
    starts=st.lists(st.floats(0, 5), min_size=2, max_size=5),
    lost=st.sets(st.integers(1, 400), max_size=80),
    delays=st.lists(st.floats(0.0, 0.3), min_size=1, max_size=7),
    parted=st.sets(st.integers(0, 4)),
)
def test_whatever_happens_one_holds_it_in_the_end(
    starts: list[float], lost: set[int], delays: list[float], parted: set[int]
) -> None:
    names = [f"node-{n}" for n in range(len(starts))]
    # Losses end; what follows is a quiet LAN.
    world = World(names, {n for n in lost if n < 300}, delays)
    for name, at in zip(names, starts, strict=True):
        world.start(name, at)
    world.run(20.0)
    world.parted = {names[n] for n in parted if n < len(names)}
    world.run(30.0)
    assert not world.nobody, "never is there a moment without a holder while all live"
    world.parted = set()
    world.lost = set()
    world.run(40.0)
    assert world.holders() == [max(names, key=lambda name: rank(VIP, name))]
    # The holder dies.
    (first,) = world.holders()
    del world.nodes[first]
    world.queue = [entry for entry in world.queue if entry[2] != first]
    heapq.heapify(world.queue)
    world.names.remove(first)
    world.run(40.0 + DEAD_SECONDS + max(delays) + BEAT_SECONDS + 0.1)
    assert world.holders() == [max(world.names, key=lambda name: rank(VIP, name))]


# --- what neighbours are told


def test_an_arp_announcement_names_the_address_twice() -> None:
    mac = bytes.fromhex("020000000001")
    request, reply = arp_frames("192.0.2.240", mac)
    assert request[:14] == b"\xff" * 6 + mac + b"\x08\x06"
    assert [struct.unpack_from("!H", frame, 20)[0] for frame in (request, reply)] == [1, 2]
    address = ipaddress.ip_address("192.0.2.240").packed
    for frame in (request, reply):
        assert len(frame) == 42
        assert frame[22:32] == mac + address
        assert frame[38:42] == address


def test_a_neighbour_advertisement_overrides_and_asks_for_no_answer() -> None:
    mac = bytes.fromhex("020000000001")
    message = advertisement("2001:db8::240", mac)
    assert message[:8] == bytes([136, 0, 0, 0, 0x20, 0, 0, 0])
    assert message[8:24] == ipaddress.ip_address("2001:db8::240").packed
    assert message[24:] == bytes([2, 1]) + mac


# --- links


def uplink(index: int, *addresses: str) -> Uplink:
    return Uplink(index, f"eth{index}", bytes(6), tuple(ipaddress.ip_interface(a) for a in addresses))


@pytest.mark.parametrize(
    ("address", "link"),
    [
        ("192.0.2.240", "eth1"),
        ("10.0.0.5", "eth2"),
        ("10.0.7.5", "eth3"),
        ("2001:db8::5", "eth1"),
        ("198.51.100.1", None),
        ("203.0.113.9", None),
    ],
)
def test_an_address_belongs_to_the_link_of_its_range(address: str, link: str | None) -> None:
    links = [
        uplink(3, "10.0.7.1/16"),
        uplink(2, "10.0.0.1/24"),
        uplink(1, "192.0.2.1/24", "2001:db8::1/64", "203.0.113.9/32"),
    ]
    found = choose(address, links)
    assert (found.name if found else None) == link


@pytest.mark.parametrize(
    ("kind", "head", "name", "matters"),
    [
        (20, (2, 24, 0, 0), None, True),  # an address of a LAN
        (20, (2, 32, 0, 253), None, False),  # our own, renewed
        (20, (10, 128, 0, 0), None, False),
        (21, (2, 32, 0, 253), None, True),  # gone: perhaps it was ours
        (16, None, "eth0", True),
        (16, None, "k1sv0123456789", False),
        (16, None, "k1s-lb", False),
        (17, None, "k1s-lb", True),
        (24, (2, 0, 0, 0), None, False),
    ],
)
def test_only_what_may_concern_us_wakes_us(kind: int, head: tuple[int, ...] | None, name: str | None, matters: bool) -> None:
    if head is not None:
        body = struct.pack("=BBBBI", *head, 1)
    else:
        assert name is not None
        text = name.encode() + b"\0"
        body = struct.pack("=BxHiII", 0, 1, 1, 0x41, 0) + struct.pack("=HH", 4 + len(text), 3) + text
    assert uplinks.matters(kind, body) is matters
