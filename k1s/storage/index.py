"""The current revision of every key, in memory, in byte order.

Owns: the map key -> (revision, create revision) and the sorted list of keys. Called by: sql/state, sql/plan, sql/backend.
Never does: hold values (they stay in the log; the API server's watch cache holds the bytes that are served).

A plain sorted list with bisect: an insert in the middle of 100,000 keys moves 0.4 MB, some 20 us, less than a commit costs.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from typing import NamedTuple

# Sorts after every key that starts with the prefix before it: keys are paths, no key holds this code point.
_LAST = "\U0010ffff"


class Version(NamedTuple):
    """Where a key stands: the revision of its value and of its creation."""

    revision: int
    create_revision: int


def prefix_range(prefix: str) -> tuple[str, str]:
    """Bounds `low <= key < high` of the keys under a prefix."""
    return prefix, prefix + _LAST


class KeyIndex:
    """Current versions by key, and the keys in order. Code point order of str is byte order of UTF-8."""

    def __init__(self) -> None:
        self._versions: dict[str, Version] = {}
        self._keys: list[str] = []

    def __len__(self) -> int:
        return len(self._keys)

    def load(self, versions: Iterable[tuple[str, Version]]) -> None:
        """Replace everything (at open)."""
        self._versions = dict(versions)
        self._keys = sorted(self._versions)

    def get(self, key: str) -> Version | None:
        return self._versions.get(key)

    def put(self, key: str, version: Version) -> None:
        if key not in self._versions:
            insort(self._keys, key)
        self._versions[key] = version

    def remove(self, key: str) -> None:
        if self._versions.pop(key, None) is not None:
            del self._keys[bisect_left(self._keys, key)]

    def bounds(self, prefix: str, after: str) -> tuple[int, int]:
        """Positions `start:end` of the keys under `prefix` that are greater than `after`."""
        low, high = prefix_range(prefix)
        start = bisect_left(self._keys, low)
        if after:
            start = max(start, bisect_right(self._keys, after))
        return start, max(start, bisect_left(self._keys, high))

    def slice(self, start: int, end: int) -> list[tuple[str, Version]]:
        """The keys at positions `start:end` with their versions."""
        return [(key, self._versions[key]) for key in self._keys[start:end]]

    def between(self, low: str, high: str) -> list[tuple[str, Version]]:
        """Keys with `low <= key < high`, in order."""
        return self.slice(bisect_left(self._keys, low), bisect_left(self._keys, high))
