"""Persistent volumes and claims begin as Pending.

Owns: PersistentVolume, PersistentVolumeClaim. Called by: strategies/table. Never does: bind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from k1s.server.apiserver.strategies.base import Strategy

if TYPE_CHECKING:
    from k1s.server.apiserver.call import Call

Object = dict[str, Any]

_OLD_SOURCES = (("", "PersistentVolumeClaim"), ("snapshot.storage.k8s.io", "VolumeSnapshot"))


class PersistentVolume(Strategy):
    returns_deleted = True

    def prepare_create(self, call: Call, obj: Object) -> None:
        obj["status"] = {"phase": "Pending"}


class PersistentVolumeClaim(Strategy):
    returns_deleted = True

    def normalize(self, obj: Object) -> None:
        """dataSource and dataSourceRef say the same thing; whoever fills one gets both (KEP-1495).

        What dataSource could not hold before dataSourceRef came is dropped from it, as it always was; a source in another
        namespace is an alpha feature (KEP-3294), and that is off.
        """
        spec = obj.get("spec")
        if not isinstance(spec, dict):
            return
        if (spec.get("dataSourceRef") or {}).get("namespace"):
            spec.pop("dataSourceRef")
        source, reference = spec.get("dataSource"), spec.get("dataSourceRef")
        if source and not reference and (source.get("apiGroup") or "", source.get("kind")) not in _OLD_SOURCES:
            spec.pop("dataSource")
            source = None
        if source and not reference:
            spec["dataSourceRef"] = dict(source)
        elif reference and not source:
            spec["dataSource"] = dict(reference)

    def prepare_create(self, call: Call, obj: Object) -> None:
        obj["status"] = {"phase": "Pending"}
