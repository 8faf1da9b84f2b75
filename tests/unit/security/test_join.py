"""A machine becomes a node: over real TLS, against the real handler."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import stat
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from joinlab import Cluster, Now, agent, freed, registered, removed

from k1s.agent.certificates import AgentCertificates
from k1s.agent.join import ensure_credentials, leave, renew
from k1s.agent.join_request import JoinError
from k1s.api import node_identity
from k1s.api.catalog import builtin
from k1s.base import http_server, pki
from k1s.base.http import Answer, Request
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


async def test_joining(cluster: Cluster, tmp_path: Path, clock: Now) -> None:
    result = await ensure_credentials(agent(cluster, tmp_path), clock)
    client = pki.read_certificate(result.client_certificate.read_bytes())
    assert client.subject == pki.Subject("system:node:node-1", ("system:nodes",))
    serving = pki.read_certificate(result.serving_certificate.read_bytes())
    assert serving.subject.sans == ("node-1", "192.0.2.10")
    assert (result.cluster_cidr, result.cluster_dns) == ("10.42.0.0/16", "10.43.0.10")
    for path in (result.client_key, result.serving_key):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(result.client_key.parent.stat().st_mode) == 0o700
    # A node's listener must not pass for the API server.
    assert not pki.signed_by(result.serving_certificate.read_bytes(), result.server_ca.read_bytes())


async def test_the_second_start_needs_neither_token_nor_server(cluster: Cluster, tmp_path: Path, clock: Now) -> None:
    first = await ensure_credentials(agent(cluster, tmp_path), clock)
    cluster.seen.clear()
    again = await ensure_credentials(replace(agent(cluster, tmp_path), token="", server="https://127.0.0.1:1"), clock)
    assert replace(again, server=first.server) == first
    assert cluster.seen == []
    await cluster.listener.close(0)
    # Nor need it be told again which server it has joined.
    assert (await ensure_credentials(replace(agent(cluster, tmp_path), token="", server=""), clock)).server == cluster.url


async def test_a_wrong_ca_hash_is_noticed_before_the_secret_is_sent(cluster: Cluster, tmp_path: Path, clock: Now) -> None:
    secret = secret_of(cluster.token)
    wrong = f"K10{'0' * 64}::node:{secret}"
    with pytest.raises(JoinError, match="The token was not sent"):
        await ensure_credentials(agent(cluster, tmp_path, token=wrong), clock)
    assert cluster.seen == [("/cacerts", "")]


async def test_a_server_with_the_right_ca_but_without_its_key_gets_nothing(
    cluster: Cluster, tmp_path: Path, clock: Now, informers: Any
) -> None:
    thief = Cluster(tmp_path / "thief", informers, clock)
    await thief.start()
    stolen = cluster.certificates.ca("server-ca").certificate

    async def handle(request: Request) -> Answer:
        thief.seen.append((request.path, request.headers.get("authorization", "")))
        return (await cluster.handler.handle(request)) if request.path == "/cacerts" else await thief.handler.handle(request)

    await thief.listener.close(0)
    thief.listener = await http_server.listen(handle, host="127.0.0.1", port=0, tls=thief.certificates.server_context())
    config = replace(agent(cluster, tmp_path), server=f"https://127.0.0.1:{thief.listener.port}")
    with pytest.raises(JoinError, match="does not hold"):
        await ensure_credentials(config, clock)
    assert thief.seen == [("/cacerts", "")]
    assert stolen
    await thief.listener.close(0)


async def test_wrong_and_missing_tokens(cluster: Cluster, tmp_path: Path, clock: Now) -> None:
    prefix = cluster.token.partition("::")[0]
    with pytest.raises(JoinError, match="the token is wrong, or was rotated"):
        await ensure_credentials(agent(cluster, tmp_path, token=f"{prefix}::node:guess"), clock)
    with pytest.raises(JoinError, match="needs --token"):
        await ensure_credentials(agent(cluster, tmp_path, token=""), clock)


@pytest.mark.parametrize("form", ["node", "server", "file"])
async def test_forms_of_the_token(cluster: Cluster, tmp_path: Path, clock: Now, form: str) -> None:
    server_token = (cluster.config.server_dir / "token").read_text().strip()
    token = {"node": cluster.token, "server": server_token, "file": ""}[form]
    options = {"token": token, "token_file": str(cluster.config.node_token_file) if form == "file" else ""}
    await ensure_credentials(agent(cluster, tmp_path, **options), clock)


@pytest.mark.parametrize("form", ["secret", "user", "no-hash", "short-hash"])
async def test_a_token_without_the_hash_is_refused_before_anything_is_sent(
    cluster: Cluster, tmp_path: Path, clock: Now, form: str
) -> None:
    secret = secret_of(cluster.token)
    token = {"secret": secret, "user": f"node:{secret}", "no-hash": f"K10::node:{secret}", "short-hash": f"K10ab::node:{secret}"}
    with pytest.raises(JoinError, match=r"not a whole one.*node-token.*k1s token create"):
        await ensure_credentials(agent(cluster, tmp_path, token=token[form]), clock)
    assert cluster.seen == []


async def test_the_agent_waits_for_a_server_that_is_not_up_yet(cluster: Cluster, tmp_path: Path) -> None:
    port = cluster.listener.port
    await cluster.listener.close(0)
    task = asyncio.create_task(ensure_credentials(agent(cluster, tmp_path)))
    await asyncio.sleep(0.3)
    assert not task.done()
    cluster.listener = await http_server.listen(
        cluster.handle, host="127.0.0.1", port=port, tls=cluster.certificates.server_context()
    )
    assert (await task).node_name == "node-1"


async def test_a_name_belongs_to_the_first_key(cluster: Cluster, tmp_path: Path, clock: Now, informers: Any) -> None:
    await ensure_credentials(agent(cluster, tmp_path), clock)
    other = replace(agent(cluster, tmp_path), data_dir=tmp_path / "other")
    with pytest.raises(JoinError, match=r"run on the server: k1s node forget node-1$"):
        await ensure_credentials(other, clock)
    registered(informers)
    with pytest.raises(JoinError, match=r"k1s node forget node-1 \(or: kubectl delete node node-1\)$"):
        await ensure_credentials(other, clock)
    informers.drop("Node", "node-1")
    await ensure_credentials(other, clock)
    # The name is the other's now, whatever the first one still has.
    with pytest.raises(JoinError, match="belongs to another machine"):
        await ensure_credentials(replace(agent(cluster, tmp_path), data_dir=tmp_path / "third"), clock)


async def test_a_forgotten_name_is_free(cluster: Cluster, tmp_path: Path, clock: Now, informers: Any) -> None:
    first = agent(cluster, tmp_path)
    joined = await ensure_credentials(first, clock)
    registered(informers)
    freed(informers, clock)
    with pytest.raises(JoinError, match="was removed from this cluster"):
        await AgentCertificates(first, joined, clock).renew("192.0.2.10")
    await ensure_credentials(replace(first, data_dir=tmp_path / "other"), clock)
    with pytest.raises(JoinError, match="belongs to another machine now"):
        await AgentCertificates(first, joined, clock).renew("192.0.2.10")


async def test_settings_that_the_server_has_changed_are_learned_at_the_next_start(
    cluster: Cluster, tmp_path: Path, clock: Now, informers: Any
) -> None:
    config = agent(cluster, tmp_path)
    assert (await ensure_credentials(config, clock)).network_backend == "vxlan"
    cluster.handler._config = replace(cluster.config, network_backend="host-gw", cluster_domain="example.org")
    result = await ensure_credentials(config, clock)
    assert (result.network_backend, result.cluster_domain, result.cluster_cidr) == ("host-gw", "example.org", "10.42.0.0/16")
    # They stay when the server is away,
    offline = replace(config, server="https://127.0.0.1:1")
    assert (await ensure_credentials(offline, clock)).network_backend == "host-gw"
    # and are for the cluster's nodes.
    registered(informers)
    informers.drop("Node", "node-1")
    cluster.handler._config = cluster.config
    assert (await ensure_credentials(config, clock)).network_backend == "host-gw"


async def test_an_identity_of_before_there_were_backends(cluster: Cluster, tmp_path: Path, clock: Now) -> None:
    config = agent(cluster, tmp_path)
    joined = await ensure_credentials(config, clock)
    file = joined.server_ca.parent / "identity.json"
    known = json.loads(file.read_bytes())
    del known["settings"]["networkBackend"], known["server"]
    file.write_text(json.dumps(known))
    assert (await ensure_credentials(replace(config, server="https://127.0.0.1:1"), clock)).network_backend == "vxlan"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"node": "node-1"}'])
async def test_a_damaged_identity_is_made_anew(cluster: Cluster, tmp_path: Path, clock: Now, content: str) -> None:
    config = agent(cluster, tmp_path)
    joined = await ensure_credentials(config, clock)
    (joined.server_ca.parent / "identity.json").write_text(content)
    with pytest.raises(JoinError, match="has not joined"):
        await ensure_credentials(replace(config, token=""), clock)
    assert await ensure_credentials(config, clock) == joined


async def test_renewal_while_running(
    cluster: Cluster, tmp_path: Path, clock: Now, informers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("k1s.agent.certificates._LONGEST_SLEEP", pki.DAY)
    config = agent(cluster, tmp_path)
    joined = await ensure_credentials(config, clock)
    registered(informers)
    certificates = AgentCertificates(config, joined, clock)
    context = certificates.client_context()
    certificates.server_context()
    old, key = joined.client_certificate.read_bytes(), joined.client_key.read_bytes()
    task = asyncio.create_task(certificates.run(lambda: None))
    await clock.advance(240 * pki.DAY)
    assert joined.client_certificate.read_bytes() == old
    await clock.advance(10 * pki.DAY)
    for _ in range(200):
        if joined.client_certificate.read_bytes() != old:
            break
        await asyncio.sleep(0.02)
    assert joined.client_certificate.read_bytes() != old
    assert joined.client_key.read_bytes() == key
    assert ("/v1-k1s/renew", "") in cluster.seen
    assert isinstance(context, ssl.SSLContext)
    task.cancel()


async def test_an_expired_certificate_renews_itself_at_boot_without_a_token(
    cluster: Cluster, tmp_path: Path, clock: Now, informers: Any
) -> None:
    config = agent(cluster, tmp_path)
    joined = await ensure_credentials(config, clock)
    registered(informers)
    ca = cluster.certificates.ca("client-ca")
    subject = pki.Subject("system:node:node-1", ("system:nodes",))
    past = clock.now() - 400 * pki.DAY
    expired = pki.issue(ca, joined.client_key.read_bytes(), subject, usage="client", now=past)
    joined.client_certificate.write_bytes(expired)
    renewed = await ensure_credentials(replace(config, token=""), clock)
    assert pki.validity(renewed.client_certificate.read_bytes()).not_after > clock.now()


async def test_a_deleted_node_cannot_renew(cluster: Cluster, tmp_path: Path, clock: Now, informers: Any) -> None:
    config = agent(cluster, tmp_path)
    joined = await ensure_credentials(config, clock)
    registered(informers)
    informers.drop("Node", "node-1")
    with pytest.raises(ConnectionError, match="is being removed"):
        await AgentCertificates(config, joined, clock).renew("192.0.2.10")
    freed(informers, clock)
    with pytest.raises(JoinError, match="was removed from this cluster: this one has to join again, with a token"):
        await AgentCertificates(config, joined, clock).renew("192.0.2.10")
    # A database from a backup: it is shut out, and told something else.
    informers.drop("Secret", node_identity.record_name("node-1"), "kube-system")
    with pytest.raises(JoinError, match="does not know this machine as node"):
        await AgentCertificates(config, joined, clock).renew("192.0.2.10")


async def test_a_deleted_node_with_an_expired_certificate_joins_anew_if_it_has_a_token(
    cluster: Cluster, tmp_path: Path, clock: Now, informers: Any
) -> None:
    config = agent(cluster, tmp_path)
    joined = await ensure_credentials(config, clock)
    registered(informers)
    removed(informers, clock)
    subject = pki.Subject("system:node:node-1", ("system:nodes",))
    past = clock.now() - 400 * pki.DAY
    key = joined.client_key.read_bytes()
    expired = pki.issue(cluster.certificates.ca("client-ca"), key, subject, usage="client", now=past)
    joined.client_certificate.write_bytes(expired)
    with pytest.raises(JoinError, match="join again, with a token"):
        await ensure_credentials(replace(config, token=""), clock)
    await ensure_credentials(config, clock)
    assert pki.validity(joined.client_certificate.read_bytes()).not_after > clock.now()


async def test_a_token_of_another_cluster_makes_the_machine_join_that_one(
    cluster: Cluster, tmp_path: Path, clock: Now, informers: Any
) -> None:
    await ensure_credentials(agent(cluster, tmp_path), clock)
    rebuilt = Cluster(tmp_path / "rebuilt", informers, clock)
    await rebuilt.start()
    config = agent(rebuilt, tmp_path)
    joined = await ensure_credentials(config, clock)
    assert joined.server_ca.read_bytes() == rebuilt.certificates.server_ca_pem
    assert pki.signed_by(joined.client_certificate.read_bytes(), rebuilt.certificates.client_ca_pem)
    await rebuilt.listener.close(0)


async def test_a_token_file_matters_only_until_the_machine_has_joined(cluster: Cluster, tmp_path: Path, clock: Now) -> None:
    file = tmp_path / "token"
    config = agent(cluster, tmp_path, token="", token_file=str(file))
    with pytest.raises(JoinError, match="--token-file"):
        await ensure_credentials(config, clock)
    file.write_text(cluster.token)
    first = await ensure_credentials(config, clock)
    file.unlink()
    assert await ensure_credentials(config, clock) == first


async def test_renewal_needs_the_key_and_not_only_the_certificate(
    cluster: Cluster, tmp_path: Path, clock: Now, informers: Any
) -> None:
    joined = await ensure_credentials(agent(cluster, tmp_path), clock)
    registered(informers)
    thief = tmp_path / "thief" / "agent" / "tls"
    thief.mkdir(parents=True)
    for path in joined.client_key.parent.iterdir():
        (thief / path.name).write_bytes(pki.new_key() if path.suffix == ".key" else path.read_bytes())
    config = replace(agent(cluster, tmp_path), data_dir=tmp_path / "thief")
    with pytest.raises(JoinError, match="its owner does not show it"):
        await AgentCertificates(config, joined, clock).renew("192.0.2.10")


async def test_a_moved_machine_asks_for_its_new_address(cluster: Cluster, tmp_path: Path, clock: Now, informers: Any) -> None:
    await ensure_credentials(agent(cluster, tmp_path), clock)
    registered(informers)
    config = agent(cluster, tmp_path, node_ip="192.0.2.99")
    joined = await ensure_credentials(config, clock)
    assert joined.moved
    task = asyncio.create_task(AgentCertificates(config, joined, clock).run(lambda: None))
    for _ in range(200):
        if not (await ensure_credentials(config, clock)).moved:
            break
        await asyncio.sleep(0.02)
    serving = pki.read_certificate(joined.serving_certificate.read_bytes())
    assert "192.0.2.99" in serving.subject.sans
    task.cancel()


def body(**changes: Any) -> dict[str, Any]:
    csr = pki.make_csr(pki.new_key(), pki.Subject("x")).decode()
    return {"node": "n", "addresses": ["192.0.2.1"], "clientRequest": csr, "servingRequest": csr, **changes}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"node": "Bad_Name"}, "node name"),
        ({"node": "192.0.2.77"}, "must not be an IP address"),
        ({"node": "a" * 64}, "no more than 63 characters between its dots"),
        ({"addresses": ["kubernetes.default.svc"]}, "addresses"),
        ({"addresses": ["192.0.2.1"] * 99}, "at most"),
        ({"clientRequest": "junk"}, "clientRequest"),
        ({"servingRequest": 3}, "servingRequest"),
    ],
)
async def test_requests_that_make_no_sense(cluster: Cluster, changes: dict[str, Any], text: str) -> None:
    import orjson

    from k1s.base.http import Headers, MemoryBody, Response

    headers = Headers([("Authorization", f"Bearer {cluster.token}")])
    request = Request("POST", "/v1-k1s/join", headers=headers, body=MemoryBody(orjson.dumps(body(**changes))))
    answer = await cluster.handler.handle(request)
    assert isinstance(answer, Response)
    assert answer.status == 400
    assert text in orjson.loads(answer.body)["message"]


async def asked(cluster: Cluster, path: str, token: str, **changes: Any) -> int:
    import orjson

    from k1s.base.http import Headers, MemoryBody, Response

    headers = Headers([("Authorization", f"Bearer {token}")])
    answer = await cluster.handler.handle(Request("POST", path, headers=headers, body=MemoryBody(orjson.dumps(body(**changes)))))
    assert isinstance(answer, Response)
    return answer.status


async def test_what_strangers_send_is_refused_in_order(cluster: Cluster, clock: Now) -> None:
    assert await asked(cluster, "/v1-k1s/join", "\udcff\udc00") == 401  # bytes that are no text
    assert await asked(cluster, "/v1-k1s/join", "abcdef.0123456789abcde\udcff") == 401
    # A certificate of the cluster, but with a key of another kind.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 2048)
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    pem = csr.public_bytes(serialization.Encoding.PEM)
    subject = pki.Subject("alice")
    made = pki.issue_for_csr(cluster.certificates.ca("client-ca"), pem, subject, usage="client", now=clock.now())
    assert await asked(cluster, "/v1-k1s/renew", "", certificate=made.decode()) == 401


async def test_long_names_of_hosts(cluster: Cluster, tmp_path: Path, clock: Now) -> None:
    name = "a-host-with-a-name.of-a-department.of-a-company.in-a-country.example.org"
    joined = await ensure_credentials(agent(cluster, tmp_path, name), clock)
    assert pki.read_certificate(joined.client_certificate.read_bytes()).subject.common_name == f"system:node:{name}"
    await AgentCertificates(agent(cluster, tmp_path, name), joined, clock).renew("192.0.2.10")


async def test_a_removed_node_joins_again_with_a_new_key(cluster: Cluster, tmp_path: Path, clock: Now, informers: Any) -> None:
    """It may have been removed because somebody has its key."""
    config = agent(cluster, tmp_path)
    joined = await ensure_credentials(config, clock)
    registered(informers)
    stolen = joined.client_certificate.read_bytes(), joined.client_key.read_bytes()
    removed(informers, clock)
    assert not leave(replace(config, token=""))
    assert joined.client_key.exists()
    assert leave(config)
    await ensure_credentials(config, clock)
    registered(informers)
    assert joined.client_key.read_bytes() != stolen[1]
    thief = replace(config, data_dir=tmp_path / "thief", token="")
    files = thief.tls_dir
    shutil.copytree(config.tls_dir, files)
    (files / "client.crt").write_bytes(stolen[0])
    (files / "client.key").write_bytes(stolen[1])
    with pytest.raises(JoinError, match="belongs to another machine now"):
        await renew(thief, "192.0.2.66", clock)


async def test_joining_anew_keeps_what_it_has_until_it_has_something_better(
    cluster: Cluster, tmp_path: Path, clock: Now, informers: Any
) -> None:
    config = agent(cluster, tmp_path)
    joined = await ensure_credentials(config, clock)
    old = joined.client_certificate.read_bytes()
    informers.drop("Secret", node_identity.record_name("node-1"), "kube-system")
    with pytest.raises(JoinError, match="the token is wrong"):
        await ensure_credentials(replace(config, token=cluster.token[:-4] + "0000"), clock, anew=True)
    assert await ensure_credentials(replace(config, token=""), clock) == joined
    assert joined.client_certificate.read_bytes() == old
    await ensure_credentials(config, clock, anew=True)
    assert joined.client_certificate.read_bytes() != old


def test_the_record_of_keys_is_not_for_nodes(informers: Any) -> None:
    from k1s.server.apiserver.attributes import RequestInfo, UserInfo
    from k1s.server.apiserver.authz.node import NodeAuthorizer
    from k1s.server.defaults import rbac

    who = UserInfo("system:node:node-1", ("system:nodes",))
    info = RequestInfo(True, "/", "get", "", "v1", "secrets", "", "kube-system", "node-1.node-key.k1s")
    assert not NodeAuthorizer(informers, rbac.node_rules()).allowed(who, info)[0]
    assert builtin("Secret").plural == "secrets"
