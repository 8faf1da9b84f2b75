"""httpGet and tcpSocket actions, for probes and hooks.

Owns: one plain HTTP/1.1 GET and one TCP connect. Called by: probes, hooks. Never does: verify certificates (kubelet does not
either: these go to the pod itself), follow redirects to another host (such a 3xx counts as success), read more of a body
than LIMIT, follow more than REDIRECTS.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.parse import urljoin, urlsplit

LIMIT = 10 * 1024
REDIRECTS = 10


class ActionFailed(Exception):
    """The check did not succeed; the message is what the Unhealthy event says."""


def port_number(container: Mapping[str, Any], port: int | str) -> int:
    """A port by number or by the name of a container port. Raises ActionFailed."""
    if isinstance(port, int):
        return port
    for candidate in container.get("ports") or []:
        if candidate.get("name") == port:
            return int(candidate["containerPort"])
    if port.isdigit():
        return int(port)
    raise ActionFailed(f'couldn\'t find port: "{port}"')


async def http_get(
    action: Mapping[str, Any], container: Mapping[str, Any], host: str, timeout: float, agent: str, *, any_status: bool = False
) -> str:
    """Raises ActionFailed unless the status is 2xx or 3xx (or `any_status` will do); returns the beginning of the body."""
    target = action.get("host") or host
    port = port_number(container, action["port"])
    tls = (action.get("scheme") or "HTTP").upper() == "HTTPS"
    path = action.get("path") or "/"
    if not path.startswith("/"):
        path = "/" + path
    shown = f"[{target}]" if ":" in target else target
    url = f"{'https' if tls else 'http'}://{shown}:{port}{path}"
    headers = {"Host": f"{shown}:{port}", "User-Agent": agent, "Accept": "*/*", "Connection": "close"}
    for header in action.get("httpHeaders") or []:
        existing = next((name for name in headers if name.lower() == header["name"].lower()), header["name"])
        headers[existing] = header.get("value") or ""
    try:
        async with asyncio.timeout(timeout):
            for _ in range(REDIRECTS):
                request = f"GET {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items() if v) + "\r\n"
                status, location, body = await _exchange(target, port, tls, request.encode())
                following = urlsplit(urljoin(url, location)) if 300 <= status < 400 and location else None
                if following is None or following.hostname != target.lower() or following.scheme not in ("http", "https"):
                    break
                tls = following.scheme == "https"
                port = following.port or (443 if tls else 80)
                url, headers["Host"] = following.geturl(), f"{shown}:{port}"
                path = (following.path or "/") + (f"?{following.query}" if following.query else "")
            else:
                raise ActionFailed(f'Get "{url}": stopped after {REDIRECTS} redirects')
    except TimeoutError as error:
        raise ActionFailed(f'Get "{url}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)') from error
    except (OSError, asyncio.IncompleteReadError, ValueError) as error:
        raise ActionFailed(f'Get "{url}": {_plain(error, target, port)}') from error
    if not any_status and not 200 <= status < 400:
        raise ActionFailed(f"HTTP probe failed with statuscode: {status}")
    return body


async def tcp_connect(action: Mapping[str, Any], container: Mapping[str, Any], host: str, timeout: float) -> None:
    target, port = action.get("host") or host, port_number(container, action["port"])
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(target, port)
    except TimeoutError as error:
        raise ActionFailed(f"dial tcp {target}:{port}: i/o timeout") from error
    except OSError as error:
        raise ActionFailed(_plain(error, target, port)) from error
    writer.close()


async def _exchange(host: str, port: int, tls: bool, request: bytes) -> tuple[int, str, str]:
    """(status, Location, beginning of the body)"""
    reader, writer = await asyncio.open_connection(host, port, ssl=_no_verification() if tls else None, limit=64 * 1024)
    try:
        writer.write(request)
        await writer.drain()
        line = await reader.readline()
        words = line.split(None, 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/"):
            raise ValueError(f"malformed HTTP response {line[:40]!r}")
        location = ""
        while header := (await reader.readline()).strip():
            name, _, value = header.partition(b":")
            if name.lower() == b"location":
                location = value.strip().decode(errors="replace")
        return int(words[1]), location, (await reader.read(LIMIT)).decode(errors="replace")
    finally:
        writer.close()


@cache
def _no_verification() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _plain(error: Exception, host: str, port: int) -> str:
    if isinstance(error, ConnectionRefusedError):
        return f"dial tcp {host}:{port}: connect: connection refused"
    if isinstance(error, OSError) and error.strerror:
        return f"dial tcp {host}:{port}: connect: {error.strerror.lower()}"
    return str(error) or type(error).__name__
