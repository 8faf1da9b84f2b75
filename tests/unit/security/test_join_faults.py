"""What goes wrong when a machine joins: each fault is told in a line that says what to do, and nothing is given away."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from joinlab import Cluster, Now, agent, registered

from k1s.agent import identity
from k1s.agent.certificates import AgentCertificates
from k1s.agent.join import ensure_credentials
from k1s.agent.join_request import JoinError, clock_fault, server_urls
from k1s.api import bootstrap_token
from k1s.base import http_server, pki
from k1s.base.clock import rfc3339
from k1s.base.http import PeerCertificate, Request, Response
from k1s.server.tokens import secret_of


@pytest.fixture
def clock() -> Now:
    return Now()


@pytest.fixture
async def cluster(tmp_path: Path, informers: Any, clock: Now) -> AsyncIterator[Cluster]:
    made = Cluster(tmp_path / "server", informers, clock)
    await made.start()
    yield made
    await made.listener.close(0)


async def tries(joining: asyncio.Task[Any], clock: Now, caplog: pytest.LogCaptureFixture, text: str) -> str:
    """Let the machine try again and again; the first line of its log that holds `text`."""
    for _ in range(400):
        for record in caplog.records:
            if text in record.getMessage() and record.levelno >= logging.WARNING:
                assert not joining.done()
                return record.getMessage()
        await asyncio.sleep(0.01)
        await clock.advance(20)
    raise AssertionError(f"nobody said {text!r}: {caplog.text}")


async def test_a_token_that_expired(cluster: Cluster, tmp_path: Path, clock: Now) -> None:
    until = clock.now() + 3600
    config = agent(cluster, tmp_path, token=cluster.make_token(until))
    await clock.advance(3600)
    with pytest.raises(JoinError, match=rf'token "abcdef" expired at {rfc3339(until)}.*k1s token create'):
        await ensure_credentials(config, clock)
    # Who only guesses at the secret is not told that there was such a token.
    with pytest.raises(JoinError, match=r'no token "abcdef" with this secret.*k1s token create'):
        await ensure_credentials(replace(config, token=config.token[:-1] + "x"), clock)


async def test_a_token_that_was_deleted(cluster: Cluster, tmp_path: Path, clock: Now, informers: Any) -> None:
    config = agent(cluster, tmp_path, token=cluster.make_token())
    informers.drop("Secret", bootstrap_token.secret_name("abcdef"), "kube-system")
    with pytest.raises(JoinError, match=r'no token "abcdef" with this secret: deleted, expired'):
        await ensure_credentials(config, clock)


async def test_a_node_that_joined_does_not_care_for_its_token(
    cluster: Cluster, tmp_path: Path, clock: Now, informers: Any
) -> None:
    config = agent(cluster, tmp_path, token=cluster.make_token())
    joined = await ensure_credentials(config, clock)
    registered(informers)
    informers.drop("Secret", bootstrap_token.secret_name("abcdef"), "kube-system")
    await ensure_credentials(config, clock)
    await AgentCertificates(config, joined, clock).renew("192.0.2.10")


async def test_the_token_of_another_cluster(cluster: Cluster, tmp_path: Path, clock: Now, informers: Any) -> None:
    other = Cluster(tmp_path / "other", informers, clock)
    with pytest.raises(JoinError, match=r"is not the server that the token is for.*token was not sent.*k1s token create"):
        await ensure_credentials(agent(cluster, tmp_path, token=other.token), clock)
    assert cluster.seen == [("/cacerts", "")]


async def test_the_wrong_token_leaves_a_nodes_old_identity_as_it_was(
    cluster: Cluster, tmp_path: Path, clock: Now, informers: Any
) -> None:
    joined = await ensure_credentials(agent(cluster, tmp_path), clock)
    before = {path: path.read_bytes() for path in joined.server_ca.parent.iterdir()}
    other = Cluster(tmp_path / "other", informers, clock)
    with pytest.raises(JoinError, match="is not the server that the token is for"):
        await ensure_credentials(agent(cluster, tmp_path, token=other.token), clock)
    assert {path: path.read_bytes() for path in joined.server_ca.parent.iterdir()} == before
    # A mistyped one says nothing of another cluster, and a node that has joined needs none.
    assert await ensure_credentials(agent(cluster, tmp_path, token="mistyped"), clock) == joined


async def test_a_server_that_was_made_anew_is_not_the_one_that_this_machine_knows(
    cluster: Cluster, tmp_path: Path, clock: Now, informers: Any
) -> None:
    config = agent(cluster, tmp_path)
    joined = await ensure_credentials(config, clock)
    anew = Cluster(tmp_path / "anew", informers, clock)
    await anew.start()
    moved = replace(config, server=anew.url)
    with pytest.raises(JoinError, match="of another cluster"):
        await AgentCertificates(moved, joined, clock).renew("192.0.2.10")
    await anew.listener.close(0)


@pytest.mark.parametrize(
    ("days", "text"),
    [
        (3, r"certificate is not valid yet: this machine's clock is 3 d behind the server's: set the clock"),
        (-400, r"certificate has expired: this machine's clock is 400 d ahead of the server's: set the clock"),
    ],
)
async def test_a_clock_that_is_wrong(
    tmp_path: Path, informers: Any, caplog: pytest.LogCaptureFixture, days: int, text: str
) -> None:
    here = Now()
    there = Now()
    there._start += days * pki.DAY
    cluster = Cluster(tmp_path / "server", informers, there)
    await cluster.start()
    joining = asyncio.create_task(ensure_credentials(agent(cluster, tmp_path), here))
    # Its clock may be set any moment (a board without a battery): so it goes on trying.
    assert cluster.url in await tries(joining, Now(), caplog, text)
    assert all(authorization == "" for _, authorization in cluster.seen)
    joining.cancel()
    await cluster.listener.close(0)


async def test_a_clock_that_is_a_day_off_is_told_though_the_machine_can_join(
    tmp_path: Path, informers: Any, caplog: pytest.LogCaptureFixture
) -> None:
    there = Now()
    there._start -= pki.DAY
    cluster = Cluster(tmp_path / "server", informers, there)
    await cluster.start()
    await ensure_credentials(agent(cluster, tmp_path), Now())
    assert "this machine's clock is 1 d ahead of the server's: set the clock" in caplog.text
    await cluster.listener.close(0)


@pytest.mark.parametrize(
    ("difference", "text"),
    [(0, ""), (299, ""), (-86400, "1 d behind"), (90061, "1 d 1 h 1 min ahead of"), (-7200, "2 h behind")],
)
def test_what_is_said_of_a_clock(difference: float, text: str) -> None:
    assert text in clock_fault(1_700_000_000, 1_700_000_000 + difference)
    assert bool(text) == bool(clock_fault(1_700_000_000, 1_700_000_000 + difference))
    assert clock_fault(0, 1) == ""


@pytest.mark.parametrize(
    "url", ["http://a:6443", "a:6443", "https://", "https://a:x", "https://a/path", "ftp://a", "https://u@a", "https://[::1"]
)
async def test_urls_that_are_none(tmp_path: Path, clock: Now, cluster: Cluster, url: str) -> None:
    with pytest.raises(JoinError, match=r"--join .*https://server:6443"):
        await ensure_credentials(replace(agent(cluster, tmp_path), server=url), clock)


def test_urls_are_made_whole() -> None:
    assert server_urls("https://a, https://b:7/,https://[::1]") == ["https://a:6443", "https://b:7", "https://[::1]:6443"]


async def test_no_server_and_no_token(tmp_path: Path, clock: Now, cluster: Cluster) -> None:
    with pytest.raises(JoinError, match=r"--join https://server:6443, and --token"):
        await ensure_credentials(replace(agent(cluster, tmp_path), server=""), clock)
    with pytest.raises(JoinError, match=r"needs --token .*node-token.*k1s token create"):
        await ensure_credentials(agent(cluster, tmp_path, token=""), clock)


async def test_a_server_that_does_not_answer_is_waited_for_and_told_of(
    cluster: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = cluster.listener.port
    await cluster.listener.close(0)
    clock = Now()
    joining = asyncio.create_task(ensure_credentials(agent(cluster, tmp_path), clock))
    line = await tries(joining, clock, caplog, "trying again until it answers")
    assert f"https://127.0.0.1:{port}" in line
    assert "refused" in line
    cluster.listener = await http_server.listen(
        cluster.handle, host="127.0.0.1", port=port, tls=cluster.certificates.server_context()
    )
    while not joining.done():
        await asyncio.sleep(0.01)
        await clock.advance(1)
    assert (await joining).node_name == "node-1"


async def test_a_server_on_ipv6(cluster: Cluster, tmp_path: Path, clock: Now) -> None:
    listener = await http_server.listen(cluster.handle, host="::1", port=0, tls=cluster.certificates.server_context())
    config = replace(agent(cluster, tmp_path), server=f"https://[::1]:{listener.port}")
    assert (await ensure_credentials(config, clock)).server == config.server
    await listener.close(0)


async def test_settings_are_for_nodes_of_the_cluster(cluster: Cluster, tmp_path: Path, clock: Now, informers: Any) -> None:
    joined = await ensure_credentials(agent(cluster, tmp_path), clock)
    me = pki.read_certificate(joined.client_certificate.read_bytes())

    async def code(peer: PeerCertificate | None) -> int:
        answer = await cluster.handler.handle(Request("GET", "/v1-k1s/settings", peer=peer))
        assert isinstance(answer, Response)
        return answer.status

    nodes = ("system:nodes",)
    assert await code(PeerCertificate("system:node:node-1", nodes, "", me.key_fingerprint)) == 200
    assert await code(None) == 401
    assert await code(PeerCertificate("system:admin", ("system:masters",), "", "k")) == 401
    assert await code(PeerCertificate("system:node:node-1", nodes, "", "other")) == 403
    assert await code(PeerCertificate("system:node:node-2", nodes, "", me.key_fingerprint)) == 403


async def test_who_joined_and_who_was_refused_is_in_the_servers_log(
    cluster: Cluster, tmp_path: Path, clock: Now, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await ensure_credentials(agent(cluster, tmp_path, token=cluster.make_token()), clock)
    assert "node node-1 joined by system:bootstrap:abcdef" in caplog.text
    with pytest.raises(JoinError):
        await ensure_credentials(replace(agent(cluster, tmp_path), data_dir=tmp_path / "other"), clock)
    assert "system:node-token from 127.0.0.1 was refused" in caplog.text
    assert secret_of(cluster.token) not in caplog.text
    assert "0123456789abcdef" not in caplog.text


async def test_of_several_servers_one_that_answers_is_enough(cluster: Cluster, tmp_path: Path, clock: Now) -> None:
    config = replace(agent(cluster, tmp_path), server=f"https://127.0.0.1:1,{cluster.url}")
    assert (await ensure_credentials(config, clock)).server == f"https://127.0.0.1:1,{cluster.url}"


async def test_a_certificate_that_is_due_at_once_is_not_renewed_again_and_again(
    cluster: Cluster, tmp_path: Path, clock: Now, informers: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The machine's clock is most of a year ahead: every certificate looks old."""
    config = agent(cluster, tmp_path)
    joined = await ensure_credentials(config, clock)
    registered(informers)
    ahead = Now()
    ahead._start += 300 * pki.DAY
    task = asyncio.create_task(AgentCertificates(config, joined, ahead).run(lambda: None))
    for _ in range(300):
        if "due already" in caplog.text:
            break
        await asyncio.sleep(0.01)
    assert "set the clock" in caplog.text
    await ahead.advance(3500)
    await asyncio.sleep(0.3)
    assert [path for path, _ in cluster.seen].count("/v1-k1s/renew") == 1
    task.cancel()


