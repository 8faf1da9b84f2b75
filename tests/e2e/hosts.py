"""A cluster of several hosts on one machine: "three hosts, one server".

Owns: the LAN (a network namespace with a bridge), hosts (a network namespace each, with data directory, agent and containerd of
their own), and what can happen to them: links cut, unplugged, delayed, reordered; addresses changed; clocks moved; power lost.

    lan namespace: bridge lan0 192.0.2.1/24 (the hosts' router and the world outside; ask from here with `hosts.outside`)
      host a 192.0.2.11 (server + agent) | host b 192.0.2.12 (agent) | host c 192.0.2.13 (agent) | client 192.0.2.200 (no k1s)
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .conftest import Cluster, eventually, run

ROUTER = "192.0.2.1"
CLIENT = "192.0.2.200"
_FAKETIME = "/usr/lib/*/faketime/libfaketimeMT.so.1"
_PUMP = Path(__file__).with_name("link_pump.py")


class Host(Cluster):
    """One machine. `link` is its port on the LAN's bridge."""

    def __init__(self, prefix: str, node: str, address: str) -> None:
        super().__init__(f"{prefix}-{node}", node=node, address=address)
        self.lan = f"{prefix}-lan"
        self.link = f"port-{node}"[:15]
        self.flags: tuple[str, ...] = ()
        self.clock = ""

    def create_network(self) -> None:
        run("ip", "netns", "add", self.netns)
        run("ip", "-n", self.netns, "link", "set", "lo", "up")
        self.plug_in()

    def plug_in(self) -> None:
        """The network card and its cable."""
        run("ip", "-n", self.lan, "link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", self.netns)
        run("ip", "-n", self.lan, "link", "set", self.link, "master", "lan0", "up")
        run("ip", "-n", self.netns, "addr", "add", f"{self.address}/24", "dev", "eth0")
        run("ip", "-n", self.netns, "link", "set", "eth0", "up")
        run("ip", "-n", self.netns, "route", "add", "default", "via", ROUTER)

    def join(self, server: str, token: str, *flags: str) -> None:
        """`k1s agent --join SERVER`, with the token in the environment as a unit file would have it."""
        arguments = ["agent", "--server", server, *self.node_flags(), *flags]
        self.spawn(*arguments, env={"K1S_TOKEN": token, **self.clock_env})

    def sysctl(self, name: str, value: str) -> None:
        run(*self.inside("sh", "-c", f"echo {value} > /proc/sys/{name}"))

    # What can happen to a host

    def cut(self) -> None:
        """Nothing passes any more, and neither side is told (a switch dies somewhere)."""
        self._bridge_rules("add", "drop")

    def mend(self) -> None:
        self._bridge_rules("delete", "drop")

    def _bridge_rules(self, verb: str, verdict: str) -> None:
        lines = "add table bridge cut\nadd chain bridge cut f { type filter hook forward priority 0; }\n"
        lines += "add chain bridge cut i { type filter hook input priority 0; }\n"
        lines += "add chain bridge cut o { type filter hook output priority 0; }\n"
        lines += "add set bridge cut ports { type ifname; }\n"
        if verb == "add":
            lines += "flush chain bridge cut f\nflush chain bridge cut i\nflush chain bridge cut o\n"
            lines += f"add rule bridge cut f iifname @ports {verdict}\nadd rule bridge cut f oifname @ports {verdict}\n"
            lines += f"add rule bridge cut i iifname @ports {verdict}\nadd rule bridge cut o oifname @ports {verdict}\n"
        lines += f'{verb} element bridge cut ports {{ "{self.link}" }}\n'
        run("ip", "netns", "exec", self.lan, "nft", "-f", "-", input=lines)

    def unplug(self) -> None:
        """The cable is out: the card loses its carrier."""
        run("ip", "-n", self.lan, "link", "set", self.link, "down")

    def plug(self) -> None:
        run("ip", "-n", self.lan, "link", "set", self.link, "up")

    @contextmanager
    def slow_link(self, *, delay_ms: float = 0, reorder: float = 0, loss: float = 0) -> Iterator[None]:
        """Frames of this host are late, out of order, lost (percent), in both directions, while the block runs."""
        near, far = f"pn-{self.node}"[:15], f"pf-{self.node}"[:15]
        # The pump carries frames as they would be on a wire: whole, with checksums.
        run(*self.inside("ethtool", "-K", "eth0", "tx", "off", "tso", "off", "gso", "off", "gro", "off"))
        run("ip", "-n", self.lan, "link", "add", near, "type", "veth", "peer", "name", far)
        run("ip", "netns", "exec", self.lan, "ethtool", "-K", near, "tx", "off", "tso", "off", "gso", "off", "gro", "off")
        run("ip", "netns", "exec", self.lan, "ethtool", "-K", far, "tx", "off", "tso", "off", "gso", "off", "gro", "off")
        for end in (near, far):
            run("ip", "-n", self.lan, "link", "set", end, "up")
        command = ["ip", "netns", "exec", self.lan, sys.executable, "-IS", str(_PUMP), self.link, near]
        pump = subprocess.Popen([*command, str(delay_ms), str(reorder), str(loss)], stdout=subprocess.PIPE)
        try:
            assert pump.stdout is not None
            assert pump.stdout.readline() == b"ready\n"
            run("ip", "-n", self.lan, "link", "set", self.link, "nomaster")
            run("ip", "-n", self.lan, "link", "set", far, "master", "lan0")
            yield
        finally:
            pump.kill()
            pump.wait()
            assert pump.stdout is not None
            pump.stdout.close()
            run("ip", "-n", self.lan, "link", "del", near)
            run("ip", "-n", self.lan, "link", "set", self.link, "master", "lan0")

    def move_to(self, address: str) -> None:
        """DHCP gave another address."""
        run("ip", "-n", self.netns, "addr", "del", f"{self.address}/24", "dev", "eth0")
        run("ip", "-n", self.netns, "addr", "add", f"{address}/24", "dev", "eth0")
        run("ip", "-n", self.netns, "route", "replace", "default", "via", ROUTER)
        self.address = address

    def set_clock(self, offset: str) -> None:
        """From its next start on this host sees the time moved, as "+1d" or "-3600" (libfaketime's notation)."""
        self.clock = offset

    @property
    def clock_env(self) -> dict[str, str]:
        if not self.clock:
            return {}
        library = next(Path("/").glob(_FAKETIME.lstrip("/")), None)
        assert library is not None, "libfaketime is missing: run 'packaging/prepare.sh test'"
        # Monotonic clocks are not what a wrong clock on the board changes.
        return {"LD_PRELOAD": str(library), "FAKETIME": self.clock, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}

    def kill(self) -> None:
        """kill -9 of k1s's own processes (server, agent); containers go on."""
        for part in ("server", "agent"):
            pid = self._pid_of_verb(part)
            if pid:
                os.kill(pid, signal.SIGKILL)
        if self.server is not None:
            self.server.wait(10)

    def _pid_of_verb(self, verb: str) -> int:
        for pid, words in processes():
            if f"k1s.cli.main {verb}" in words and str(self.home) in words:
                return pid
        return 0

    def power_off(self) -> None:
        """Every process of the host ends at once, nothing is said to anybody."""
        self.unplug()
        inode = os.stat(f"/run/netns/{self.netns}").st_ino
        for _ in range(20):
            victims = {pid for pid, words in processes() if str(self.home) in words or str(self.run_dir) in words}
            victims |= {pid for pid, _ in processes() if _namespace(pid) == inode}
            victims |= _descendants(victims)
            victims.discard(os.getpid())
            if not victims:
                break
            for pid in victims:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            if self.server is not None:
                self.server.poll()
            eventually(lambda gone=victims: not any(_alive(pid) for pid in gone), 10, "processes to end")

    def remove(self) -> None:
        super().remove()
        run("ip", "-n", self.lan, "link", "del", self.link, check=False)


