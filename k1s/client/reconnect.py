"""When a watch that ended is begun anew.

Owns: Reconnect, its delays and its words in the log. Called by: client/informer, client/projection, agent/volumes/objects.
Never does: watch.

One that was healthy goes on at once, and so does one that broke or whose version is gone: another server may be there, or the
same one without its past. What fails again waits RECONNECT's delays; while no server can be reached, until one is back.
"""

from __future__ import annotations

import logging

from k1s.api.errors import ApiError
from k1s.base.backoff import Backoff
from k1s.base.clock import Clock
from k1s.client.interface import Client
from k1s.client.servers import ServerAway, TransportError

log = logging.getLogger("k1s.client.watch")

RECONNECT = Backoff(0.8, 30.0, jitter=1.0)
# A watch that lasted this long was a healthy one.
HEALTHY_SECONDS = 5.0
# So often in a row a watch that broke is begun anew without a delay.
AT_ONCE = 2


class Reconnect:
    """One watch. `begin` before each try, `ended` after it. `name` is for the log."""

    def __init__(self, client: Client, clock: Clock, name: str) -> None:
        self._client, self._clock, self._name = client, clock, name
        self._began = 0.0
        self._failures = self._again = 0

    def begin(self) -> None:
        self._began = self._clock.monotonic()

    async def ended(self, error: ApiError | None = None, *, watching: bool = True) -> bool:
        """Return when the next try is due. True: what was seen is of no use any more, list again."""
        expired = error is not None and (error.code == 410 or is_ahead(error))
        if isinstance(error, ServerAway):
            log.debug("%s: %s", self._name, error)
            # No fault of the server that is back one day, so nothing is counted: the pause ends then.
            await self._client.pause(RECONNECT.maximum)
            return False
        if self._clock.monotonic() - self._began >= HEALTHY_SECONDS:
            self._failures = self._again = 0
            if error is None:
                return False
        if error is not None:
            if expired or (watching and isinstance(error, TransportError)):
                log.debug("%s: the watch broke: %s", self._name, error)
                self._again += 1
                if self._again <= AT_ONCE:
                    return expired
            else:
                level = logging.WARNING if self._failures == 0 else logging.DEBUG
                log.log(level, "%s: cannot %s: %s", self._name, "watch" if watching else "list", error)
        self._failures += 1
        await self._client.pause(RECONNECT.delay(self._failures))
        return expired


def is_ahead(error: ApiError) -> bool:
    """We have seen versions that the server has not: its database was put back to an older state."""
    causes = (error.details or {}).get("causes") or []
    return any(cause.get("reason") == "ResourceVersionTooLarge" for cause in causes)
