"""Machines join, are removed, and come back only with a token: real processes, several hosts, nothing in containers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import eventually, run
from .hosts import Host, Hosts

FAKE = "--fake-runtime"


@pytest.fixture(scope="module")
def hosts(tools: Path) -> Iterator[Hosts]:
    made = Hosts(f"kj{os.getpid() % 100000}", ("a", "b", "c"))
    try:
        made.create_network()
        made.server.start(FAKE, "--audit-log-path", str(made.server.home / "audit.log"))
        yield made
    finally:
        for host in made.hosts.values():
            end(host)
        made.remove()


@pytest.fixture(autouse=True)
def tidy(hosts: Hosts) -> Iterator[None]:
    yield
    for host in hosts.agents:
        end(host)
        wipe(host)
        hosts.kubectl("delete", "node", host.node, "--ignore-not-found")
        k1s(hosts, "node", "forget", host.node)


def end(host: Host) -> None:
    if host.server is not None and host.server.poll() is None:
        host.server.send_signal(signal.SIGTERM)
        host.server.wait(20)


def wipe(host: Host) -> None:
    """As if the machine were installed anew."""
    run("rm", "-rf", host.data, host.log)


def join(hosts: Hosts, host: Host, token: str | None = None, *flags: str) -> None:
    token = hosts.token if token is None else token
    environment = {"K1S_TOKEN": token, **host.clock_env} if token else host.clock_env
    host.spawn("agent", "--join", hosts.url, *host.node_flags(), FAKE, *flags, env=environment)


def k1s(hosts: Hosts, *words: str) -> str:
    """A command on the server's host."""
    done = run(*hosts.server.inside(sys.executable, "-m", "k1s.cli.main", *words), env=hosts.server.env, check=False)
    return done.stdout + done.stderr


def ready(hosts: Hosts, name: str) -> bool:
    return hosts.readiness().get(name) == "True"


def said(host: Host, text: str, seconds: float = 20) -> str:
    """The line of the host's log that holds `text`."""

    def line() -> str:
        return next((line for line in host.tail(1000).splitlines() if text in line), "")

    return str(eventually(line, seconds, f"{text!r} of {host.node}:\n{host.tail()}"))


def exit_code(host: Host) -> int:
    assert host.server is not None
    return host.server.wait(20)


def test_a_machine_joins_and_needs_no_token_from_then_on(hosts: Hosts) -> None:
    b = hosts["b"]
    join(hosts, b)
    eventually(lambda: ready(hosts, "b"), 10, "b Ready")
    end(b)
    k1s(hosts, "token", "rotate", "--data-dir", str(hosts.server.data))
    # Neither token nor server: it knows both.
    b.spawn("agent", *b.node_flags(), FAKE)
    said(b, "node b is up")


def test_a_deleted_node_stays_away_until_it_is_given_a_token(hosts: Hosts) -> None:
    b = hosts["b"]
    join(hosts, b)
    eventually(lambda: ready(hosts, "b"), 10, "b Ready")
    hosts.kubectl("delete", "node", "b")
    said(b, "node b was removed from the cluster")
    said(b, "to join again restart it with a token")
    time.sleep(3)
    assert b.server is not None
    assert b.server.poll() is None, "it rests, so that no supervisor starts it again and again"
    assert "b" not in hosts.readiness()
    assert b.tail(1000).count("removed from the cluster") == 1
    record = hosts.get("secret", "b.node-key.k1s", "-n", "kube-system")
    assert sorted(record["data"]) == ["former", "freed"]  # the name is free, and who had it is remembered
    # Nor does it come back by being started anew,
    end(b)
    b.log.unlink()
    b.spawn("agent", "--join", hosts.url, *b.node_flags(), FAKE)
    said(b, "to join again restart it with a token")
    assert "b" not in hosts.readiness()
    # but with a token it does.
    end(b)
    join(hosts, b)
    eventually(lambda: ready(hosts, "b"), 10, "b Ready again")


