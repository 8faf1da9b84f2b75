"""FlowSchemas and priority levels: the default ones stay as upstream has them, and a schema says when its level is missing.

Watches: FlowSchemas and PriorityLevelConfigurations (KIND/NAME; a level wakes the schemas that name it).
Owns: the condition Dangling. Never does: limit anything (apiserver/flow).
Source: apiserver/pkg/util/flowcontrol/apf_controller.go and registry/flowcontrol/ensurer.
"""

from __future__ import annotations

from collections.abc import Iterable

from k1s.api import meta
from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.client.interface import APPLY_PATCH, Object
from k1s.server.controllers.reconciler import Context, Reconciler, Watch
from k1s.server.defaults import flow_control

SCHEMA, LEVEL = builtin("FlowSchema"), builtin("PriorityLevelConfiguration")
_MANAGER = "api-priority-and-fairness-config-consumer-v1"


def dangling(schema: Object, level: Object | None) -> Object:
    """The condition without its time."""
    name = ((schema.get("spec") or {}).get("priorityLevelConfiguration") or {}).get("name") or ""
    text = f'This FlowSchema references the PriorityLevelConfiguration object named "{name}" '
    if level is None:
        return {"type": "Dangling", "status": "True", "reason": "NotFound", "message": text + "but there is no such object"}
    return {"type": "Dangling", "status": "False", "reason": "Found", "message": text + "and it exists"}


class FlowSchemaController(Reconciler):
    name = "flow-schema"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.schemas, self.levels = self.cache(SCHEMA), self.cache(LEVEL)
        self.wanted = {f"{obj['kind']}/{obj['metadata']['name']}": obj for obj in flow_control.objects()}

    def watches(self) -> Iterable[Watch]:
        return ((SCHEMA, self._schema), (LEVEL, self._level))

    def _schema(self, old: Object | None, new: Object | None) -> Iterable[str]:
        return [f"FlowSchema/{meta.name(new or old or {})}"]

    def _level(self, old: Object | None, new: Object | None) -> Iterable[str]:
        name = meta.name(new or old or {})
        keys = [f"PriorityLevelConfiguration/{name}"]
        if old is None or new is None:
            keys += [f"FlowSchema/{meta.name(schema)}" for schema in self.schemas.list() if _level_of(schema) == name]
        return keys

    async def reconcile(self, key: str) -> float | None:
        kind, _, name = key.partition("/")
        resource, cache = (SCHEMA, self.schemas) if kind == "FlowSchema" else (LEVEL, self.levels)
        found = cache.get(name)
        wanted = self.wanted.get(key)
        change = flow_control.plan(wanted, found) if wanted is not None else None
        if change is not None:
            if found is None:
                await self.client.create(resource, change)
            else:
                await self.client.update(resource, change)
        elif kind == "FlowSchema" and found is not None and not meta.is_deleting(found):
            await self._judge(found)
        return None

    async def _judge(self, schema: Object) -> None:
        now = dangling(schema, self.levels.get(_level_of(schema)))
        before = meta.condition(schema, "Dangling") or {}
        if all(before.get(key) == value for key, value in now.items()):
            return
        same = before.get("status") == now["status"]
        now["lastTransitionTime"] = before["lastTransitionTime"] if same else self.stamp()
        change = {
            "apiVersion": flow_control.API_VERSION,
            "kind": "FlowSchema",
            "metadata": {"name": meta.name(schema), "uid": meta.uid(schema)},
            "status": {"conditions": [now]},
        }
        try:
            await self.client.patch(
                SCHEMA, meta.name(schema), "", change,
                content_type=APPLY_PATCH, subresource="status", field_manager=_MANAGER, force=True,
            )  # fmt: skip
        except ApiError as error:
            if error.code not in (404, 409):  # it went, or another took its name
                raise


def _level_of(schema: Object) -> str:
    return str(((schema.get("spec") or {}).get("priorityLevelConfiguration") or {}).get("name") or "")
