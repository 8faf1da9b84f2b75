"""Which objects a selector matches, remembered: the same selector asks again, and little has changed meanwhile.

Owns: Selected, one per resource cache. Called by: resource_cache. Never does: work while nobody asks.

A remembered answer is a set of keys and the revision it is true for; the changes since are taken from the cache's ring. Bounds:
REMEMBERED selectors, least recently used; an answer with more than a quarter of all objects is not worth it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from k1s.server.apiserver.entries import Change
from k1s.server.apiserver.selection import Selection

REMEMBERED = 8
# Below this a look at every object is as fast.
_FEW = 200


class Selected:
    def __init__(self) -> None:
        self._answers: OrderedDict[tuple[str, ...], tuple[int, set[str]]] = OrderedDict()

    def forget(self) -> None:
        self._answers.clear()

    def known(self, selection: Selection, revision: int, since: Iterable[Change], floor: int) -> set[str] | None:
        """The keys as of `revision`; `since` are all changes after `floor`, the newest first. None: look at the objects."""
        found = self._answers.get(selection.identity)
        if found is None or found[0] < floor:
            return None
        at, keys = found
        if at < revision:
            changes = []
            for change in since:
                if change.revision <= at:
                    break
                changes.append(change)
            for change in reversed(changes):
                key = change.entry.key
                if change.type != "DELETED" and selection.matches(change.entry):
                    keys.add(key)
                else:
                    keys.discard(key)
            self._answers[selection.identity] = (revision, keys)
        self._answers.move_to_end(selection.identity)
        return keys

    def learn(self, selection: Selection, revision: int, keys: set[str], total: int) -> None:
        if total < _FEW or len(keys) * 4 > total:
            return
        self._answers[selection.identity] = (revision, keys)
        while len(self._answers) > REMEMBERED:
            self._answers.popitem(last=False)
