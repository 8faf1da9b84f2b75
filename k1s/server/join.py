"""How a machine becomes a node: tokens, and the routes that hand out certificates.

GET /cacerts            the server CA, to anyone: its hash stands in the token
POST /v1-k1s/join       with the join token: certificates for a node name
POST /v1-k1s/renew      with the node's present certificate, even an expired one, and a signature of its key

Owns: JoinTokens, JoinHandler. Called by: server/app (routes), cli/token. Never does: make Node objects (the agent does).

A node's identity is its key. The first key that joins under a name owns the name until the Node object is deleted: the
record is the Secret kube-system/<name>.node-key.k1s.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import logging
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from k1s.api.catalog import builtin
from k1s.api.errors import ApiError, bad_request, method_not_allowed, path_not_found, request_entity_too_large, unauthorized
from k1s.api.names import dns1123_subdomain
from k1s.base import pki
from k1s.base.clock import Clock
from k1s.base.files import read_if_exists, write_atomic
from k1s.base.http import Answer, BodyTooLarge, Request, Response
from k1s.client.interface import Client, InformerFactory, Object
from k1s.server.certificates import ServerCertificates
from k1s.server.config import ServerConfig

log = logging.getLogger("k1s.server.join")

PATHS = ("/cacerts", "/v1-k1s/join", "/v1-k1s/renew")
SIGNATURE_HEADER = "X-K1s-Signature"
_LARGEST_BODY = 64 * 1024
_MOST_ADDRESSES = 16


@dataclass(frozen=True, slots=True)
class JoinTokens:
    """The secrets that let a machine join. `node` and `server` are whole tokens; both are good for joining as a node."""

    node: str
    server: str

    def accepts(self, given: str) -> bool:
        """Whether `given` (a whole token, `user:secret` or the bare secret) is one of ours; in constant time."""
        digest = hashlib.sha256(secret_of(given).encode()).digest()
        good = [hmac.compare_digest(digest, hashlib.sha256(secret_of(t).encode()).digest()) for t in (self.node, self.server)]
        return any(good)


def secret_of(token: str) -> str:
    """What is secret in a token: the part after the CA hash and the user."""
    _, separator, rest = token.strip().partition("::")
    text = rest if separator else token.strip()
    user, colon, secret = text.partition(":")
    return secret if colon and user in ("node", "server") else text


def load_tokens(config: ServerConfig, server_ca: bytes) -> JoinTokens:
    """The tokens in the data directory, made at first start; `--token` gives the secret. Files are 0600."""
    server_file = config.server_dir / "token"
    given = config.token or (Path(config.token_file).read_text().strip() if config.token_file else "")
    secret = secret_of(given) if given else _stored(config.node_token_file) or secrets.token_hex(16)
    server_secret = secret_of(given) if given else _stored(server_file) or secrets.token_hex(16)
    prefix = f"K10{pki.ca_hash(server_ca)}"
    tokens = JoinTokens(f"{prefix}::node:{secret}", f"{prefix}::server:{server_secret}")
    for path, token in ((config.node_token_file, tokens.node), (server_file, tokens.server)):
        if read_if_exists(path) != f"{token}\n".encode():
            write_atomic(path, f"{token}\n".encode())
    return tokens


def _stored(path: Path) -> str:
    content = read_if_exists(path)
    return secret_of(content.decode()) if content else ""


class JoinHandler:
    """`handle` serves PATHS. `client` must be privileged: it keeps the record of nodes' keys."""

    def __init__(
        self,
        config: ServerConfig,
        certificates: ServerCertificates,
        tokens: JoinTokens,
        client: Client,
        informers: InformerFactory,
        clock: Clock,
    ) -> None:
        self._config, self._certificates, self._tokens = config, certificates, tokens
        self._client, self._clock = client, clock
        self._nodes = informers.informer(builtin("Node"))

    async def handle(self, request: Request) -> Answer:
        """Never raises for a bad request: an ApiError becomes its Status."""
        try:
            return await self._route(request)
        except ApiError as error:
            return Response(error.code, orjson.dumps(error.status()))

    async def _route(self, request: Request) -> Answer:
        if request.path not in PATHS:
            raise path_not_found()
        if request.method != ("GET" if request.path == "/cacerts" else "POST"):
            raise method_not_allowed()
        if request.path == "/cacerts":
            return Response(200, self._certificates.server_ca_pem, "application/x-pem-file")
        if request.path == "/v1-k1s/join":
            # Before the body is read: strangers get to send a header, no more.
            self._check_token(request)
            return await self._join(await _body(request))
        return await self._renew(request, await _body(request))

    def _check_token(self, request: Request) -> None:
        kind, _, value = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not self._tokens.accepts(value):
            raise unauthorized()

    async def _join(self, raw: bytes) -> Answer:
        body = _parsed(raw)
        name = _node_name(body)
        await self._claim(name, _csr(body, "clientRequest").key_fingerprint)
        log.info("node %s joined", name)
        return self._issue(name, body)

    async def _renew(self, request: Request, raw: bytes) -> Answer:
        body = _parsed(raw)
        name, certificate = _node_name(body), _text(body, "certificate").encode()
        try:
            signature = base64.b64decode(request.headers.get(SIGNATURE_HEADER, ""), validate=True)
            read = pki.read_certificate(certificate)
            good = pki.signed_by(certificate, self._certificates.client_ca_pem) and pki.verify(certificate, raw, signature)
        except (pki.PkiError, binascii.Error) as error:
            raise unauthorized() from error
        if not good or (read.subject.common_name, read.subject.organizations) != (f"system:node:{name}", ("system:nodes",)):
            raise unauthorized()
        if _csr(body, "clientRequest").key_fingerprint != read.key_fingerprint:
            raise bad_request("a renewed certificate keeps its key")
        if self._nodes.get(name) is None:
            raise _forbidden(f'there is no node "{name}" (it was deleted): join again with a token')
        await self._claim(name, read.key_fingerprint)
        log.info("certificates of node %s renewed", name)
        return self._issue(name, body)

    async def _claim(self, name: str, fingerprint: str) -> None:
        """Give the name to this key. Raises 403 if another key has it and its node still exists."""
        resource = builtin("Secret")
        secret_name = f"{name}.node-key.k1s"
        record: Object = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": secret_name, "namespace": "kube-system"},
            "type": "k1s.io/node-key",
            "data": {"fingerprint": base64.b64encode(fingerprint.encode()).decode()},
        }
        try:
            found = await self._client.get(resource, secret_name, "kube-system")
        except ApiError as error:
            if error.reason != "NotFound":
                raise
            await self._client.create(resource, record, "kube-system")
            return
        if hmac.compare_digest(str((found.get("data") or {}).get("fingerprint")), record["data"]["fingerprint"]):
            return
        if self._nodes.get(name) is not None:
            fix = f"if this machine replaces it, run: kubectl delete node {name}"
            raise _forbidden(f'node "{name}" exists and belongs to another key; {fix}')
        await self._client.update(resource, {**found, "data": record["data"]})

    def _issue(self, name: str, body: dict[str, Any]) -> Answer:
        now, config = self._clock.now(), self._config
        client = pki.Subject(f"system:node:{name}", ("system:nodes",))
        serving = pki.Subject(client.common_name, client.organizations, (name, *_addresses(body)))
        _csr(body, "servingRequest")
        certificates = self._certificates
        answer = {
            "clientCertificate": _issued(certificates.ca("client-ca"), body, "clientRequest", client, "client", now),
            "servingCertificate": _issued(certificates.ca("kubelet-ca"), body, "servingRequest", serving, "server", now),
            "serverCA": certificates.server_ca_pem.decode(),
            "clientCA": certificates.client_ca_pem.decode(),
            "settings": {
                "clusterCIDR": config.cluster_cidr,
                "serviceCIDR": config.service_cidr,
                "clusterDNS": config.cluster_dns,
                "clusterDomain": config.cluster_domain,
            },
        }
        return Response(200, orjson.dumps(answer), headers=[("Cache-Control", "no-store")])


