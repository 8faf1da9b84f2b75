"""How a webhook is reached: an https URL, or a Service by the addresses of its endpoints.

Owns: Caller. Called by: steps, conversion of custom resources. Never does: know what is said.
Bounds: TLS contexts are kept for MAX_CONTEXTS certificate bundles (the oldest goes); connections as outgoing.py keeps them.
"""

from __future__ import annotations

import base64
import binascii
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from k1s.client.interface import InformerFactory
from k1s.server.apiserver.forward import Connect, Target
from k1s.server.apiserver.outgoing import CallFailed, Outgoing
from k1s.server.apiserver.services import NoRoute, ServiceResolver

__all__ = ["CallFailed", "Caller"]

Object = Mapping[str, Any]

MAX_CONTEXTS = 64
_SHOWN = 200


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
        if answer.status != 200:
            text = answer.body[:_SHOWN].decode(errors="replace").strip()
            raise CallFailed(text or f"the server responded with the status code {answer.status} but did not return more details")
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