async def test_a_full_disk_stops_no_node(
    cluster: Cluster,
    tmp_path: Path,
    clock: Now,
    informers: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = agent(cluster, tmp_path)
    joined = await ensure_credentials(config, clock)
    registered(informers)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("k1s.agent.identity.write_atomic", full)
    cluster.handler._config = replace(cluster.config, cluster_domain="example.org")
    assert await ensure_credentials(config, clock) == joined
    assert "No space left" in caplog.text
    certificates = AgentCertificates(config, joined, clock)
    task = asyncio.create_task(certificates.run(lambda: None))
    certificates.moved_to("192.0.2.11")
    await tries(task, clock, caplog, "were not renewed: the certificates cannot be written")
    task.cancel()
    with pytest.raises(JoinError, match="No space left"):
        await ensure_credentials(replace(config, data_dir=tmp_path / "other", node_name="node-2"), clock)


async def test_half_of_another_clusters_identity_is_none(
    cluster: Cluster, tmp_path: Path, clock: Now, informers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The power goes while a machine changes from one cluster to another."""
    await ensure_credentials(agent(cluster, tmp_path), clock)
    other = Cluster(tmp_path / "other", informers, clock)
    await other.start()
    write = identity.write_atomic
    written: list[Path] = []

    def dies(path: Path, *rest: Any) -> None:
        if len(written) == 2:
            raise OSError(5, "the power went")
        written.append(path)
        write(path, *rest)

    monkeypatch.setattr(identity, "write_atomic", dies)
    with pytest.raises(JoinError, match="the power went"):
        await ensure_credentials(agent(other, tmp_path), clock)
    monkeypatch.setattr(identity, "write_atomic", write)
    joined = await ensure_credentials(agent(other, tmp_path), clock)
    assert pki.signed_by(joined.client_certificate.read_bytes(), other.certificates.client_ca_pem)
    await other.listener.close(0)


async def test_a_machine_that_moves_while_it_runs_gets_a_certificate_for_its_new_address(
    cluster: Cluster, tmp_path: Path, clock: Now, informers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = agent(cluster, tmp_path)
    joined = await ensure_credentials(config, clock)
    registered(informers)
    certificates = AgentCertificates(config, joined, clock)
    task = asyncio.create_task(certificates.run(lambda: None))
    await clock.advance(60)
    for address in ("192.0.2.11", "192.0.2.12,2001:db8::12"):
        certificates.moved_to(address)
        wanted = set(address.split(","))
        for _ in range(300):
            # Written last.
            if f'"{address}"' in (joined.server_ca.parent / "identity.json").read_text():
                break
            await asyncio.sleep(0.02)
        sans = set(pki.read_certificate(joined.serving_certificate.read_bytes()).subject.sans)
        assert wanted <= sans
        assert "192.0.2.10" not in sans
    task.cancel()
    # At its next start it knows both: nothing is asked for again.
    monkeypatch.setattr("k1s.agent.join.default_address", lambda: "192.0.2.12")
    again = await ensure_credentials(replace(config, node_ip=""), clock)
    assert (again.node_ip, again.moved) == ("192.0.2.12,2001:db8::12", False)
    monkeypatch.setattr("k1s.agent.join.default_address", lambda: "192.0.2.13")
    again = await ensure_credentials(replace(config, node_ip=""), clock)
    assert (again.node_ip, again.moved) == ("192.0.2.13", True)
