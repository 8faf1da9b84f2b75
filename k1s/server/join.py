"""How a machine becomes a node: the routes that hand out certificates.

GET /cacerts            the server CA, to anyone: its hash stands in the token
POST /v1-k1s/join       with a join token: certificates for a node name
POST /v1-k1s/renew      with the node's present certificate, even an expired one, and a signature of its key
GET /v1-k1s/settings    what the server was told about the cluster, to its nodes

Owns: JoinHandler. Called by: server/app. Never does: make Node objects (the agent does), know tokens (server/tokens).

A node's identity is its key. The first key that joins under a name owns the name until the Node is deleted or the name is
forgotten (api/node_identity). Answers carry this server's time, so that a machine whose clock is wrong can say so.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import logging
from email.utils import formatdate
from typing import Any

import orjson

from k1s.api import node_identity
from k1s.api.catalog import builtin
from k1s.api.errors import ApiError, bad_request, method_not_allowed, path_not_found, request_entity_too_large, unauthorized
from k1s.api.names import dns1123_subdomain
from k1s.base import pki
from k1s.base.clock import Clock
from k1s.base.http import Answer, BodyTooLarge, Request, Response
from k1s.client.interface import Client, InformerFactory
from k1s.server.apiserver.attributes import UserInfo
from k1s.server.apiserver.authn.node_keys import NodeKeys
from k1s.server.certificates import ServerCertificates
from k1s.server.config import ServerConfig
from k1s.server.tokens import JoinTokens

log = logging.getLogger("k1s.server.join")

_SETTINGS = "/v1-k1s/settings"
PATHS = ("/cacerts", "/v1-k1s/join", "/v1-k1s/renew", _SETTINGS)
SIGNATURE_HEADER = "X-K1s-Signature"
_LARGEST_BODY = 64 * 1024
# Renewing takes no token: whoever sends slowly is cut off.
_BODY_SECONDS = 10.0
_MOST_ADDRESSES = 16
_LONGEST_LABEL = 63


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
        self._keys = NodeKeys(informers)

    async def handle(self, request: Request) -> Answer:
        """Never raises for a bad request: an ApiError becomes its Status."""
        try:
            answer = await self._route(request)
        except ApiError as error:
            user = request.context.get("user")
            if user is not None:  # of strangers only the audit log speaks: they could fill this one
                log.warning("%s from %s was refused: %s", user.name, request.remote, error.message)
            answer = Response(error.code, orjson.dumps(error.status()))
        answer.headers.append(("Date", formatdate(self._clock.now(), usegmt=True)))
        return answer

    async def _route(self, request: Request) -> Response:
        if request.path not in PATHS:
            raise path_not_found()
        if request.method != ("GET" if request.path in ("/cacerts", _SETTINGS) else "POST"):
            raise method_not_allowed()
        if request.path == "/cacerts":
            return Response(200, self._certificates.server_ca_pem, "application/x-pem-file")
        await self._nodes.synced()  # a server that is starting knows no tokens and no names yet
        if request.path == _SETTINGS:
            self._check_node(request)
            return Response(200, orjson.dumps(self._settings()))
        if request.path == "/v1-k1s/join":
            # Before the body is read: strangers get to send a header, no more.
            user = self._check_token(request)
            return await self._join(await _body(request), user)
        return await self._renew(request, await _body(request))

    def _check_token(self, request: Request) -> UserInfo:
        kind, _, value = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer":
            raise unauthorized()
        user = self._tokens.check(value.strip())
        request.context["user"] = user  # for the audit log
        return user

    def _check_node(self, request: Request) -> None:
        peer = request.peer
        if peer is None or peer.organizations != ("system:nodes",):
            raise unauthorized()
        name = peer.common_name.removeprefix("system:node:")
        request.context["user"] = UserInfo(peer.common_name, peer.organizations)
        self._keys.require(name, peer.key_fingerprint)

    def _settings(self) -> dict[str, str]:
        config = self._config
        return {
            "clusterCIDR": config.cluster_cidr,
            "serviceCIDR": config.service_cidr,
            "clusterDNS": config.cluster_dns,
            "clusterDomain": config.cluster_domain,
            "networkBackend": config.network_backend,
        }

    async def _join(self, raw: bytes, user: UserInfo) -> Response:
        body = _parsed(raw)
        name = _node_name(body)
        await self._claim(name, _csr(body, "clientRequest").key_fingerprint)
        answer = self._issue(name, body)
        await self._nodes.synced()  # else the node's first request may come before its record is seen
        log.info("node %s joined by %s", name, user.name)
        return answer

    async def _renew(self, request: Request, raw: bytes) -> Response:
        body = _parsed(raw)
        name, certificate = _node_name(body), _text(body, "certificate").encode()
        try:
            signature = base64.b64decode(request.headers.get(SIGNATURE_HEADER, ""), validate=True)
            read = pki.read_certificate(certificate)
            good = pki.signed_by(certificate, self._certificates.client_ca_pem) and pki.verify(certificate, raw, signature)
        except ValueError as error:  # PkiError and binascii.Error are some
            raise _not_its_owner() from error
        if not good or (read.subject.common_name, read.subject.organizations) != (f"system:node:{name}", ("system:nodes",)):
            raise _not_its_owner()
        if _csr(body, "clientRequest").key_fingerprint != read.key_fingerprint:
            raise bad_request("a renewed certificate keeps its key")
        request.context["user"] = UserInfo(read.subject.common_name, read.subject.organizations)
        self._keys.require(name, read.key_fingerprint)
        answer = self._issue(name, body)
        log.info("certificates of node %s renewed", name)
        return answer

    async def _claim(self, name: str, fingerprint: str) -> None:
        """Give the name to this key. Raises 403 if it is another's, 409 or 404 if somebody else changed the record meanwhile."""
        resource = builtin("Secret")
        try:
            found = await self._client.get(resource, node_identity.record_name(name), node_identity.NAMESPACE)
        except ApiError as error:
            if error.reason != "NotFound":
                raise
            await self._client.create(resource, node_identity.new_record(name, fingerprint), node_identity.NAMESPACE)
            return
        present = self._nodes.get(name) is not None
        # Its Node was there and has gone: the name is about to be freed.
        going = bool(node_identity.node_uid(found)) and not present
        if node_identity.fingerprint_of(found) and not going:
            if not node_identity.belongs_to(found, fingerprint):
                raise _taken(name, present)
            return
        await self._client.update(resource, {**found, "data": node_identity.claimed(found, fingerprint)})

    def _issue(self, name: str, body: dict[str, Any]) -> Response:
        now = self._clock.now()
        client = pki.Subject(f"system:node:{name}", ("system:nodes",))
        serving = pki.Subject(client.common_name, client.organizations, (name, *_addresses(body)))
        _csr(body, "servingRequest")
        certificates = self._certificates
        answer = {
            "clientCertificate": _issued(certificates.ca("client-ca"), body, "clientRequest", client, "client", now),
            "servingCertificate": _issued(certificates.ca("kubelet-ca"), body, "servingRequest", serving, "server", now),
            "serverCA": certificates.server_ca_pem.decode(),
            "clientCA": certificates.client_ca_pem.decode(),
            "settings": self._settings(),
        }
        return Response(200, orjson.dumps(answer), headers=[("Cache-Control", "no-store")])


