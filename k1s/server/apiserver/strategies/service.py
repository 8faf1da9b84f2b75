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

    async def allocate(self, call: Call, obj: Object, old: Object | None) -> None:
        allocators = call.server.allocators
        if allocators is not None:
            allocators.assign(call, obj, old)
