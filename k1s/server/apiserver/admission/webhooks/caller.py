"""How a webhook is reached: an https URL, or a Service by the addresses of its endpoints.

Owns: Caller. Called by: steps, conversion of custom resources. Never does: know what is said.
Bounds: TLS contexts are kept for MAX_CONTEXTS certificate bundles (the oldest goes); an answer has at most MAX_ANSWER bytes.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import random
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.base.http import Headers, MemoryBody, Request, Stream
from k1s.client.interface import InformerFactory
from k1s.server.apiserver.forward import Target, forward

Object = Mapping[str, Any]

MAX_CONTEXTS = 64
MAX_ANSWER = 8 * 1024 * 1024
_SERVICE_LABEL = "kubernetes.io/service-name"


class CallFailed(Exception):
    """The webhook could not be asked; the text is for the client."""


class Caller:
    def __init__(self, informers: InformerFactory) -> None:
        self._services = informers.informer(builtin("Service"))
        self._slices = informers.informer(builtin("EndpointSlice"))
        self._contexts: dict[str, ssl.SSLContext] = {}

    async def post(self, config: Object, body: bytes, seconds: float) -> bytes:
        """Send `body` to a clientConfig. Raises CallFailed."""
        if config.get("url"):
            parts = urlsplit(config["url"])
            host, port = parts.hostname or "", parts.port or 443
            name, path = host, (parts.path or "/")
            shown = f"{config['url']}"
        else:
            service = config["service"]
            number = int(service.get("port") or 443)
            name, path = f"{service['name']}.{service['namespace']}.svc", service.get("path") or "/"
            shown = f"https://{name}:{number}{path}"
            host, port = self._endpoint(service["namespace"], service["name"], number)
        query = f"?timeout={seconds:g}s"
        try:
            async with asyncio.timeout(seconds):
                return await self._post(Target(host, port, path + query, self._tls(config), name), body)
        except TimeoutError:
            raise CallFailed(f'Post "{shown}{query}": context deadline exceeded') from None
        except ApiError as error:
            text = error.message.removeprefix("error trying to reach service: ")
            raise CallFailed(f'Post "{shown}{query}": {text}') from error
        except (OSError, asyncio.IncompleteReadError) as error:
            raise CallFailed(f'Post "{shown}{query}": {error}') from error

    async def _post(self, target: Target, body: bytes) -> bytes:
        headers = Headers(
            (("Content-Type", "application/json"), ("Accept", "application/json"), ("Content-Length", str(len(body))))
        )
        answer = await forward(Request("POST", target.path, headers=headers, body=MemoryBody(body)), target)
        assert isinstance(answer, Stream)
        data = b""
        async for chunk in answer.chunks:
            data += chunk
            if len(data) > MAX_ANSWER:
                raise CallFailed(f"the answer is longer than {MAX_ANSWER} bytes")
        if answer.status != 200:
            raise CallFailed(f"the server responded with the status code {answer.status}: {data[:200].decode(errors='replace')}")
        return data

    def _endpoint(self, namespace: str, name: str, number: int) -> tuple[str, int]:
        service = self._services.get(name, namespace)
        if service is None:
            raise CallFailed(f'service "{name}" not found')
        port = next((p for p in service["spec"].get("ports") or () if p.get("port") == number), None)
        if port is None:
            raise CallFailed(f'no service port {number} found for service "{name}"')
        if service["spec"].get("type") == "ExternalName":
            return service["spec"]["externalName"], number
        found = [
            (endpoint["addresses"][0], int(p["port"]))
            for piece in self._slices.list(namespace)
            if (piece["metadata"].get("labels") or {}).get(_SERVICE_LABEL) == name
            for p in piece.get("ports") or ()
            if (p.get("name") or "") == (port.get("name") or "") and p.get("port")
            for endpoint in piece.get("endpoints") or ()
            if (endpoint.get("conditions") or {}).get("ready") is not False
        ]
        if not found:
            raise CallFailed(f'no endpoints available for service "{name}"')
        return random.choice(found)

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
