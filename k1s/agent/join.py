"""How this machine gets its credentials: once with a token, later with what it has.

Owns: `ensure_credentials`, `renew`, the files below config.tls_dir. Called by: agent/app (first of all),
agent/certificates.
Never does: make the Node object. The server's side is server/join.

Keys are made on this machine (agent/key_requests) and never leave. With a whole token the server's CA is checked against the
hash in it before the secret is sent. A machine that has joined starts without token and without server: everything it needs
lies in its files.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import http.client
import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from k1s.agent import key_requests
from k1s.agent.config import AgentConfig
from k1s.base import pki
from k1s.base.backoff import Backoff
from k1s.base.clock import REAL_CLOCK, Clock
from k1s.base.files import PUBLIC, read_if_exists, write_atomic
from k1s.base.host import default_address, host_name

log = logging.getLogger("k1s.agent.join")

_TIMEOUT = 15.0
_LARGEST_ANSWER = 256 * 1024
_RETRY = Backoff(initial=0.1, maximum=15.0)


class JoinError(Exception):
    """The server will not have this machine, or is not the server that the token is for. The message says what to do."""


class _Unreachable(Exception):
    """No answer, or one that says: later."""


@dataclass(frozen=True, slots=True)
class JoinResult:
    """What the agent runs with. Paths are below config.tls_dir."""

    node_name: str
    node_ip: str
    cluster_cidr: str
    service_cidr: str
    cluster_dns: str
    cluster_domain: str
    server_ca: Path
    client_ca: Path
    client_certificate: Path
    client_key: Path
    serving_certificate: Path
    serving_key: Path
    # The certificates were made for another address: AgentCertificates.run asks for new ones.
    moved: bool = False


async def ensure_credentials(config: AgentConfig, clock: Clock = REAL_CLOCK) -> JoinResult:
    """Credentials for this node, asked for if need be; waits while the server cannot be reached. Raises JoinError."""
    files = _Files(config.tls_dir)
    name, address = node_identity(config)
    token = _token(config)
    known = files.result(name, address)
    if known is not None and _of_another_cluster(files, token):
        log.warning("the token is for another cluster than this machine's certificates: joining anew")
        known = None
    if known is not None and not _expired(files, clock.now()):
        return known
    failures = 0
    while True:
        try:
            if known is not None:
                await asyncio.to_thread(_renew, config, files, name, address)
            else:
                await asyncio.to_thread(_join, config, token, files, name, address)
            break
        except JoinError as error:
            if known is None or not token:
                raise
            log.warning("the old certificates are of no use (%s): joining anew", error)
            known = None
        except _Unreachable as error:
            failures += 1
            delay = _RETRY.delay(failures)
            # The server beside us is usually a moment away; only a longer silence is worth a line.
            log.log(
                logging.INFO if failures > 5 else logging.DEBUG, "%s: %s; trying again in %.1f s", config.server, error, delay
            )
            await clock.sleep(delay)
    result = files.result(name, address)
    if result is None:
        raise JoinError("the server's answer is incomplete")
    return result


async def renew(config: AgentConfig, addresses: str) -> None:
    """New certificates for the same keys, by the present certificate. Raises JoinError, ConnectionError."""
    name, _ = node_identity(config)
    try:
        await asyncio.to_thread(_renew, config, _Files(config.tls_dir), name, addresses)
    except _Unreachable as error:
        raise ConnectionError(str(error)) from error


def node_identity(config: AgentConfig) -> tuple[str, str]:
    """This node's name and address: as configured, else the host's name and the address of the default route."""
    name = (config.node_name or host_name()).lower()
    return name, config.node_ip or default_address()


class _Files:
    """The files of one node's identity. `identity.json` is written last: it says that the rest is complete."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.server_ca = directory / "server-ca.crt"
        self.client_ca = directory / "client-ca.crt"
        self.client = (directory / "client.crt", directory / "client.key")
        self.serving = (directory / "serving.crt", directory / "serving.key")
        self.identity = directory / "identity.json"

    def result(self, name: str, address: str) -> JoinResult | None:
        """What is known from earlier, None unless it is all there and for this name."""
        content = read_if_exists(self.identity)
        paths = (self.server_ca, self.client_ca, *self.client, *self.serving)
        if content is None or not all(path.exists() for path in paths):
            return None
        known = orjson.loads(content)
        if known["node"] != name:
            return None
        settings = known["settings"]
        return JoinResult(
            node_name=name,
            node_ip=address,
            cluster_cidr=settings["clusterCIDR"],
            service_cidr=settings["serviceCIDR"],
            cluster_dns=settings["clusterDNS"],
            cluster_domain=settings["clusterDomain"],
            server_ca=self.server_ca,
            client_ca=self.client_ca,
            client_certificate=self.client[0],
            client_key=self.client[1],
            serving_certificate=self.serving[0],
            serving_key=self.serving[1],
            moved=known["address"] != address,
        )

    def store(self, name: str, addresses: str, answer: dict[str, Any]) -> None:
        write_atomic(self.server_ca, answer["serverCA"].encode(), PUBLIC)
        write_atomic(self.client_ca, answer["clientCA"].encode(), PUBLIC)
        write_atomic(self.client[0], answer["clientCertificate"].encode(), PUBLIC)
        write_atomic(self.serving[0], answer["servingCertificate"].encode(), PUBLIC)
        identity = {"node": name, "address": addresses, "settings": answer["settings"]}
        write_atomic(self.identity, orjson.dumps(identity, option=orjson.OPT_INDENT_2), PUBLIC)