def processes() -> Iterator[tuple[int, str]]:
    """(pid, command line) of everything on this machine."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                yield int(entry.name), (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue


def _namespace(pid: int) -> int:
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return 0


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _descendants(pids: set[int]) -> set[int]:
    parents: dict[int, int] = {}
    for pid, _ in processes():
        try:
            parents[pid] = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = set(pids)
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        found |= more
        grown = bool(more)
    return found


class Hosts:
    """The LAN and its hosts; the first one is the server. `kubectl` is asked on the server's host."""

    def __init__(self, prefix: str, names: Sequence[str] = ("a", "b", "c")) -> None:
        self.prefix, self.lan, self.client = prefix, f"{prefix}-lan", f"{prefix}-client"
        self.hosts = {name: Host(prefix, name, f"192.0.2.{11 + number}") for number, name in enumerate(names)}
        self.server = self.hosts[names[0]]

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    @property
    def url(self) -> str:
        return f"https://{self.server.address}:6443"

    @property
    def token(self) -> str:
        return (self.server.data / "server" / "node-token").read_text().strip()

    def create_network(self) -> None:
        run("ip", "netns", "add", self.lan)
        run("ip", "netns", "add", self.client)
        for command in (
            ["link", "set", "lo", "up"],
            ["link", "add", "lan0", "type", "bridge"],
            ["addr", "add", f"{ROUTER}/24", "dev", "lan0"],
            ["link", "set", "lan0", "up"],
            ["link", "add", "client", "type", "veth", "peer", "name", "eth0", "netns", self.client],
            ["link", "set", "client", "master", "lan0", "up"],
        ):
            run("ip", "-n", self.lan, *command)
        for command in (
            ["link", "set", "lo", "up"],
            ["addr", "add", f"{CLIENT}/24", "dev", "eth0"],
            ["link", "set", "eth0", "up"],
            ["route", "add", "default", "via", ROUTER],
        ):
            run("ip", "-n", self.client, *command)
        for host in self.hosts.values():
            host.create_network()

    def start(self, *flags: str, agent_flags: Sequence[str] = ()) -> None:
        """The server, then all agents at once; returns when every node is Ready."""
        self.server.start(*flags)
        for host in self.agents:
            host.join(self.url, self.token, *agent_flags)
        self.wait_ready()

    @property
    def agents(self) -> list[Host]:
        return [host for host in self.hosts.values() if host is not self.server]

    def wait_ready(self, *names: str, seconds: float = 60) -> None:
        wanted = set(names or self.hosts)

        def ready() -> bool:
            return wanted <= {node for node, status in self.readiness().items() if status == "True"}

        try:
            eventually(ready, seconds, f"nodes {sorted(wanted)} Ready")
        except AssertionError as error:
            tails = "\n".join(f"--- {host.node}\n{host.tail()}" for host in self.hosts.values())
            raise AssertionError(f"{error}\n{tails}") from error

    def readiness(self) -> dict[str, str]:
        """Node -> status of its Ready condition."""
        out = {}
        for node in self.get("nodes")["items"]:
            conditions = {c["type"]: c["status"] for c in node["status"].get("conditions", ())}
            out[node["metadata"]["name"]] = conditions.get("Ready", "")
        return out

    def kubectl(self, *arguments: str, check: bool = True, input: str | None = None) -> subprocess.CompletedProcess[str]:
        return self.server.kubectl(*arguments, check=check, input=input)

    def get(self, *arguments: str) -> Any:
        return self.server.get(*arguments)

    def outside(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run on a machine of the LAN that has no k1s."""
        return run("ip", "netns", "exec", self.client, *command, check=check)

    def exec(self, pod: str, *command: str, namespace: str = "default", check: bool = True) -> str:
        return self.kubectl("exec", "-n", namespace, pod, "--", *command, check=check).stdout

    def remove(self) -> None:
        for host in self.hosts.values():
            host.remove()
        for namespace in (self.client, self.lan):
            run("ip", "netns", "del", namespace, check=False)


@contextmanager
def cluster_of(
    prefix: str, names: Sequence[str] = ("a", "b", "c"), *flags: str, before: Callable[[Hosts], None] | None = None
) -> Iterator[Hosts]:
    """A running cluster, removed afterwards. `prefix` must be unique on this machine and short (8 characters)."""
    made = Hosts(prefix, names)
    try:
        made.create_network()
        if before is not None:
            before(made)
        made.start(*flags)
        yield made
    finally:
        made.remove()
        shutil.rmtree(made.server.home, ignore_errors=True)