def _issued(ca: pki.Pair, body: dict[str, Any], key: str, subject: pki.Subject, usage: str, now: float) -> str:
    return pki.issue_for_csr(ca, _text(body, key).encode(), subject, usage=usage, now=now).decode()


async def _body(request: Request) -> bytes:
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            return await request.body.read(_LARGEST_BODY)
    except BodyTooLarge:
        raise request_entity_too_large(f"limit is {_LARGEST_BODY}") from None
    except TimeoutError:
        raise ApiError(408, "Timeout", f"the body did not come within {_BODY_SECONDS:.0f} s") from None


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
    if any(len(label) > _LONGEST_LABEL for label in name.split(".")):
        faults = [f"must have no more than {_LONGEST_LABEL} characters between its dots"]  # else TLS cannot ask for it
    if faults:
        raise bad_request(f"node name {name!r}: {faults[0]}")
    if _is_address(name):
        # Its serving certificate is checked against this name; addresses in it are for every node to choose.
        raise bad_request(f"node name {name!r}: must not be an IP address (see the agent's --node-name)")
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


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _not_its_owner() -> ApiError:
    message = "the certificate is not of this cluster, or its owner does not show it: join again, with a token"
    return ApiError(401, "Unauthorized", message)


def _taken(name: str, present: bool) -> ApiError:
    how = f"k1s node forget {name}" + (f" (or: kubectl delete node {name})" if present else "")
    message = f'the name "{name}" belongs to another machine; if this one takes its place, run on the server: {how}'
    return ApiError(403, "Forbidden", message)
