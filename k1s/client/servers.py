"""Which server a client talks to, and what it is when there is none.

Owns: the Servers protocol, OneServer, TransportError, ServerAway, `loudness`. Called by: client/transport, whoever logs failed
requests; implemented by agent/load_balancer. Never does: I/O.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from k1s.api.errors import ApiError


class TransportError(ApiError):
    """The server could not be reached, or the connection broke before the answer was complete."""

    def __init__(self, message: str) -> None:
        super().__init__(503, "ServiceUnavailable", message)


class ServerAway(TransportError):
    """No server can be reached; whoever chooses among them has said so in the log, and says when one is back."""


def loudness(error: ApiError, level: int = logging.WARNING) -> int:
    """The level to log a failed request at: servers that are away are reported once, not by everyone who asks them."""
    return logging.DEBUG if isinstance(error, ServerAway) else level


class Servers(Protocol):
    """Which server requests go to: agent/load_balancer."""

    def choose(self) -> str:
        """The URL to use now. Raises ServerAway."""

    def worked(self, url: str) -> None: ...

    def failed(self, url: str, why: str) -> None:
        """It refused or timed out."""

    async def pause(self, seconds: float) -> None:
        """Wait before another try: so long, or until servers that were away are back."""


class OneServer:
    """Nothing to choose, and nobody who would say when it is back."""

    def __init__(self, url: str) -> None:
        self._url = url

    def choose(self) -> str:
        return self._url

    def worked(self, url: str) -> None:
        return None

    def failed(self, url: str, why: str) -> None:
        return None

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