def _expired(files: _Files, now: float) -> bool:
    return now >= pki.validity(files.client[0].read_bytes()).not_after


def _token(config: AgentConfig) -> str:
    """The token, "" if there is none: a machine that has joined does not need it any more."""
    if config.token or not config.token_file:
        return config.token.strip()
    return (read_if_exists(Path(config.token_file)) or b"").decode().strip()


def _of_another_cluster(files: _Files, token: str) -> bool:
    prefix, whole, _ = token.partition("::")
    return bool(whole) and prefix != f"K10{pki.ca_hash(files.server_ca.read_bytes())}"


def _join(config: AgentConfig, token: str, files: _Files, name: str, address: str) -> None:
    if not token and config.token_file:
        raise JoinError(f"--token-file: there is no token in {config.token_file}")
    if not token:
        raise JoinError(
            "this machine has not joined yet: it needs --token (on the server: the file node-token in its data directory)"
        )
    ca = _trusted_ca(config.server, token)
    body = _requests(files, name, address)
    headers = {"Authorization": f"Bearer {token.partition('::')[2] or token}"}
    files.store(name, address, _post(config.server, "/v1-k1s/join", orjson.dumps(body), headers, ca))


def _renew(config: AgentConfig, files: _Files, name: str, address: str) -> None:
    body = orjson.dumps({**_requests(files, name, address), "certificate": files.client[0].read_text()})
    signature = pki.sign(files.client[1].read_bytes(), body)
    headers = {"X-K1s-Signature": base64.b64encode(signature).decode()}
    files.store(name, address, _post(config.server, "/v1-k1s/renew", body, headers, files.server_ca.read_bytes()))


def _requests(files: _Files, name: str, address: str) -> dict[str, Any]:
    try:
        client, serving = key_requests.make(name, (files.client[1], files.serving[1]))
    except key_requests.RequestsFailed as error:
        raise JoinError(f"the node's certificate requests could not be made: {error}") from error
    return {
        "node": name,
        "addresses": [part for part in address.split(",") if part],
        "clientRequest": client,
        "servingRequest": serving,
    }


def _trusted_ca(server: str, token: str) -> bytes:
    """The server's CA, fetched without trust and checked against the token's hash."""
    # Not create_default_context: it would read the system's CA bundle (100 ms and 3 MB).
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
    ca = _request(server, "GET", "/cacerts", b"", {}, blind)
    prefix, whole, _ = token.partition("::")
    if not whole:
        log.warning(
            "the token has no CA hash: the server at %s cannot be verified; use the whole token (K10...::node:...)", server
        )
        return ca
    if not hmac.compare_digest(prefix, f"K10{pki.ca_hash(ca)}"):
        raise JoinError(f"{server} is not the server that the token is for: its CA has another hash. The token was not sent")
    return ca


def _post(server: str, path: str, body: bytes, headers: dict[str, str], ca: bytes) -> dict[str, Any]:
    context = ssl.create_default_context(cadata=ca.decode())
    answer = _request(server, "POST", path, body, {**headers, "Content-Type": "application/json"}, context)
    parsed = orjson.loads(answer)
    if not isinstance(parsed, dict):
        raise JoinError("the server's answer is not what a k1s server says")
    return parsed


def _request(server: str, method: str, path: str, body: bytes, headers: dict[str, str], context: ssl.SSLContext) -> bytes:
    """One exchange. Raises _Unreachable when trying again may help, JoinError when not."""
    url = urlsplit(server)
    if url.scheme != "https" or not url.hostname:
        raise JoinError(f"--server must be an https URL, not {server!r}")
    connection = http.client.HTTPSConnection(url.hostname, url.port or 6443, timeout=_TIMEOUT, context=context)
    try:
        connection.request(method, path, body=body or None, headers=headers)
        response = connection.getresponse()
        content = response.read(_LARGEST_ANSWER)
    except ssl.SSLCertVerificationError as error:
        raise JoinError(
            f"{server}: its certificate does not hold: {error.verify_message} (see the server's --tls-san)"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise _Unreachable(str(error) or type(error).__name__) from error
    finally:
        connection.close()
    if response.status == 200:
        return content
    message = _message(content) or response.reason
    if response.status == 401:
        raise JoinError(f"{server} does not accept this machine's token or certificate")
    if response.status in (429, 404) or response.status >= 500:  # 404: a server that is still starting
        raise _Unreachable(f"{response.status} {message}")
    raise JoinError(f"{server}: {message}")


def _message(content: bytes) -> str:
    try:
        return str(orjson.loads(content).get("message") or "")
    except (orjson.JSONDecodeError, AttributeError):
        return ""
