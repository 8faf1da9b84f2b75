"""An agent that was given two addresses of its server: it goes on when one is gone, and remembers what it learned."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .conftest import eventually, run
from .hosts import CLIENT, Hosts

# A TCP proxy: what a load balancer, or another server, is to the agent.
DOOR = """
import asyncio, sys
async def serve(reader, writer):
    try:
        behind, out = await asyncio.open_connection(sys.argv[2], 6443)
    except OSError:
        writer.close()
        return
    async def copy(source, sink):
        try:
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        sink.close()
    await asyncio.gather(copy(reader, out), copy(behind, writer))
async def main():
    server = await asyncio.start_server(serve, "0.0.0.0", int(sys.argv[1]))
    print("open", flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


@contextmanager
def door(hosts: Hosts, port: int) -> Iterator[subprocess.Popen[str]]:
    command = ["ip", "netns", "exec", hosts.client, sys.executable, "-ISc", DOOR, str(port), hosts.server.address]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "open\n"
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture(scope="module")
def hosts(tools: Path) -> Iterator[Hosts]:
    made = Hosts(f"v{os.getpid() % 100000}", ("a", "b"))
    try:
        made.create_network()
        made.server.start("--tls-san", CLIENT)
        yield made
    finally:
        made.remove()


def heard(hosts: Hosts) -> str:
    return str(hosts.get("lease", "-n", "kube-node-lease", "b")["spec"]["renewTime"])


def goes_on(hosts: Hosts) -> None:
    """The node is heard of again, and can be reached."""
    before = heard(hosts)
    eventually(lambda: heard(hosts) != before, 15, "the lease to be renewed")
    eventually(
        lambda: hosts.kubectl("get", "--raw", "/api/v1/nodes/b/proxy/healthz", check=False).stdout == "ok", 10, "b to be reached"
    )
    assert hosts.readiness()["b"] == "True"


def test_servers_come_and_go(hosts: Hosts) -> None:
    b = hosts["b"]
    with door(hosts, 6443) as first, door(hosts, 6444) as second:
        b.join(f"https://{CLIENT}:6443,https://{CLIENT}:6444", hosts.token)
        hosts.wait_ready("b")
        file = b.data / "agent" / "servers.json"
        learned = [f"https://{hosts.server.address}:6443"]
        eventually(lambda: json.loads(file.read_text())["servers"] == learned, 10, "the server's own address to be learned")
        assert file.stat().st_mode & 0o777 == 0o600
        first.kill()
        goes_on(hosts)
        assert b.log.read_text().count("going on with") == 1
        second.kill()
        goes_on(hosts)
        # A restart with nothing but what is remembered.
        assert b.server is not None
        b.server.terminate()
        b.server.wait(20)
        b.join(f"https://{CLIENT}:6443,https://{CLIENT}:6444", hosts.token)
        goes_on(hosts)
    assert run(*b.inside("ss", "-ltnH"), check=False).stdout.count(":6444") == 0, "the balancer has no port"
