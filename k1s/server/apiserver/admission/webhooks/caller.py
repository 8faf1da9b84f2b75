"""How a webhook is reached: an https URL, or a Service by the addresses of its endpoints.

Owns: Caller. Called by: steps, conversion of custom resources. Never does: know what is said.
Bounds: TLS contexts are kept for MAX_CONTEXTS certificate bundles (the oldest goes); connections as outgoing.py keeps them.
"""

from __future__ import annotations

import base64
import binascii
import json
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from k1s.client.interface import InformerFactory
from k1s.server.apiserver.forward import Connect, Target
from k1s.server.apiserver.outgoing import Answered, CallFailed, Outgoing
from k1s.server.apiserver.services import NoRoute, ServiceResolver

__all__ = ["CallFailed", "Caller"]

Object = Mapping[str, Any]

MAX_CONTEXTS = 64
_SHOWN = 200


# What client-go says of an answer that is no success and no Status (NewGenericServerResponse).
_SAID = {
    400: "the server rejected our request for an unknown reason",
    401: "the server has asked for the client to provide credentials",
    404: "the server could not find the requested resource",
    405: "the server does not allow this method on the requested resource",
    409: "the server reported a conflict",
    422: "the server rejected our request due to an error in our request",
    429: "the server has received too many requests and has asked us to try again later",
    503: "the server is currently unable to handle the request",
    504: "the server was unable to return a response in the time allotted, but may still be processing the request",
}


def _refusal(answer: Answered) -> str:
    text = answer.body[:_SHOWN].decode(errors="replace").strip()
    if answer.headers.get("content-type").startswith("application/json"):
        text = "unknown"
    said = _SAID.get(answer.status)
    if said is not None:
        return said
    if answer.status in (403, 406, 415):
        return text
    if answer.status >= 500:
        return f"an error on the server ({json.dumps(text)}) has prevented the request from succeeding"
    return f"the server responded with the status code {answer.status} but did not return more information"


class Caller:
    def __init__(self, informers: InformerFactory, connect: Connect) -> None:
        self._resolver = ServiceResolver(informers)
        self._outgoing = Outgoing(connect)
        self._contexts: dict[str, ssl.SSLContext] = {}

    async def post(self, config: Object, body: bytes, seconds: float) -> bytes:
        """Send `body` to a clientConfig. Raises CallFailed, worded as Go's client does."""
        query = f"?timeout={seconds:g}s"
        if config.get("url"):
            parts = urlsplit(config["url"])
            host, port, path = parts.hostname or "", parts.port or 443, parts.path or "/"
            name, shown = host, f'Post "{config["url"]}{query}"'
        else:
            service = config["service"]
            port, path = int(service.get("port") or 443), service.get("path") or "/"
            name = f"{service['name']}.{service['namespace']}.svc"
            shown = f'Post "https://{name}:{port}{path}{query}"'
        tls = self._tls(config)
        try:
            if not config.get("url"):
                host, port = self._endpoint(config["service"], port)
            answer = await self._outgoing.call(
                Target(host, port, path + query, tls, name), method="POST", body=body, seconds=seconds
            )
        except CallFailed as error:
            raise CallFailed(f"{shown}: {error}") from error
        if not 200 <= answer.status <= 206:
            raise CallFailed(_refusal(answer))
        return answer.body

    def _endpoint(self, service: Object, port: int) -> tuple[str, int]:
        name = service["name"]
        try:
            return self._resolver.resolve(service["namespace"], name, port)
        except NoRoute as error:
            if error.reason == "ServiceNotFound":
                raise CallFailed(f'service "{name}" not found') from error
            if error.reason == "ServicePortError":
                raise CallFailed(f'no service port {port} found for service "{name}"') from error
            raise CallFailed(f'no endpoints available for service "{name}"') from error

    def _tls(self, config: Object) -> ssl.SSLContext:
        bundle = config.get("caBundle") or ""
        context = self._contexts.get(bundle)
        if context is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            # A bundle may hold the server's own certificate: Go trusts it then.
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            try:
                if bundle:
                    context.load_verify_locations(cadata=base64.b64decode(bundle).decode())
                else:
                    context.load_default_certs()
            except (ssl.SSLError, binascii.Error, ValueError) as error:
                raise CallFailed(f"unable to load root certificates: {error}") from error
            if len(self._contexts) >= MAX_CONTEXTS:
                del self._contexts[next(iter(self._contexts))]
            self._contexts[bundle] = context
        return context
