"""What the SQL store knows in memory.

Owns: the index, the counters, and the volatile rows that are not on disk yet. Called by: sql/writer (the only one that changes
it, together with sql/compact for the compaction marks), sql/backend (reads). Never does: I/O.

Volatile writes get their revision at once and reach the disk later, so a crash may forget them, but a revision that a client
may have seen must never be handed out twice. Therefore `ceiling` is kept on disk, in steps of CEILING_STEP: a volatile write
never gets a revision above it. A clean close sets it to the last revision; after a crash the store starts at the ceiling. Then
the revisions between `flushed` and the ceiling are the gap: a watch that resumes inside it may have seen writes that are lost,
and is told Expired, so that its client lists again.
"""

from __future__ import annotations

from k1s.storage.errors import Expired, FutureRevision
from k1s.storage.index import KeyIndex
from k1s.storage.sql import table
from k1s.storage.sql.log import Loaded
from k1s.storage.sql.table import Row

CEILING_STEP = 10_000
# As in etcd, an empty store stands at revision 1: 0 has a meaning of its own in requests.
FIRST_REVISION = 1


class State:
    """See the module docstring."""

    def __init__(self) -> None:
        self.index = KeyIndex()
        self.revision = FIRST_REVISION
        self.compacted = 0
        self.swept = 0
        self.ceiling = 0
        self.flushed = 0
        self.gap_from = 0
        self.gap_to = 0
        self.repairs: dict[str, int] = {}
        self.unflushed: dict[int, Row] = {}
        self.unflushed_bytes = 0

    def load(self, loaded: Loaded) -> None:
        """Take over what the log holds. After a crash `repairs` goes to disk with the next commit, whatever it is for:
        until then nothing volatile is accepted, since that needs a higher ceiling. So a full disk does not prevent a start.
        """
        meta = loaded.meta
        self.index.load(loaded.current)
        self.compacted = meta.get(table.COMPACTED, 0)
        self.swept = meta.get(table.SWEPT, 0)
        self.ceiling = meta.get(table.CEILING, 0)
        self.flushed = meta.get(table.FLUSHED, 0)
        self.gap_from, self.gap_to = meta.get(table.GAP_FROM, 0), meta.get(table.GAP_TO, 0)
        self.revision = max(FIRST_REVISION, loaded.last, self.ceiling, self.compacted)
        if self.ceiling <= self.flushed:
            return
        # Two crashes make one gap, from the first loss to the last: it costs a few clients a list, and needs no table.
        merged = self.gap_to > self.compacted
        self.gap_from, self.gap_to = min(self.gap_from, self.flushed) if merged else self.flushed, self.revision
        self.flushed = self.ceiling = self.revision
        self.repairs = {
            table.GAP_FROM: self.gap_from,
            table.GAP_TO: self.gap_to,
            table.FLUSHED: self.flushed,
            table.CEILING: self.ceiling,
        }

    def hold(self, row: Row) -> None:
        """Keep a volatile row until it is flushed."""
        self.unflushed[row.rev] = row
        self.unflushed_bytes += _size(row)

    def release(self, revision: int) -> None:
        row = self.unflushed.pop(revision)
        self.unflushed_bytes -= _size(row)

    def check_kept(self, revision: int, *, durable: bool = False) -> None:
        """A watch may go on from here. `durable`: of keys that are never written volatile."""
        if revision < self.compacted:
            raise Expired(revision, self.compacted)
        if not durable and self.gap_from < revision < self.gap_to:
            raise Expired(revision, self.gap_to)

    def check_readable(self, revision: int) -> None:
        """A read may ask for this."""
        if revision < self.compacted:
            raise Expired(revision, self.compacted)
        if revision > self.revision:
            raise FutureRevision(revision, self.revision)


def _size(row: Row) -> int:
    return len(row.value) + len(row.key) + 200
