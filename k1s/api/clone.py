"""A deep copy of a JSON tree, fast.

Owns: clone(). Called by: everyone who changes an object that came out of a cache. Never does: keep anything.
"""

from __future__ import annotations

from typing import Any

import orjson


def clone(obj: Any) -> Any:
    """An equal tree that shares nothing with `obj`.

    A round trip through orjson is about six times faster than copy.deepcopy and three times faster than a recursive copy.
    """
    return orjson.loads(orjson.dumps(obj))
