"""Persistent volumes and claims begin as Pending.

Owns: PersistentVolume, PersistentVolumeClaim. Called by: strategies/table. Never does: bind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from k1s.server.apiserver.strategies.base import Strategy

if TYPE_CHECKING:
    from k1s.server.apiserver.call import Call

Object = dict[str, Any]


class PersistentVolume(Strategy):
    returns_deleted = True

    def prepare_create(self, call: Call, obj: Object) -> None:
        obj["status"] = {"phase": "Pending"}


class PersistentVolumeClaim(Strategy):
    returns_deleted = True

    def normalize(self, obj: Object) -> None:
        """dataSource and dataSourceRef say the same thing; whoever fills one gets both."""
        spec = obj.get("spec")
        if not isinstance(spec, dict):
            return
        source, reference = spec.get("dataSource"), spec.get("dataSourceRef")
        if source and not reference:
            spec["dataSourceRef"] = dict(source)
        elif reference and not source and not reference.get("namespace"):
            spec["dataSource"] = {key: value for key, value in reference.items() if key != "namespace"}

    def prepare_create(self, call: Call, obj: Object) -> None:
        obj["status"] = {"phase": "Pending"}
