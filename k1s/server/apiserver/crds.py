"""Custom resources: what a CustomResourceDefinition adds to the server, takes away, and says about itself.

Owns: CustomResources. Called by: app (start, run), writes (defaults and validation), subresources/scale.
Never does: convert (conversion.py does).
A change of a definition takes effect in the moment its event is seen; `run` does what has to wait: filling the cache of objects
that were there before, the definition's status, and the deletion of its objects when it goes.
Bound: the queue of `run` holds each definition's name once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from k1s.api.catalog import ALL_VERBS, Resource, Subresource, builtin
from k1s.api.cel.program import CompileError
from k1s.api.defaults.custom import apply_schema_defaults
from k1s.api.errors import ApiError, FieldError
from k1s.api.printers.custom import custom_printer
from k1s.api.schema import forget_custom, register_custom, structural
from k1s.api.table import forget_printer, register_printer
from k1s.api.validation.correlation import MISSING
from k1s.api.validation.custom_lists import has_lists, validate_lists
from k1s.api.validation.custom_meta import embedded_faults, has_embedded, scale_faults
from k1s.api.validation.custom_resource import validate_schema, validate_value
from k1s.api.validation.custom_rules import blocked, validate_rules
from k1s.api.validation.rule_tree import RuleNode, compile_rules
from k1s.base.clock import rfc3339
from k1s.server.apiserver.crd_defaults import complete
from k1s.server.apiserver.crd_status import Taken, named, names_taken, settled, terminating
from k1s.server.apiserver.deletion import DeleteOptions, delete_object, finished
from k1s.server.apiserver.entries import Entry
from k1s.server.apiserver.group_order import version_key
from k1s.server.apiserver.strategies.extension import CLEANUP
from k1s.storage.interface import Origin

if TYPE_CHECKING:
    from k1s.server.apiserver.app import ApiServer

Object = dict[str, Any]

log = logging.getLogger("k1s.apiserver")

_STATUS_VERBS = ("get", "patch", "update")
_ORIGIN = Origin("system:apiserver", "update")
# A status that cannot be written (a race, a full disk) is tried again after this many seconds.
_RETRY_SECONDS = 5.0

_Key = tuple[str, str, str]


class CustomResources:
    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self._crd = builtin("CustomResourceDefinition")
        self._rows: dict[str, tuple[Resource, ...]] = {}
        self._specs: dict[str, Object] = {}
        self._versions: dict[_Key, Object] = {}
        # The CEL rules of versions that have any; a text says why they cannot be compiled, which refuses every object.
        self._rules: dict[_Key, RuleNode | str] = {}
        # What objects of a version have to be searched for, beyond their schema.
        self._special: dict[_Key, str] = {}
        self._filled: set[str] = set()
        # The schema whose defaults the stored objects have, by definition.
        self._completed: dict[str, Object] = {}
        self._conflicts: dict[str, str] = {}
        self._dirty: dict[str, None] = {}
        self._wake = asyncio.Event()

    async def start(self) -> None:
        """Serve what is defined already; call once the cache is loaded."""
        informer = self._server.informers.informer(self._crd)
        informer.add_handler(self._changed)
        for name in list(self._dirty):
            await self._fill(name)

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._dirty:
                name = next(iter(self._dirty))
                del self._dirty[name]
                try:
                    await self._sync(name)
                except ApiError as error:
                    log.warning("definition %s: %s", name, error.message)
                    asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._mark, name)

    # For writes

    def version(self, resource: Resource) -> Object:
        """The entry of spec.versions that a resource comes from."""
        return self._versions.get((resource.group, resource.version, resource.plural), {})

    def default(self, resource: Resource, obj: Object) -> None:
        apply_schema_defaults(obj, self._schema(resource))

    def faults(
        self,
        resource: Resource,
        obj: Object,
        old: Object | None = None,
        *,
        status: bool = False,
        warnings: list[str] | None = None,
    ) -> list[FieldError]:
        """What schema and rules say of an object that is created or replaces `old`. `status`: only its status changes."""
        schema, key = self._schema(resource), (resource.group, resource.version, resource.plural)
        faults = _status_faults(obj, old, schema) if status else validate_schema(obj, schema, old)
        scale = (self.version(resource).get("subresources") or {}).get("scale")
        if scale is not None:
            faults += scale_faults(obj, scale, spec=not status)
        special = self._special.get(key, "")
        if "embedded" in special and not status:
            faults += embedded_faults(obj, schema)
        if "lists" in special:
            faults += validate_lists(obj, schema, old)
        rules = self._rules.get(key)
        if rules is None:
            return faults
        if isinstance(rules, str):
            return [*faults, FieldError("InternalError", "<nil>", f"rule compile error: {rules}")]
        unchecked = blocked(faults)
        return [*faults, unchecked] if unchecked is not None else faults + validate_rules(rules, obj, old, warnings=warnings)

    def _schema(self, resource: Resource) -> Object:
        found: Object = (self.version(resource).get("schema") or {}).get("openAPIV3Schema") or {}
        return found

    def webhook(self, resource: Resource) -> Object | None:
        """spec.conversion.webhook of the resource's definition, if it converts by one."""
        conversion = (self._specs.get(resource.qualified) or {}).get("conversion") or {}
        found: Object | None = conversion.get("webhook") if conversion.get("strategy") == "Webhook" else None
        return found

    # Taking in definitions

    def _mark(self, name: str) -> None:
        self._dirty[name] = None
        self._wake.set()

    def _changed(self, old: Object | None, new: Object | None) -> None:
        if new is None:
            assert old is not None
            self._unregister(old["metadata"]["name"])
            self._reconsider(old["spec"].get("group") or "")
            return
        name = new["metadata"]["name"]
        if old is not None and old["spec"].get("names") != new["spec"].get("names"):
            self._reconsider(new["spec"].get("group") or "")
        if self._specs.get(name) != new.get("spec"):
            conflict = self._conflict(new)
            if conflict and name not in self._rows:
                self._conflicts[name] = conflict
            else:
                self._conflicts.pop(name, None)
                try:
                    self._register(name, new["spec"])
                except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
                    # Validation should have refused it; one odd definition must not end the feed of the whole cache.
                    self._conflicts[name] = f"the definition cannot be served: {error!r}"
        self._mark(name)

    def _conflict(self, crd: Object) -> str:
        """Why it cannot be served yet: names that others have. Those it has itself it keeps."""
        spec, names = crd["spec"], crd["spec"]["names"]
        mine = {row.version for row in self._rows.get(crd["metadata"]["name"], ())}
        for other in self._server.catalog:
            same = (other.plural, other.kind) == (names["plural"], names["kind"])
            if other.group == spec["group"] and not other.custom and same and other.version not in mine:
                return f'"{names["plural"]}" is already in use'
        return named(crd, self._taken(crd))[2]

    def _taken(self, crd: Object) -> Taken:
        definitions = (entry.obj() for entry in self._server.hub.cache(self._crd).entries())
        return names_taken(definitions, crd["spec"]["group"], crd["metadata"]["name"])

    def _reconsider(self, group: str) -> None:
        """Names were given back: who waits for them may have them now."""
        for entry in list(self._server.hub.cache(self._crd).entries()):
            crd = entry.obj()
            if crd["spec"].get("group") == group and crd["metadata"]["name"] in self._conflicts:
                self._changed(None, crd)

    def _register(self, name: str, spec: Object) -> None:
        server = self._server
        rows = tuple(_rows(spec))
        for row in self._rows.get(name, ()):
            if row not in rows:
                self._forget(row)
        self._rows[name], self._specs[name] = rows, spec
        versions = {v["name"]: v for v in spec["versions"]}
        for row in rows:
            version = versions[row.version]
            self._versions[row.group, row.version, row.plural] = version
            raw = (version.get("schema") or {}).get("openAPIV3Schema")
            register_custom(row.group, row.version, row.kind, structural(raw))
            self._compile(name, row, raw or {})
            try:
                register_printer(row, custom_printer(version.get("additionalPrinterColumns")))
            except ValueError as error:
                log.warning("definition %s: columns of %s left out: %s", name, row.version, error)
            if not version.get("served"):
                server.catalog.remove(row)
                server.catalog.hide(row)
                server.openapi.forget_type(row)
                continue
            server.catalog.add(row)
            server.openapi.custom_type(row, raw or {})
        stored = next((row for row in rows if row.version == row.storage_version), None)
        if stored is not None:
            cache = server.hub.add(stored)
            cache.describe(stored)
            cache.on_empty = lambda: self._mark(name)
        server.discovery.invalidate()

    def _compile(self, name: str, row: Resource, schema: Object) -> None:
        key = (row.group, row.version, row.plural)
        self._rules.pop(key, None)
        self._special[key] = ("embedded " if has_embedded(schema) else "") + ("lists" if has_lists(schema) else "")
        try:
            rules = compile_rules(schema)
        except CompileError as error:
            log.warning("definition %s: a rule of %s cannot be compiled: %s", name, row.version, error)
            self._rules[key] = str(error)
            return
        if rules is not None:
            self._rules[key] = rules

    def _forget(self, row: Resource) -> None:
        server = self._server
        server.catalog.remove(row)
        forget_custom(row.group, row.version, row.kind)
        forget_printer(row)
        server.openapi.forget_type(row)
        self._versions.pop((row.group, row.version, row.plural), None)
        self._rules.pop((row.group, row.version, row.plural), None)
        self._special.pop((row.group, row.version, row.plural), None)

    def _unregister(self, name: str) -> None:
        rows = self._rows.pop(name, ())
        for row in rows:
            self._forget(row)
        if rows:
            self._server.hub.drop(rows[0])
        self._specs.pop(name, None)
        self._conflicts.pop(name, None)
        self._filled.discard(name)
        self._completed.pop(name, None)
        self._server.discovery.invalidate()

    # What has to wait

    async def _fill(self, name: str) -> None:
        rows = self._rows.get(name)
        if rows and name not in self._filled:
            self._filled.add(name)
            await self._server.hub.fill(self._server.hub.cache(rows[0]))
        rows = self._rows.get(name)
        if rows and rows[0].version == rows[0].storage_version:
            schema = self._schema(rows[0])
            if self._completed.get(name) != schema:
                self._completed[name] = schema
                await complete(self._server.hub.cache(rows[0]), schema)

    async def _sync(self, name: str) -> None:
        await self._fill(name)
        entry = await self._server.objects.find(self._crd, "", name)
        if entry is None:
            return
        if entry.obj()["metadata"].get("deletionTimestamp"):
            await self._clean(name)
            return
        now = rfc3339(self._server.clock.now())

        async def change(current: Entry) -> Object:
            crd = current.fresh()
            settled(crd, self._taken(crd), now)
            return crd

        await self._server.objects.guaranteed_update(self._crd, "", name, change, _ORIGIN)

    async def _terminate(self, name: str) -> None:
        now = rfc3339(self._server.clock.now())

        async def change(current: Entry) -> Object:
            crd = current.fresh()
            terminating(crd, now, done=False)
            return crd

        await self._server.objects.guaranteed_update(self._crd, "", name, change, _ORIGIN)

    async def _clean(self, name: str) -> None:
        """Delete the definition's objects; when none is left, let the definition go."""
        server = self._server
        rows = self._rows.get(name)
        if rows:
            stored = server.stored(rows[0])
            await self._terminate(name)
            for entry in server.hub.cache(stored).entries():
                try:
                    await delete_object(server, stored, entry.namespace, entry.name, DeleteOptions(), _ORIGIN)
                except ApiError as error:
                    if error.code != 404:
                        raise
            if len(server.hub.cache(stored)):
                return  # finalizers hold some; the last one to go wakes us

        now = rfc3339(server.clock.now())

        async def change(current: Entry) -> Object:
            crd = current.fresh()
            terminating(crd, now, done=True)
            crd["metadata"]["finalizers"] = [f for f in crd["metadata"].get("finalizers") or [] if f != CLEANUP]
            return crd

        last = await server.objects.guaranteed_update(self._crd, "", name, change, _ORIGIN)
        await finished(server, self._crd, "", last, _ORIGIN)


