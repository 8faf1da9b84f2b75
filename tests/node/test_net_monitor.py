"""The monitor of nftables changes against a real kernel."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import netlab

from k1s.net import conntrack, hostport, masquerade, netns
from k1s.net.family import IPV4, IPV6, Family
from k1s.net.ipam import Attachment, PortMapping
from k1s.net.monitor import Monitor, present
from k1s.net.nft import Nft, NftError
from k1s.net.proxy import table
from k1s.net.proxy.plan import PROTOCOLS, Balance, Sources, Stick

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def host() -> Iterator[str]:
    with netlab.namespace() as name, netns.entered(netlab.path_of(name)):
        yield name


@pytest.fixture
async def nft(host: str) -> AsyncIterator[Nft]:
    found = Nft()
    yield found
    await found.close()


@pytest.fixture
async def monitor(nft: Nft) -> AsyncIterator[Monitor]:
    found = Monitor()
    await asyncio.wait_for(found.start(nft), 5)
    yield found
    found.close()


async def quiet(monitor: Monitor) -> bool:
    try:
        assert await asyncio.wait_for(monitor.wait(), 0.3)
    except TimeoutError:
        return True
    return False


async def test_own_changes_are_not_told(monitor: Monitor, nft: Nft) -> None:
    await nft.run("add table ip k1s-x; add set ip k1s-x s { type ipv4_addr; }; add element ip k1s-x s { 10.0.0.1 }")
    await nft.run("delete element ip k1s-x s { 10.0.0.1 }; delete table ip k1s-x")
    assert await quiet(monitor)


@pytest.mark.parametrize(
    "command",
    ["flush ruleset", "delete table ip k1s-x", "flush chain ip k1s-x c", "delete element ip k1s-x s { 10.0.0.1 }"],
)
async def test_foreign_changes_are_told(monitor: Monitor, nft: Nft, command: str) -> None:
    await nft.run("table ip k1s-x {\nset s { type ipv4_addr; elements = { 10.0.0.1 }; }\nchain c {\naccept\n}\n}\n")
    netlab.run("nft", "add table ip other")
    assert await quiet(monitor)
    netlab.run("nft", command)
    assert not await quiet(monitor)


async def test_lost_messages_are_told_as_such(monitor: Monitor, nft: Nft) -> None:
    await nft.run("table ip k1s-x {\nset s { type ipv4_addr; }\n}\n")
    monitor._notifications.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    elements = ", ".join(f"10.0.{n // 250}.{n % 250}" for n in range(5000))
    # In this thread, so that the event loop cannot read meanwhile.
    netlab.run("nft", "add", "element", "ip", "k1s-x", "s", f"{{ {elements} }}")
    assert await asyncio.wait_for(monitor.wait(), 2) is False
    assert await present(nft, ["ip k1s-x"])
    assert not await present(nft, ["ip k1s-x", "ip k1s-y"])


async def test_a_large_load_of_our_own_is_not_foreign(monitor: Monitor, nft: Nft) -> None:
    elements = ", ".join(f"10.{n // 62500}.{n // 250 % 250}.{n % 250}" for n in range(60_000))
    await nft.run(f"table ip k1s-x {{\nset s {{ type ipv4_addr; }}\n}}\nadd element ip k1s-x s {{ {elements} }}")
    assert await quiet(monitor)


async def test_errors_carry_nfts_words(nft: Nft) -> None:
    with pytest.raises(NftError, match="No such file or directory"):
        await nft.run("delete table ip k1s-not-there")
    with pytest.raises(NftError, match="syntax error"):
        await nft.run("gibberish")
    # One transaction: the good half of a bad one does not stay.
    with pytest.raises(NftError):
        await nft.run("add table ip k1s-half; delete table ip k1s-not-there")
    assert await nft.query("list tables") == []


@pytest.mark.parametrize("family", [IPV4, IPV6], ids=["ip", "ip6"])
async def test_the_kernel_takes_the_tables_of_either_family(nft: Nft, family: Family) -> None:
    pods, cluster, target = (
        ("10.42.0.0/24", "10.42.0.0/16", "10.42.0.2") if family is IPV4 else ("fd00::/120", "fd00::/56", "fd00::2")
    )
    networks = ipaddress.ip_network(pods), ipaddress.ip_network(cluster)
    await nft.run(masquerade.plan([networks[0]], [networks[1]]))
    port = PortMapping(80, 8080, "sctp", target)
    await nft.run(hostport.plan([Attachment(target, "c", "eth0", "/ns", ports=(port, PortMapping(80, 80, "tcp")))], [family]))
    await nft.run(table.begin_text(family, table.Ranges((networks[0],), (networks[1],), (networks[1],))))
    chains: list[table.Chain] = [Sources((cluster,)), Sources(())]
    for protocol in PROTOCOLS:
        chains.append(Stick(protocol, 5))
        chains += [Balance(o, protocol, 3, local, sticky) for o in ("ip", "port") for local in (0, 1) for sticky in (0, 1)]
    # One by one: each has to read what is there already.
    for chain in chains:
        await nft.run(table.chain_text(family, chain))
    listed = netlab.run("nft", "list", "ruleset")
    assert all(f"chain {chain.name} " in listed for chain in chains)


async def test_cutting_flows_of_an_empty_tracker(host: str) -> None:
    await conntrack.cut_udp(IPV4, {"10.0.0.1 . udp . 53": frozenset()})
