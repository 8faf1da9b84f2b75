"""Calls to the server that a kubeconfig names: authentication and authorization webhooks are configured that way.

Owns: KubeconfigCall: one POST of a review and its answer. Called by: authn/webhook, authz/webhook.
Never does: know what is asked, keep answers. Raises CallFailed; a server's 429, 500, 503 and lost connections are tried again,
TRIES times in all, 0.5 s and more apart (upstream's webhook.DefaultRetryBackoff, within the caller's time).
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from k1s.base.clock import Clock
from k1s.client import kubeconfig
from k1s.server.apiserver.config_file import ConfigFileError
from k1s.server.apiserver.forward import Target
from k1s.server.apiserver.outgoing import CallFailed, Outgoing

Object = dict[str, Any]

TRIES = 3
_FIRST_PAUSE = 0.5
_MAX_ANSWER = 1024 * 1024
_AGAIN = (429, 500, 502, 503, 504)


class KubeconfigCall:
    """`path`: the kubeconfig. Raises ConfigFileError at construction."""

    def __init__(self, path: Path, outgoing: Outgoing, clock: Clock) -> None:
        try:
            self._credentials = kubeconfig.read(path)
        except kubeconfig.KubeconfigError as error:
            raise ConfigFileError(str(error)) from error
        parts = urlsplit(self._credentials.server)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigFileError(f"{path}: the server must be an http or https URL")
        self._outgoing, self._clock = outgoing, clock
        headers = [("Authorization", f"Bearer {self._credentials.token}")] if self._credentials.token else []
        self._target = Target(
            parts.hostname,
            parts.port or (443 if parts.scheme == "https" else 80),
            (parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
            _context(path, self._credentials) if parts.scheme == "https" else None,
            parts.hostname,
            tuple(headers),
        )

    async def post(self, review: Object, seconds: float) -> Object:
        """The answered review. Raises CallFailed."""
        body, pause = orjson.dumps(review), _FIRST_PAUSE
        for left in range(TRIES - 1, -1, -1):
            try:
                return await self._once(body, review["kind"], seconds)
            except _Again as error:
                if not left:
                    raise CallFailed(str(error)) from error
            await self._clock.sleep(pause)
            pause *= 1.5
        raise AssertionError("unreachable")

    async def _once(self, body: bytes, kind: str, seconds: float) -> Object:
        try:
            answer = await self._outgoing.call(self._target, method="POST", body=body, seconds=seconds, limit=_MAX_ANSWER)
        except CallFailed as error:
            raise _Again(f'Post "{self._credentials.server}": {error}') from error
        if answer.status in _AGAIN:
            raise _Again(f"the server responded with the status code {answer.status}")
        if not 200 <= answer.status < 300:
            raise CallFailed(f"the server responded with the status code {answer.status}")
        try:
            found = orjson.loads(answer.body)
        except orjson.JSONDecodeError as error:
            raise CallFailed("the answer is no JSON") from error
        if not isinstance(found, dict) or found.get("kind") != kind or not isinstance(found.get("status"), dict):
            raise CallFailed(f"the answer is no {kind} with a status")
        return found


class _Again(CallFailed):
    """Worth another try."""


def _context(path: Path, credentials: kubeconfig.Credentials) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # Go trusts whatever certificate it is given
    try:
        if credentials.insecure:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        elif credentials.ca:
            context.load_verify_locations(cadata=credentials.ca.decode())
        else:
            context.load_default_certs()
        if credentials.certificate:
            _load_pair(context, credentials.certificate + b"\n" + credentials.key)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise ConfigFileError(f"{path}: its certificates cannot be used: {error}") from error
    return context


def _load_pair(context: ssl.SSLContext, pem: bytes) -> None:
    """From memory, which the ssl module cannot do: a key in the file is not to lie about in a second one."""
    handle = os.memfd_create("client", os.MFD_CLOEXEC)
    try:
        os.write(handle, pem)
        context.load_cert_chain(f"/proc/self/fd/{handle}")
    finally:
        os.close(handle)
