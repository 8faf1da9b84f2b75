"""Services: cluster addresses and node ports.

Owns: Service. Called by: strategies/table. Never does: keep the pools (allocators.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from k1s.server.apiserver.strategies.base import Strategy

if TYPE_CHECKING:
    from k1s.server.apiserver.call import Call

Object = dict[str, Any]


class Service(Strategy):
    returns_deleted = True
    create_on_update = True

    def prepare_create(self, call: Call, obj: Object) -> None:
        super().prepare_create(call, obj)
        obj["status"] = {"loadBalancer": {}}

    def prepare_update(self, call: Call, obj: Object, old: Object) -> None:
        super().prepare_update(call, obj, old)
        # Addresses of a balancer that is no more must not go on being served.
        if (obj.get("spec") or {}).get("type") != "LoadBalancer" and (obj.get("status") or {}).get("loadBalancer"):
            obj["status"] = {**obj["status"], "loadBalancer": {}}

    async def allocate(self, call: Call, obj: Object, old: Object | None) -> None:
        allocators = call.server.allocators
        if allocators is not None:
            allocators.assign(call, obj, old)
