"""What a removed node does, and a node that only looks removed: real processes, several hosts, nothing in containers."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import eventually, run
from .hosts import Host, Hosts

FAKE = "--fake-runtime"


@pytest.fixture(autouse=True)
def tidy(hosts: Hosts) -> Iterator[None]:
    yield
    end(hosts["b"])


@pytest.fixture(scope="module")
def hosts(tools: Path) -> Iterator[Hosts]:
    made = Hosts(f"kr{os.getpid() % 100000}", ("a", "b"))
    try:
        made.create_network()
        made.server.start(FAKE)
        yield made
    finally:
        for host in made.hosts.values():
            end(host)
        made.remove()


def end(host: Host, number: signal.Signals = signal.SIGTERM) -> None:
    if host.server is not None and host.server.poll() is None:
        host.server.send_signal(number)
        host.server.wait(20)


def agent(hosts: Hosts, token: str = "") -> Host:
    b = hosts["b"]
    b.log.unlink(missing_ok=True)
    b.spawn("agent", "--join", hosts.url, *b.node_flags(), FAKE, env={"K1S_TOKEN": token} if token else {})
    return b


def ready(hosts: Hosts, name: str) -> bool:
    return hosts.readiness().get(name) == "True"


def said(host: Host, text: str, seconds: float = 30) -> None:
    eventually(lambda: text in host.tail(1000), seconds, f"{text!r} of {host.node}:\n{host.tail()}")


def uid(hosts: Hosts, name: str) -> str:
    return str(hosts.get("node", name)["metadata"]["uid"]) if name in hosts.readiness() else ""


def test_the_node_beside_a_server_comes_back_by_itself(hosts: Hosts) -> None:
    a, before = hosts.server, uid(hosts, "a")
    hosts.kubectl("delete", "node", "a")
    said(a, "it joins again in")
    eventually(lambda: ready(hosts, "a") and uid(hosts, "a") != before, 30, "a Ready again")
    # And if the server dies just then: the next one adopts the agent, which rests.
    os.truncate(a.log, 0)
    hosts.kubectl("delete", "node", "a")
    said(a, "it joins again in")
    end(a, signal.SIGKILL)
    a.start(FAKE)
    eventually(lambda: ready(hosts, "a"), 30, "a Ready again")


def test_a_database_from_a_backup_ends_nothing(hosts: Hosts) -> None:
    """The server knows its nodes of before: the others are shut out, go on, and join again with a token."""
    a = hosts.server
    database = a.data / "server" / "db"
    end(a)
    shutil.copytree(database, a.home / "backup")
    a.start(FAKE)
    b = agent(hosts, hosts.token)
    eventually(lambda: ready(hosts, "b"), 20, "b Ready")
    end(b)
    agent(hosts)
    said(b, "node b is up")
    end(a)
    shutil.rmtree(database)
    shutil.copytree(a.home / "backup", database)
    a.start(FAKE)
    said(b, "restart the agent with a token", 60)
    assert "was removed" not in b.tail(1000)
    assert b.server is not None
    assert b.server.poll() is None
    assert "b" not in hosts.readiness()
    # Restarted without one it says so, and leaves everything as it is.
    end(b)
    agent(hosts)
    said(b, "start the agent with a token")
    assert b.server.wait(20) == 1
    assert (b.data / "agent" / "tls" / "identity.json").exists()
    agent(hosts, hosts.token)
    eventually(lambda: ready(hosts, "b"), 20, "b Ready again")
    # An agent that has its token joins again while it runs.
    end(a)
    shutil.rmtree(database)
    shutil.copytree(a.home / "backup", database)
    a.start(FAKE)
    said(b, "joining it again with the token", 60)
    eventually(lambda: ready(hosts, "b"), 20, "b Ready again")
    assert "was removed" not in b.tail(1000)


def stop(host: Host, verb: str = "stop") -> str:
    flags = ["--data-dir", host.data, "--run-dir", host.run_dir, "--write-kubeconfig", host.kubeconfig]
    done = run(*host.inside(sys.executable, "-m", "k1s.cli.main", verb, *flags), env=host.env)
    return done.stdout + done.stderr


def test_stop_and_uninstall_of_a_host_that_has_only_an_agent(hosts: Hosts) -> None:
    b = agent(hosts, hosts.token)
    said(b, "node b is up")  # its Node may look Ready from before
    stop(b)
    assert b.server is not None
    assert b.server.wait(1) == 0
    assert not b.run_dir.exists()
    # One that was removed and rests ends as well.
    agent(hosts)
    said(b, "node b is up")  # its Node may look Ready from before
    hosts.kubectl("delete", "node", "b")
    said(b, "to join again restart it with a token")
    time.sleep(0.5)
    stop(b, "uninstall")
    assert b.server.wait(1) == 0
    assert not b.run_dir.exists()
    assert not b.data.exists()
    assert "ok" in hosts.kubectl("get", "--raw", "/readyz").stdout
