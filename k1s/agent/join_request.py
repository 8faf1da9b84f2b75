"""One exchange with the join routes of a server: what it answers, and what it means when it does not.

Owns: server_urls, fetch_ca, post, and the errors of joining. Called by: agent/join. Never does: try again, keep files.
Standard library only, blocking: joining comes before everything else, and happens in a thread.
"""

from __future__ import annotations

import http.client
import ssl
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

_TIMEOUT = 15.0
_LARGEST_ANSWER = 256 * 1024
_PORT = 6443
# X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
_NOT_YET_VALID, _EXPIRED = 9, 10
# X509_V_ERR_: CERT_SIGNATURE_FAILURE, DEPTH_ZERO_SELF_SIGNED_CERT, SELF_SIGNED_CERT_IN_CHAIN, UNABLE_TO_GET_ISSUER_CERT (also
# LOCALLY), UNABLE_TO_VERIFY_LEAF_SIGNATURE
_UNKNOWN_CA = (2, 7, 18, 19, 20, 21)
# Clocks that are this far apart are worth a word.
CLOCK_TOLERANCE = 300.0


class JoinError(Exception):
    """The server will not have this machine, or is not the server that the token is for. The message says what to do."""


class Refused(JoinError):
    """The server does not accept the credential that it was shown."""


class Unreachable(Exception):
    """No answer, or one that says: later."""


class ClockWrong(Unreachable):
    """The server's certificate does not hold at this time: later it may, when the clock is right."""


@dataclass(frozen=True, slots=True)
class Reply:
    """`server_time`: what the server's clock said, 0 if it did not say. Nobody vouches for it: it is for messages."""

    body: bytes
    server_time: float


def server_urls(text: str) -> list[str]:
    """The URLs in full, of one server or several (comma-separated). Raises JoinError."""
    return list(dict.fromkeys(_full(part.strip()) for part in text.split(",") if part.strip()))


def _full(text: str) -> str:
    try:
        url = urlsplit(text)
        host, port = url.hostname, url.port or _PORT
    except ValueError as error:
        raise JoinError(f"--join {text!r} is not a URL such as https://server:6443: {error}") from error
    if url.scheme != "https" or not host or url.path not in ("", "/") or url.query or url.username:
        raise JoinError(f"--join must be an https URL such as https://server:6443, not {text!r}")
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def fetch_ca(server: str) -> Reply:
    """The server's CA, from a server that nobody vouches for yet: the caller compares its hash."""
    # Not create_default_context: it would read the system's CA bundle (100 ms and 3 MB).
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
    return _request(server, "GET", "/cacerts", b"", {}, blind)


def post(server: str, path: str, body: bytes, headers: dict[str, str], ca: bytes, now: float) -> dict[str, Any]:
    """The answer of a server of this CA. `now`: this machine's time. Raises JoinError, Unreachable."""
    context = ssl.create_default_context(cadata=ca.decode())
    try:
        answer = _request(server, "POST", path, body, {**headers, "Content-Type": "application/json"}, context)
    except ssl.SSLCertVerificationError as error:
        raise _explained(server, error, now) from error
    parsed = orjson.loads(answer.body)
    if not isinstance(parsed, dict):
        raise JoinError("the server's answer is not what a k1s server says")
    return parsed


def get(server: str, path: str, ca: Path, identity: tuple[Path, Path], timeout: float, now: float) -> Reply:
    """The answer to the node that this machine is. Raises JoinError, Unreachable."""
    context = ssl.create_default_context(cafile=str(ca))
    context.load_cert_chain(*identity)
    try:
        return _request(server, "GET", path, b"", {}, context, timeout)
    except ssl.SSLCertVerificationError as error:
        raise _explained(server, error, now) from error


def clock_fault(server_time: float, now: float) -> str:
    """What is wrong with this machine's clock, "" if it agrees with the server's."""
    if not server_time or abs(now - server_time) < CLOCK_TOLERANCE:
        return ""
    minutes = round(abs(now - server_time) / 60)
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    length = " ".join(f"{n} {unit}" for n, unit in ((days, "d"), (hours, "h"), (minutes, "min")) if n)
    side = "ahead of" if now > server_time else "behind"
    return f"this machine's clock is {length} {side} the server's: set the clock (timedatectl set-ntp true)"


def _explained(server: str, error: ssl.SSLCertVerificationError, now: float) -> Exception:
    if error.verify_code in _UNKNOWN_CA:
        return JoinError(
            f"{server}: its certificate does not hold: it is of another cluster (CA) than this machine knows; join with its token"
        )
    if error.verify_code not in (_NOT_YET_VALID, _EXPIRED):
        return JoinError(f"{server}: its certificate does not hold: {error.verify_message} (see the server's --tls-san)")
    fault = clock_fault(fetch_ca(server).server_time, now)
    state = "is not valid yet" if error.verify_code == _NOT_YET_VALID else "has expired"
    return ClockWrong(f"its certificate {state}: {fault or 'is the clock of the server right?'}")


def _request(
    server: str,
    method: str,
    path: str,
    body: bytes,
    headers: dict[str, str],
    context: ssl.SSLContext,
    timeout: float = _TIMEOUT,
) -> Reply:
    """One exchange. Raises Unreachable when trying again may help, JoinError when not."""
    url = urlsplit(server)
    connection = http.client.HTTPSConnection(url.hostname or "", url.port or _PORT, timeout=timeout, context=context)
    try:
        connection.request(method, path, body=body or None, headers=headers)
        response = connection.getresponse()
        content = response.read(_LARGEST_ANSWER)
    except ssl.SSLCertVerificationError:
        raise
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(str(error) or type(error).__name__) from error
    finally:
        connection.close()
    if response.status == 200:
        return Reply(content, _date(response.headers.get("Date", "")))
    message = _message(content) or response.reason
    if response.status == 401:
        raise Refused(f"{server}: {message}")
    # 404: a server that is still starting; 409: somebody else changed the same record
    if response.status in (404, 409, 429) or response.status >= 500:
        raise Unreachable(f"{response.status} {message}")
    raise JoinError(f"{server}: {message}")


def _date(text: str) -> float:
    try:
        return parsedate_to_datetime(text).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return 0.0


def _message(content: bytes) -> str:
    try:
        return str(orjson.loads(content).get("message") or "")
    except (orjson.JSONDecodeError, AttributeError):
        return ""
