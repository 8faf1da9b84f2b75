"""What a Store can answer besides success.

StoreError
├── KeyExists          create of a key that has a current value
├── KeyNotFound        update or delete of a key without one
├── RevisionConflict   the key's revision is not the expected one; carries the current KeyValue
├── Expired            the revision asked for is below the compacted one
├── FutureRevision     the revision asked for has not happened yet
├── StoreFull          the disk or the size cap is reached; nothing was written
├── Corrupt            the file is not a database of ours, or damaged
└── Closed             the store is shut

Owns: these sentinels; each backend translates its driver's errors into them once. Never does: logging.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from k1s.storage.interface import KeyValue


class StoreError(Exception):
    """Any refusal of a Store."""


class KeyExists(StoreError):
    def __init__(self, key: str) -> None:
        super().__init__(f"{key} exists")
        self.key = key


class KeyNotFound(StoreError):
    def __init__(self, key: str) -> None:
        super().__init__(f"{key} does not exist")
        self.key = key


class RevisionConflict(StoreError):
    def __init__(self, current: KeyValue, expected: int) -> None:
        super().__init__(f"{current.key} is at revision {current.revision}, not {expected}")
        self.current = current
        self.expected = expected


class Expired(StoreError):
    def __init__(self, revision: int, compacted: int) -> None:
        super().__init__(f"revision {revision} is compacted (oldest kept: {compacted})")
        self.revision = revision
        self.compacted = compacted


class FutureRevision(StoreError):
    def __init__(self, revision: int, current: int) -> None:
        super().__init__(f"revision {revision} is ahead of the current one, {current}")
        self.revision = revision
        self.current = current


class StoreFull(StoreError):
    """Nothing was written; reads still work."""


class Corrupt(StoreError):
    """The file cannot be used; the message says what to do."""


class Closed(StoreError):
    """The store is not open."""