def _issued(ca: pki.Pair, body: dict[str, Any], key: str, subject: pki.Subject, usage: str, now: float) -> str:
    return pki.issue_for_csr(ca, _text(body, key).encode(), subject, usage=usage, now=now).decode()


async def _body(request: Request) -> bytes:
    try:
        return await request.body.read(_LARGEST_BODY)
    except BodyTooLarge:
        raise request_entity_too_large(f"limit is {_LARGEST_BODY}") from None


def _parsed(raw: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise bad_request("the body must be JSON") from error
    if not isinstance(body, dict):
        raise bad_request("the body must be a JSON object")
    return body


def _text(body: dict[str, Any], key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str) or not value:
        raise bad_request(f"{key} must be a string")
    return value


def _node_name(body: dict[str, Any]) -> str:
    name = _text(body, "node")
    faults = dns1123_subdomain(name)
    if faults:
        raise bad_request(f"node name {name!r}: {faults[0]}")
    return name


def _csr(body: dict[str, Any], key: str) -> pki.ReadCsr:
    try:
        return pki.read_csr(_text(body, key).encode())
    except pki.PkiError as error:
        raise bad_request(f"{key}: {error}") from error


def _addresses(body: dict[str, Any]) -> list[str]:
    """The node's own addresses: IPs only, so that no node gets a certificate for somebody's name."""
    given = body.get("addresses") or []
    if not isinstance(given, list) or len(given) > _MOST_ADDRESSES:
        raise bad_request(f"addresses must be a list of at most {_MOST_ADDRESSES}")
    try:
        return [str(ipaddress.ip_address(address)) for address in given]
    except ValueError as error:
        raise bad_request(f"addresses: {error}") from error


def _forbidden(message: str) -> ApiError:
    return ApiError(403, "Forbidden", message)
