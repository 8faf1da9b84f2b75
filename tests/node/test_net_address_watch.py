"""The watch over the host's addresses against a real kernel."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import uvloop

sys.path.insert(0, str(Path(__file__).parent))
import netlab

from k1s.net import netns
from k1s.net.address_watch import AddressWatch

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def host() -> Iterator[str]:
    with netlab.namespace() as name, netns.entered(netlab.path_of(name)):
        for link in ("up0", "up1"):
            netlab.run("ip", "-n", name, "link", "add", link, "type", "bridge")
            netlab.run("ip", "-n", name, "link", "set", link, "up")
        netlab.run("ip", "-n", name, "addr", "add", "192.0.2.1/24", "dev", "up0")
        netlab.run("ip", "-n", name, "route", "add", "default", "via", "192.0.2.2")
        yield name


@pytest.fixture
async def watch(host: str) -> AsyncIterator[AddressWatch]:
    with AddressWatch() as found:
        yield found


async def heard(watch: AddressWatch) -> bool:
    try:
        await asyncio.wait_for(watch.wait(), 0.3)
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize(
    "command",
    [
        "addr add 192.0.2.7/24 dev up0",
        "addr del 192.0.2.1/24 dev up0",
        "addr add 2001:db8::1/64 dev up0",
        "route del default",
        "route add default via 192.0.2.3 metric 10",
        "-6 route add default dev up0",
        "link set up0 down",
    ],
)
async def test_changes_of_addresses_and_of_the_way_out_are_heard(watch: AddressWatch, host: str, command: str) -> None:
    assert not await heard(watch)
    netlab.run("ip", "-n", host, *command.split())
    assert await heard(watch)
    assert not await heard(watch)  # one change, told once


async def test_pods_that_come_and_go_wake_nobody(watch: AddressWatch, host: str) -> None:
    with netlab.namespace() as pod:
        netlab.run("ip", "-n", host, "link", "add", "veth1", "type", "veth", "peer", "name", "eth0", "netns", pod)
        netlab.run("ip", "-n", host, "link", "set", "veth1", "master", "up1", "up")
        netlab.run("ip", "-n", pod, "addr", "add", "10.42.0.5/32", "dev", "eth0")
        netlab.run("ip", "-n", pod, "link", "set", "eth0", "up")
        netlab.run("ip", "-n", host, "route", "add", "10.42.0.5/32", "dev", "up1")
        netlab.run("ip", "-n", host, "route", "del", "10.42.0.5/32")
        netlab.run("ip", "-n", host, "link", "del", "veth1")
    assert not await heard(watch)


async def test_addresses_of_pools_wake_nobody(watch: AddressWatch, host: str) -> None:
    from k1s.net.announce import holder

    for address in ("192.0.2.240", "2001:db8::240"):
        holder.hold(address, "up0", 6)
        holder.hold(address, "up0", 6)
        holder.drop(address)
    assert not await heard(watch)


async def test_lost_messages_are_a_reason_to_look(watch: AddressWatch, host: str) -> None:
    watch._notifications.socket.setsockopt(1, 8, 2304)  # SO_RCVBUF, the least there is
    # In this thread, so that the event loop cannot read meanwhile.
    batch = "".join(f"route add 198.18.{n}.0/24 dev up0\n" for n in range(200))
    path = Path(f"/tmp/k1st{os.getpid()}.batch")
    try:
        path.write_text(batch)
        netlab.run("ip", "-n", host, "-batch", str(path))
    finally:
        path.unlink(missing_ok=True)
    assert await heard(watch)


def test_it_works_on_uvloop_and_iterates(host: str) -> None:
    async def body() -> int:
        looks = 0
        with AddressWatch() as watch:
            async for _ in watch:
                looks += 1
                if looks == 2:
                    return looks
                asyncio.get_running_loop().call_later(
                    0.05, netlab.run, "ip", "-n", host, "addr", "add", "192.0.2.8/24", "dev", "up0"
                )
        return looks

    async def limited() -> int:
        return await asyncio.wait_for(body(), 5)

    assert uvloop.run(limited()) == 2
