"""Pool addresses on a LAN of network namespaces: who answers ARP and ND, and for how long nobody does.

The LAN is a bridge in a namespace of its own, which also is the client; each node is a namespace with a process of its own.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import netlab

from k1s.net import netns
from k1s.net.announce import packet
from k1s.net.announce.election import rank

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
VIP, VIP6 = "192.0.2.240", "2001:db8::240"
SCRIPT = Path(__file__).with_name("announce_node.py")


class Lan:
    """`nodes`: name -> namespace. The namespace `name` is the client, 192.0.2.100."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: dict[str, str] = {}
        self.running: dict[str, subprocess.Popen[str]] = {}

    def ip(self, *words: str) -> str:
        return netlab.run("ip", "-n", self.name, *words)

    def mac(self, node: str) -> str:
        found = re.search(r"link/ether (\S+)", netlab.run("ip", "-n", self.nodes[node], "link", "show", "eth0"))
        assert found
        return found[1]

    def start(self, node: str, *addresses: str, key: str = "0123456789abcdef") -> None:
        command = ["ip", "netns", "exec", self.nodes[node], sys.executable, str(SCRIPT), node, ",".join(self.nodes)]
        process = subprocess.Popen(
            [*command, ",".join(addresses), key],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if not os.environ.get("K1S_TEST_LOUD") else None,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        self.running[node] = process

    def offer(self, node: str, *addresses: str) -> None:
        stdin = self.running[node].stdin
        assert stdin is not None
        stdin.write(",".join(addresses) + "\n")
        stdin.flush()

    def kill(self, node: str) -> None:
        process = self.running.pop(node)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()

    def unplug(self, node: str) -> None:
        self.ip("link", "set", f"port-{node}", "down")

    def plug(self, node: str) -> None:
        self.ip("link", "set", f"port-{node}", "up")

    def addresses(self, node: str, link: str = "k1s-lb") -> set[str]:
        text = netlab.run("ip", "-n", self.nodes[node], "-o", "addr", "show", check=False)
        return {
            m[2] for line in text.splitlines() if (m := re.match(r"\d+: (\S+)\s+inet6? ([0-9a-f.:]+)/", line)) and m[1] == link
        }

    def holders(self, address: str) -> list[str]:
        return [node for node in self.nodes if address in self.addresses(node)]

    def resolve(self, address: str) -> str:
        """Whom the client's kernel asks for the address finds: the node's name, or "". As if it had never asked before."""
        self.ip("neigh", "flush", "to", address)
        return self.reach(address)

    def reach(self, address: str) -> str:
        """The same with what it has learnt so far."""
        with netns.entered(netlab.path_of(self.name)):
            client = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        with client:
            client.sendto(b"x", (address, 9))
        until(lambda: self.known(address), 5)
        return self.known(address)

    def known(self, address: str) -> str:
        """The node that the client believes to have the address, without asking."""
        shown = self.ip("neigh", "show", "to", address)
        return next((node for node in self.nodes if self.mac(node) in shown), "")


@contextmanager
def lan_of(*names: str) -> Iterator[Lan]:
    with netlab.namespace() as name:
        lan = Lan(name)
        lan.ip("link", "add", "lan0", "type", "bridge")
        lan.ip("addr", "add", "192.0.2.100/24", "dev", "lan0")
        lan.ip("addr", "add", "2001:db8::100/64", "dev", "lan0", "nodad")
        lan.ip("link", "set", "lan0", "up")
        made = []
        try:
            for number, node in enumerate(names, 1):
                context = netlab.namespace()
                lan.nodes[node] = inside = context.__enter__()
                made.append(context)
                lan.ip("link", "add", f"port-{node}", "type", "veth", "peer", "name", "eth0", "netns", inside)
                lan.ip("link", "set", f"port-{node}", "master", "lan0", "up")
                netlab.run("ip", "-n", inside, "addr", "add", f"192.0.2.{number}/24", "dev", "eth0")
                netlab.run("ip", "-n", inside, "addr", "add", f"2001:db8::{number}/64", "dev", "eth0", "nodad")
                netlab.run("ip", "-n", inside, "link", "set", "eth0", "up")
            yield lan
        finally:
            for node in list(lan.running):
                lan.kill(node)
            for context in made:
                context.__exit__(None, None, None)


def until(what: Callable[[], object], seconds: float = 15.0) -> float:
    """Seconds until it was so."""
    began = time.monotonic()
    while not what():
        if time.monotonic() - began > seconds:
            raise AssertionError("never became true")
        time.sleep(0.02)
    return time.monotonic() - began


def ranked(address: str, *nodes: str) -> list[str]:
    return sorted(nodes, key=lambda node: rank(address, node), reverse=True)


@pytest.mark.parametrize("vip", [VIP, VIP6])
def test_one_node_answers_and_another_when_it_dies(vip: str) -> None:
    with lan_of("a", "b", "c") as lan:
        for node in lan.nodes:
            lan.start(node, vip)
        first, second, third = ranked(vip, *lan.nodes)
        until(lambda: lan.holders(vip) == [first])
        assert lan.reach(vip) == first
        # A host that loses its power.
        lan.unplug(first)
        lan.kill(first)
        taken = until(lambda: lan.known(vip) == second)
        print(f"failover {vip}: {taken:.2f} s")
        assert lan.reach(vip) == second
        lan.unplug(second)
        lan.kill(second)
        until(lambda: lan.known(vip) == third)


def test_a_killed_agents_kernel_does_not_go_on_answering() -> None:
    with lan_of("a", "b") as lan:
        lan.start("a", VIP, VIP6)
        lan.start("b", VIP, VIP6)
        for vip in (VIP, VIP6):
            until(lambda vip=vip: lan.holders(vip) == ranked(vip, "a", "b")[:1])
        first, second = ranked(VIP, "a", "b")
        lan.kill(first)
        until(lambda: lan.holders(VIP) == [second])
        until(lambda: not lan.addresses(first) & {VIP, VIP6} and not lan.addresses(first, "eth0") & {VIP6})
        assert lan.resolve(VIP) == lan.resolve(VIP6) == second


def test_the_last_ones_addresses_outlive_its_agent() -> None:
    """Nobody could take over: an agent that restarts must not cost the address."""
    with lan_of("a", "b") as lan:
        lan.start("a", VIP)
        until(lambda: lan.holders(VIP) == ["a"])
        assert "forever" in netlab.run("ip", "-n", lan.nodes["a"], "addr", "show", "dev", "k1s-lb", "to", VIP)
        lan.kill("a")
        time.sleep(0.2)
        assert lan.resolve(VIP) == "a"
        lan.start("a", VIP)
        lan.start("b", VIP)
        until(lambda: lan.holders(VIP) == ranked(VIP, "a", "b")[:1])


def test_two_that_were_parted_agree_when_they_meet() -> None:
    with lan_of("a", "b") as lan:
        lan.start("a", VIP, VIP6)
        lan.start("b", VIP, VIP6)
        first, second = ranked(VIP, "a", "b")
        until(lambda: lan.holders(VIP) == [first])
        assert lan.reach(VIP) == first
        cut = "add table bridge cut; "
        for hook, side in (("prerouting", "iifname"), ("postrouting", "oifname")):
            cut += f"add chain bridge cut {hook} {{ type filter hook {hook} priority 0; }}; "
            cut += f"add rule bridge cut {hook} {side} port-{first} drop; "
        netlab.run("ip", "netns", "exec", lan.name, "nft", cut)
        until(lambda: lan.holders(VIP) == ["a", "b"] and lan.known(VIP) == second)
        netlab.run("ip", "netns", "exec", lan.name, "nft", "delete table bridge cut")
        until(lambda: lan.holders(VIP) == [first])
        until(lambda: lan.known(VIP) == first), "the neighbours are told, they do not ask"


def test_an_address_moves_without_a_moment_of_nobody() -> None:
    with lan_of("a", "b") as lan:
        first, second = ranked(VIP, "a", "b")
        lan.start(second, VIP)
        until(lambda: lan.holders(VIP) == [second])
        lan.start(first, VIP)
        seen = []
        until(lambda: seen.append(lan.holders(VIP)) or seen[-1] == [first])
        assert [] not in seen
        # And away from a node that may not hold it any more (its last local endpoint is gone).
        lan.offer(first)
        until(lambda: lan.holders(VIP) == [second])
        assert lan.reach(VIP) == second


def test_strangers_are_not_heard() -> None:
    with lan_of("a", "b") as lan:
        lan.start("a", VIP)
        lan.start("b", VIP, key="another key, of another cluster")
        until(lambda: lan.holders(VIP) == ["a", "b"])


def test_what_somebody_takes_away_comes_back() -> None:
    with lan_of("a", "b") as lan:
        lan.start("a", VIP)
        until(lambda: lan.holders(VIP) == ["a"])
        netlab.run("ip", "-n", lan.nodes["a"], "addr", "del", f"{VIP}/32", "dev", "k1s-lb")
        until(lambda: lan.holders(VIP) == ["a"])
        netlab.run("ip", "-n", lan.nodes["a"], "link", "del", "k1s-lb")
        until(lambda: lan.holders(VIP) == ["a"])


def test_a_card_that_goes_and_comes_back() -> None:
    with lan_of("a", "b") as lan:
        lan.start("a", VIP)
        lan.start("b", VIP)
        first, second = ranked(VIP, "a", "b")
        inside = lan.nodes[first]
        until(lambda: lan.holders(VIP) == [first])
        netlab.run("ip", "-n", inside, "link", "set", "eth0", "down")
        until(lambda: lan.holders(VIP) == [second])
        netlab.run("ip", "-n", inside, "link", "set", "eth0", "up")
        until(lambda: lan.holders(VIP) == [first])
        # Pulled out, and another one put in.
        netlab.run("ip", "-n", inside, "link", "del", "eth0")
        until(lambda: lan.holders(VIP) == [second])
        lan.ip("link", "add", "port-new", "type", "veth", "peer", "name", "eth0", "netns", inside)
        lan.ip("link", "set", "port-new", "master", "lan0", "up")
        netlab.run("ip", "-n", inside, "addr", "add", "192.0.2.77/24", "dev", "eth0")
        netlab.run("ip", "-n", inside, "link", "set", "eth0", "up")
        until(lambda: lan.holders(VIP) == [first])
        until(lambda: lan.known(VIP) in ("", first))
        assert lan.reach(VIP) == first


def test_a_port_that_another_program_has_is_waited_for() -> None:
    with lan_of("a", "b") as lan:
        with netns.entered(netlab.path_of(lan.nodes["a"])):
            other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with other:
            other.bind(("0.0.0.0", packet.PORT))
            lan.start("a", VIP)
            lan.start("b", VIP)
            until(lambda: lan.holders(VIP) == ["b"])
        lan.offer("b")
        until(lambda: lan.holders(VIP) == ["a"], 20)


def test_with_arp_ignore_the_uplink_has_the_address() -> None:
    with lan_of("a", "b") as lan:
        netlab.run("ip", "netns", "exec", lan.nodes["a"], "sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore")
        lan.start("a", VIP)
        until(lambda: lan.holders(VIP) == ["a"])
        assert lan.reach(VIP) == "a"
        lan.offer("a")
        until(lambda: not lan.holders(VIP) and VIP not in lan.addresses("a", "eth0"))


def test_addresses_of_another_network_are_told_and_not_held() -> None:
    with lan_of("a", "b") as lan:
        lan.start("a", "198.51.100.7", VIP)
        stdout = lan.running["a"].stdout
        assert stdout is not None
        assert stdout.readline() == "homeless 198.51.100.7\n"
        until(lambda: lan.addresses("a") >= {VIP})
        assert "198.51.100.7" not in lan.addresses("a")
        # The host gets a foot in that network.
        netlab.run("ip", "-n", lan.nodes["a"], "addr", "add", "198.51.100.1/24", "dev", "eth0")
        until(lambda: lan.addresses("a") >= {VIP, "198.51.100.7"})


def test_teardown_takes_every_address_back() -> None:
    from k1s.net import teardown

    with lan_of("a", "b") as lan:
        lan.start("a", VIP, VIP6)
        until(lambda: lan.holders(VIP) == lan.holders(VIP6) == ["a"])
        lan.kill("a")
        with netns.entered(netlab.path_of(lan.nodes["a"])):
            removed = teardown.remove_all()
        assert "link k1s-lb" in removed
        assert f"address {VIP}" in removed
        assert not lan.addresses("a", "eth0") & {VIP, VIP6}
