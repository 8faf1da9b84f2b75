"""Stored custom resources get the defaults that their definition has now, as if they were read from the store anew.

Owns: complete. Called by: crds, when a definition's schema has changed or its objects were loaded. Never does: write.
Source: the CustomResourceDefinition documentation, "Defaulting": when objects are read, with the storage version's defaults.
"""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from k1s.api.defaults.custom import apply_schema_defaults
from k1s.server.apiserver.resource_cache import ResourceCache

Object = dict[str, Any]
# So many objects are looked at before others get their turn.
_AT_ONCE = 100


def has_defaults(schema: Any) -> bool:
    """Whether any part of a schema has a default (or a property of that name, which costs a look)."""
    if isinstance(schema, dict):
        return "default" in schema or any(has_defaults(value) for value in schema.values())
    return isinstance(schema, list) and any(has_defaults(value) for value in schema)


async def complete(cache: ResourceCache, schema: Object) -> None:
    """Fill in, for the objects that lie there in the storage version, what `schema` has defaults for."""
    if not has_defaults(schema):
        return
    for number, entry in enumerate(cache.entries(), 1):
        if entry.raw.startswith(cache.head):
            obj = entry.fresh()
            apply_schema_defaults(obj, schema)
            raw = orjson.dumps(obj)
            if raw != entry.raw:
                entry.raw = raw
                entry.retire()
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
