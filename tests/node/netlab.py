"""Network namespaces for tests: a 'host' that the test's thread lives in, and pods beside it.

Names carry the process id; everything is deleted at the end, whatever the test did.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_numbers = itertools.count()


def run(*command: str, check: bool = True, timeout: float = 20) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout


@contextmanager
def namespace() -> Iterator[str]:
    """A named network namespace; yields its name."""
    name = f"k1st{os.getpid()}n{next(_numbers)}"
    run("ip", "netns", "add", name)
    try:
        run("ip", "-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        run("ip", "netns", "del", name)


def path_of(name: str) -> str:
    return f"/var/run/netns/{name}"


@contextmanager
def host() -> Iterator[str]:
    """A namespace which the calling thread (and every thread it starts) is in, with an uplink to a peer `<name>p`.

    The host is 192.0.2.1, the peer 192.0.2.2 and its default route leads through the host.
    """
    from k1s.net import netns

    with namespace() as name, namespace() as peer:
        run("ip", "-n", name, "link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", peer)
        run("ip", "-n", name, "addr", "add", "192.0.2.1/24", "dev", "up0")
        run("ip", "-n", name, "link", "set", "up0", "up")
        run("ip", "-n", peer, "addr", "add", "192.0.2.2/24", "dev", "eth0")
        run("ip", "-n", peer, "link", "set", "eth0", "up")
        run("ip", "-n", name, "route", "add", "default", "via", "192.0.2.2")
        with netns.entered(path_of(name)):
            yield peer


SERVER = r"""
import socket, sys, threading
kind, address, port, name = sys.argv[1:5]
if kind == "tcp":
    s = socket.create_server((address, int(port)), backlog=64, family=socket.AF_INET6 if ":" in address else socket.AF_INET)
    print("ready", flush=True)
    while True:
        c, peer = s.accept()
        c.sendall(f"{name} {peer[0]}".encode())
        c.close()
else:
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((address, int(port)))
    print("ready", flush=True)
    while True:
        d, peer = s.recvfrom(100)
        s.sendto(f"{name} {peer[0]}".encode(), peer)
"""

CLIENT = r"""
import socket, sys
kind, address, port, times, timeout = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])
for _ in range(times):
    try:
        if kind == "tcp":
            c = socket.create_connection((address, port), timeout)
            print(c.makefile().read())
            c.close()
        else:
            c = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            c.settimeout(timeout)
            c.connect((address, port))
            c.send(b"x")
            print(c.recv(100).decode())
            c.close()
    except OSError as error:
        print(type(error).__name__)
"""


@dataclass
class Servers:
    """Echo servers: each says its name and the address it was called from."""

    running: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, where: str, name: str, *, kind: str = "tcp", address: str = "0.0.0.0", port: int = 8080) -> None:
        """`where` is a namespace's name, or empty for the namespace of this thread."""
        inside = ["ip", "netns", "exec", where] if where else []
        command = [*inside, shutil.which("python3") or "python3", "-ISc", SERVER, kind, address, str(port), name]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"

    def stop(self) -> None:
        for process in self.running:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        self.running.clear()


def ask(where: str, address: str, port: int, *, kind: str = "tcp", times: int = 1, timeout: float = 2.0) -> list[str]:
    """What servers said: 'name caller' per call, or the error's name."""
    inside = ["ip", "netns", "exec", where] if where else []
    python = shutil.which("python3") or "python3"
    out = run(*inside, python, "-ISc", CLIENT, kind, address, str(port), str(times), str(timeout), timeout=60)
    return out.split("\n")[:times]


def build_shim(directory: Path) -> Path:
    """The C shim, compiled."""
    source = Path(__file__).parents[2] / "packaging" / "cni" / "k1s-cni.c"
    target = directory / "k1s-cni"
    run("gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(target), str(source))
    return target


async def cni(
    plugin: Path, command: str, config: dict[str, Any], *, container: str = "", netns: str = "", interface: str = "eth0"
) -> tuple[int, dict[str, Any]]:
    """Call a CNI plugin as containerd does."""
    environ = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": container,
        "CNI_NETNS": netns,
        "CNI_IFNAME": interface,
        "CNI_ARGS": f"K8S_POD_NAMESPACE=default;K8S_POD_NAME=pod-{container};IgnoreUnknown=1",
        "CNI_PATH": str(plugin.parent),
        "PATH": os.environ["PATH"],
    }
    process = await asyncio.create_subprocess_exec(
        str(plugin), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=environ
    )
    out, _ = await process.communicate(json.dumps(config).encode())
    return process.returncode or 0, json.loads(out) if out.strip() else {}