def test_a_certificate_of_a_deleted_node_opens_nothing(hosts: Hosts) -> None:
    b = hosts["b"]
    join(hosts, b)
    eventually(lambda: ready(hosts, "b"), 10, "b Ready")
    tls = b.data / "agent" / "tls"
    curl = ["curl", "-sS", "--cacert", tls / "server-ca.crt", "--cert", tls / "client.crt", "--key", tls / "client.key"]
    ask = b.inside(*curl, f"{hosts.url}/api/v1/nodes/b")
    watch = subprocess.Popen(
        b.inside(*curl, f"{hosts.url}/api/v1/services?watch=1"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    assert '"kind":"Node"' in run(*ask).stdout.replace(" ", "")
    hosts.kubectl("delete", "node", "b")
    answer = eventually(lambda: "was removed from this cluster" in run(*ask).stdout, 5, "shut out")
    assert answer
    node = '{"apiVersion":"v1","kind":"Node","metadata":{"name":"b"}}'
    made = run(*b.inside(*curl, "-H", "Content-Type: application/json", "-d", node, f"{hosts.url}/api/v1/nodes")).stdout
    assert "NodeRemoved" in made
    # What was open is cut.
    watch.wait(10)
    assert "b" not in hosts.readiness()


def test_a_second_machine_of_the_same_name_is_refused_with_the_command_that_helps(hosts: Hosts) -> None:
    b, c = hosts["b"], hosts["c"]
    join(hosts, b)
    eventually(lambda: ready(hosts, "b"), 10, "b Ready")
    join(hosts, c, None, "--node-name", "b")
    assert exit_code(c) == 1
    line = said(c, "belongs to another machine")
    command = line.partition("run on the server: k1s ")[2].partition(" (or:")[0]
    assert command == "node forget b"
    assert "shut out" in k1s(hosts, *command.split())
    join(hosts, c, None, "--node-name", "b")
    said(c, "node b is up")
    # The first one is told at its next heartbeat.
    said(b, "node b was removed from the cluster")
    assert ready(hosts, "b")


def test_tokens_are_made_expire_and_are_deleted(hosts: Hosts) -> None:
    b = hosts["b"]
    token = k1s(hosts, "token", "create", "--ttl", "1h", "--description", "for host b").strip()
    identity = token.partition("::")[2].partition(".")[0]
    listed = k1s(hosts, "token", "list")
    assert f"{identity}   " in listed
    assert "for host b" in listed
    assert token.rpartition(".")[2] not in listed
    join(hosts, b, token)
    eventually(lambda: ready(hosts, "b"), 10, "b Ready")
    assert f'"username":"system:bootstrap:{identity}"' in (hosts.server.home / "audit.log").read_text()
    assert f'token "{identity}" deleted' in k1s(hosts, "token", "delete", token)
    end(b)
    wipe(b)
    join(hosts, b, token)
    assert exit_code(b) == 1
    assert "k1s token create" in said(b, f'no token "{identity}" with this secret')
    short = k1s(hosts, "token", "create", "--ttl", "1s").strip()
    time.sleep(1.1)
    join(hosts, b, short)
    assert exit_code(b) == 1
    # The cleaner may have been quicker: then it is unknown.
    assert "k1s token create" in said(b, "token")


def test_a_rotated_node_token_is_of_no_use_and_nodes_do_not_care(hosts: Hosts) -> None:
    b, old = hosts["b"], hosts.token
    join(hosts, b)
    eventually(lambda: ready(hosts, "b"), 10, "b Ready")
    new = k1s(hosts, "token", "rotate", "--data-dir", str(hosts.server.data)).strip()
    assert new == hosts.token != old
    c = hosts["c"]
    join(hosts, c, old)
    assert exit_code(c) == 1
    said(c, "the token is wrong, or was rotated")
    join(hosts, c, new)
    eventually(lambda: ready(hosts, "c"), 10, "c Ready")
    # The agent beside the server is started anew by it.
    os.kill(hosts.server.pid_of("agent"), signal.SIGKILL)
    said(hosts.server, "restarting it")
    eventually(lambda: hosts.server.pid_of("agent"), 10, "the server's agent")
    eventually(lambda: all(ready(hosts, name) for name in ("a", "b", "c")), 20, "all Ready")


@pytest.mark.parametrize(
    ("url", "token", "text"),
    [
        ("http://192.0.2.11:6443", "whole", "--join must be an https URL"),
        ("https://192.0.2.11:6443", "secret", "not a whole one"),
        ("https://192.0.2.11:6443", "other", "is not the server that the token is for"),
        ("https://192.0.2.11:6443", "wrong", "the token is wrong, or was rotated"),
        ("https://192.0.2.11:6443", "", "needs --token"),
    ],
)
def test_what_cannot_work_ends_with_one_line(hosts: Hosts, url: str, token: str, text: str) -> None:
    b, good = hosts["b"], hosts.token
    tokens = {
        "whole": good,
        "secret": good.rpartition(":")[2],
        "other": f"K10{'0' * 64}::" + good.partition("::")[2],
        "wrong": good[:-4] + "0000",
        "": "",
    }
    b.spawn("agent", "--join", url, *b.node_flags(), FAKE, env={"K1S_TOKEN": tokens[token]})
    assert exit_code(b) == 1
    assert text in said(b, text)
    assert good.rpartition(":")[2] not in b.tail(1000)
    assert len(b.tail(1000).splitlines()) == 1


def test_a_server_that_is_away_is_waited_for(hosts: Hosts) -> None:
    b = hosts["b"]
    b.cut()
    try:
        join(hosts, b)
        time.sleep(1)
    finally:
        b.mend()
    eventually(lambda: ready(hosts, "b"), 40, "b Ready")
    end(b)
    wipe(b)
    b.spawn("agent", "--join", f"https://{hosts.server.address}:7", *b.node_flags(), FAKE, env={"K1S_TOKEN": hosts.token})
    assert f"https://{hosts.server.address}:7" in said(b, "trying again until it answers")
    assert b.server is not None
    assert b.server.poll() is None


@pytest.mark.parametrize(
    ("offset", "text"),
    [("-3d", "3 d behind the server's: set the clock"), ("+1d", "1 d ahead of the server's: set the clock")],
)
def test_a_clock_that_is_off_is_told(hosts: Hosts, offset: str, text: str) -> None:
    b = hosts["b"]
    b.set_clock(offset)
    try:
        join(hosts, b)
        said(b, text)
    finally:
        b.set_clock("")


def test_the_servers_host_gets_another_address(hosts: Hosts) -> None:
    a = hosts.server
    old, new = a.address, "192.0.2.61"

    def give(address: str) -> None:
        run("ip", "-n", a.netns, "addr", "flush", "dev", "eth0", "scope", "global")
        run("ip", "-n", a.netns, "addr", "add", f"{address}/24", "dev", "eth0")
        run("ip", "-n", a.netns, "route", "replace", "default", "via", "192.0.2.1")
        a.address = address

    b = hosts["b"]
    join(hosts, b)
    eventually(lambda: ready(hosts, "b"), 10, "b Ready")
    try:
        give(new)
        said(a, f"this host has another address: {new}")
        slices = hosts.get("endpointslices", "kubernetes", "-n", "default")
        assert [e["addresses"] for e in slices["endpoints"]] == [[new]]
        # New machines join under it, with the same token.
        c = hosts["c"]
        join(hosts, c)
        eventually(lambda: ready(hosts, "c"), 10, "c Ready")
    finally:
        give(old)
    eventually(lambda: ready(hosts, "b"), 90, "b Ready again")
