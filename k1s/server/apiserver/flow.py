"""How many requests may run at once.

Owns: Flow: two counters, one for requests that read and one for those that write. Called by: app.
Never does: queue. A request above the limit is refused (429, Retry-After 1); watches, streams and calls from inside are not
counted.
"""

from __future__ import annotations

from k1s.api.errors import too_many_requests

# kube-apiserver's --max-requests-inflight and --max-mutating-requests-inflight.
MAX_READS = 400
MAX_WRITES = 200

_READS = ("get", "list", "head", "options", "proxy")


class Flow:
    def __init__(self, max_reads: int = MAX_READS, max_writes: int = MAX_WRITES) -> None:
        self.max_reads, self.max_writes = max_reads, max_writes
        self.reads = self.writes = 0

    def enter(self, verb: str) -> bool:
        """Count a request in; returns what `leave` must be told. Raises ApiError 429."""
        if verb in _READS:
            if self.reads >= self.max_reads:
                raise too_many_requests("Too many requests, please try again later.")
            self.reads += 1
            return True
        if self.writes >= self.max_writes:
            raise too_many_requests("Too many requests, please try again later.")
        self.writes += 1
        return False

    def leave(self, read: bool) -> None:
        if read:
            self.reads -= 1
        else:
            self.writes -= 1
