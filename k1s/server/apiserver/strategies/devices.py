"""Dynamic resource allocation: the server says since when a taint is on a device.

Owns: DeviceTaintRule, ResourceSlice. Called by: strategies/table. Never does: allocate.
Source: upstream pkg/registry/resource/{devicetaintrule,resourceslice}/strategy.go, pkg/apis/resource/v1/defaults.go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from k1s.base.clock import rfc3339
from k1s.server.apiserver.strategies.base import Strategy

if TYPE_CHECKING:
    from k1s.server.apiserver.call import Call

Object = dict[str, Any]


def _stamp(call: Call, taint: Object) -> None:
    if taint.get("timeAdded") is None:
        taint["timeAdded"] = rfc3339(call.server.clock.now())


class DeviceTaintRule(Strategy):
    generation_fields = ("spec",)
    unconditional_update = False
    status_keeps_metadata = True

    def prepare_create(self, call: Call, obj: Object) -> None:
        super().prepare_create(call, obj)
        if (taint := (obj.get("spec") or {}).get("taint")) is not None:
            _stamp(call, taint)

    def prepare_update(self, call: Call, obj: Object, old: Object) -> None:
        new, before = ((o.get("spec") or {}).get("taint") or {} for o in (obj, old))
        if new.get("effect") != before.get("effect") and new.get("timeAdded") == before.get("timeAdded"):
            new.pop("timeAdded", None)
        if new:
            _stamp(call, new)
        super().prepare_update(call, obj, old)


class ResourceSlice(Strategy):
    generation_fields = ("spec",)

    def prepare_create(self, call: Call, obj: Object) -> None:
        self._stamp_devices(call, obj)
        super().prepare_create(call, obj)

    def prepare_update(self, call: Call, obj: Object, old: Object) -> None:
        self._stamp_devices(call, obj)
        super().prepare_update(call, obj, old)

    @staticmethod
    def _stamp_devices(call: Call, obj: Object) -> None:
        for device in (obj.get("spec") or {}).get("devices") or ():
            for taint in device.get("taints") or ():
                _stamp(call, taint)
