"""What extension API servers serve, for controllers that must reach every object.

Owns: remote_rows (namespaced kinds of aggregated APIs, asked for when needed). Called by: namespace. Never does: watch them.
Source: upstream's ServerPreferredNamespacedResources, which names groups that could not be asked and goes on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from k1s.api.catalog import Resource
from k1s.api.errors import ApiError
from k1s.api.meta import condition
from k1s.client.interface import Client

Object = dict[str, Any]

_NEEDED = frozenset(("list", "delete"))


async def remote_rows(client: Client, services: Iterable[Object]) -> tuple[list[Resource], list[str]]:
    """Namespaced resources of the APIServices that another server serves, and `group/version: why` of those that are silent."""
    rows: dict[tuple[str, str], Resource] = {}
    failures: list[str] = []
    for service in sorted(services, key=lambda s: str(s["metadata"]["name"])):
        spec = service.get("spec") or {}
        if not spec.get("service"):
            continue
        where = f"{spec.get('group') or ''}/{spec.get('version') or ''}"
        available = condition(service, "Available")
        if available is None or available.get("status") != "True":
            failures.append(f"{where}: stale GroupVersion discovery: {where}")
            continue
        try:
            found = orjson.loads(await client.raw("GET", f"/apis/{where}"))
        except (ApiError, orjson.JSONDecodeError) as error:
            failures.append(f"{where}: {error}")
            continue
        for row in _namespaced(found):
            group, version = where.split("/")
            made = Resource(group, version, row["kind"], row["name"], True, tuple(row["verbs"]))
            rows.setdefault((group, made.plural), made)  # other versions show the same objects
    return list(rows.values()), failures


def _namespaced(found: Any) -> list[Object]:
    rows = found.get("resources") if isinstance(found, dict) else None
    return [
        row
        for row in rows or ()
        if row.get("namespaced")
        and "/" not in row.get("name", "/")
        and row.get("kind")
        and set(row.get("verbs") or ()) >= _NEEDED
    ]