def _rows(spec: Object) -> Iterable[Resource]:
    """A catalog row per served version, the stored one first."""
    names = spec["names"]
    storage = next(v["name"] for v in spec["versions"] if v.get("storage"))
    for version in sorted(spec["versions"], key=lambda v: not v.get("storage")):
        if not version.get("storage") and not version.get("served"):
            continue
        subresources = version.get("subresources") or {}
        subs = []
        if subresources.get("status") is not None:
            subs.append(Subresource("status", _STATUS_VERBS))
        if subresources.get("scale") is not None:
            subs.append(Subresource("scale", _STATUS_VERBS, "Scale", "autoscaling", "v1"))
        yield Resource(
            group=spec["group"],
            version=version["name"],
            kind=names["kind"],
            plural=names["plural"],
            namespaced=spec["scope"] == "Namespaced",
            verbs=ALL_VERBS,
            short_names=tuple(names.get("shortNames") or ()),
            categories=tuple(names.get("categories") or ()),
            subresources=tuple(subs),
            singular=names.get("singular") or "",
            list_name=names.get("listKind") or "",
            storage_group=spec["group"],
            storage_version=storage,
            storage_plural=names["plural"],
            custom=True,
            selectable=tuple(f["jsonPath"].removeprefix(".") for f in version.get("selectableFields") or ()),
            deprecation=_deprecation(spec, version) if version.get("deprecated") else "",
        )


def _deprecation(spec: Object, version: Object) -> str:
    """The author's words, or upstream's, which name a version to use instead if there is one."""
    if version.get("deprecationWarning") is not None:
        return str(version["deprecationWarning"])
    kind, group = spec["names"]["kind"], spec["group"]
    text = f"{group}/{version['name']} {kind} is deprecated"
    better = [v["name"] for v in spec["versions"] if v.get("served") and not v.get("deprecated")]
    better = [name for name in better if version_key(name) < version_key(version["name"])]
    return f"{text}; use {group}/{better[0]} {kind}" if better else text


def _status_faults(obj: Object, old: Object | None, schema: Object) -> list[FieldError]:
    """The status has a schema of its own: what upstream says of it begins there."""
    inner = (schema.get("properties") or {}).get("status")
    if inner is None or "status" not in obj:
        return []
    return validate_value(obj["status"], inner, (old or {}).get("status", MISSING), at="status")
