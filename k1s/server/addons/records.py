"""What each add-on made: the Addon objects (k3s.cattle.io/v1, in kube-system).

Owns: their content. Called by: manifests. Never does: touch what they list.
A record is written before the objects that it lists, so that nothing can be made that nobody remembers; it survives restarts,
and a file that was deleted while the server was down is noticed by its record.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from k1s.api import meta
from k1s.api.catalog import Resource
from k1s.api.clone import clone
from k1s.base.clock import rfc3339
from k1s.client.interface import Object
from k1s.server.addons.context import SYSTEM_NAMESPACE, AddonContext
from k1s.server.addons.documents import Identity

GROUP, VERSION, KIND = "k3s.cattle.io", "v1", "Addon"
APPLIED = "Applied"


@dataclass(slots=True)
class Record:
    """`kept`: objects that somebody else had made before; they stay when the add-on goes. `uids`: of those that were applied.

    `directory`: the id of the manifests directory the file is in.
    """

    source: str
    checksum: str
    objects: list[Identity] = field(default_factory=list)
    kept: set[Identity] = field(default_factory=set)
    uids: dict[Identity, str] = field(default_factory=dict)
    fault: str = ""
    directory: str = ""


class Records:
    """`directory`: the id of this server's manifests directory, written into every record."""

    def __init__(self, context: AddonContext, resource: Resource) -> None:
        self.directory = ""
        self._client, self._clock, self._resource = context.client, context.clock, resource
        self.informer = context.informers.informer(resource)

    def get(self, name: str) -> Object | None:
        """The Addon itself: what events are told of."""
        return self.informer.get(name, SYSTEM_NAMESPACE)

    def names(self) -> list[str]:
        return [meta.name(addon) for addon in self.informer.list(SYSTEM_NAMESPACE)]

    def read(self, name: str) -> Record | None:
        addon = self.get(name)
        return None if addon is None else _read(addon)

    def claimed(self, *, but: str) -> set[Identity]:
        """What the other add-ons' records list."""
        out: set[Identity] = set()
        for addon in self.informer.list(SYSTEM_NAMESPACE):
            if meta.name(addon) != but:
                out.update(_read(addon).objects)
        return out

    async def write(self, name: str, record: Record, *, done: bool = True) -> None:
        """Nothing is written if the record says this already. Not `done`: how it ends is not known yet."""
        old = self.get(name)
        wanted = _content(record, self.directory)
        if old is None:
            obj: Object = {"metadata": {"name": name, "namespace": SYSTEM_NAMESPACE}, **wanted}
            if done:
                self._judge(obj, record)
            await self._client.create(self._resource, obj, SYSTEM_NAMESPACE)
            return
        obj = clone(old)
        conditions = meta.conditions(obj)
        obj.update(wanted)
        if conditions:
            obj["status"]["conditions"] = conditions
        if done:
            self._judge(obj, record)
        if obj != old:
            await self._client.update(self._resource, obj)

    async def remove(self, name: str) -> None:
        await self._client.delete(self._resource, name, SYSTEM_NAMESPACE)

    def _judge(self, addon: Object, record: Record) -> None:
        conditions = addon["status"].setdefault("conditions", [])
        good = not record.fault
        new = {
            "type": APPLIED,
            "status": "True" if good else "False",
            "reason": "Applied" if good else "Failed",
            "message": record.fault[:1024],
        }
        meta.set_condition(conditions, new, rfc3339(self._clock.now()))


def _content(record: Record, directory: str) -> Object:
    return {
        "spec": {"source": record.source, "checksum": record.checksum, "directory": directory},
        "status": {"objects": [_entry(identity, record) for identity in record.objects]},
    }


def _entry(identity: Identity, record: Record) -> Object:
    entry: Object = {"apiVersion": identity.api_version, "kind": identity.kind, "name": identity.name}
    if identity.namespace:
        entry["namespace"] = identity.namespace
    if identity in record.uids:
        entry["uid"] = record.uids[identity]
    if identity in record.kept:
        entry["kept"] = True
    return entry


def _read(addon: Object) -> Record:
    spec, status = addon.get("spec") or {}, addon.get("status") or {}
    objects: list[Identity] = []
    kept: set[Identity] = set()
    uids: dict[Identity, str] = {}
    for entry in status.get("objects") or []:
        identity = Identity(entry["apiVersion"], entry["kind"], entry.get("namespace") or "", entry["name"])
        objects.append(identity)
        if entry.get("kept"):
            kept.add(identity)
        if entry.get("uid"):
            uids[identity] = entry["uid"]
    applied = meta.condition(addon, APPLIED) or {}
    fault = applied.get("message") or "" if applied.get("status") == "False" else ""
    return Record(spec.get("source") or "", spec.get("checksum") or "", objects, kept, uids, fault, spec.get("directory") or "")
