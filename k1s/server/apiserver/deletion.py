"""How objects go: at once, gracefully, or when the last finalizer is gone.

Owns: DeleteOptions, delete_object, finished. Called by: handlers, subresources/eviction, writes (finished).
Never does: delete dependents (the garbage collector does, from owner references and finalizers).
Source: apiserver registry/rest.BeforeDelete and registry/generic/registry.Store.Delete.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from k1s.api.catalog import Resource
from k1s.api.errors import FieldError, bad_request, conflict, invalid, invalid_value, not_supported
from k1s.api.schema import schema_for_kind
from k1s.api.type_check import find_type_error
from k1s.base.clock import parse_rfc3339, rfc3339
from k1s.server.apiserver.call import dry_run_errors
from k1s.server.apiserver.entries import Entry
from k1s.server.apiserver.strategies.base import Strategy
from k1s.server.apiserver.strategies.table import strategy_for
from k1s.storage.interface import Origin

if TYPE_CHECKING:
    from k1s.server.apiserver.app import ApiServer

Object = dict[str, Any]

_FOREGROUND, _ORPHAN = "foregroundDeletion", "orphan"
_POLICIES = ("Foreground", "Background", "Orphan")
_TRIES = 64


@dataclass(slots=True)
class DeleteOptions:
    """metav1.DeleteOptions. `orphan` is the deprecated orphanDependents."""

    grace: int | None = None
    policy: str = ""
    orphan: bool | None = None
    uid: str = ""
    resource_version: str = ""
    dry_run: bool = False

    @classmethod
    def read(cls, obj: Object) -> DeleteOptions:
        """From a decoded body. Raises ApiError 400, 422."""
        fault = find_type_error(obj, schema_for_kind("", "v1", "DeleteOptions"))
        if fault:
            raise bad_request(fault)
        pre = obj.get("preconditions") or {}
        options = cls(
            grace=obj.get("gracePeriodSeconds"),
            policy=str(obj.get("propagationPolicy") or ""),
            orphan=obj.get("orphanDependents"),
            uid=str(pre.get("uid") or ""),
            resource_version=str(pre.get("resourceVersion") or ""),
            dry_run=bool(obj.get("dryRun")),
        )
        options.check(obj.get("dryRun") or [])
        return options

    def as_object(self) -> Object:
        """As admission sees them."""
        out: Object = {"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"}
        pre = {"uid": self.uid, "resourceVersion": self.resource_version}
        given = {
            "gracePeriodSeconds": self.grace,
            "propagationPolicy": self.policy or None,
            "orphanDependents": self.orphan,
            "preconditions": {key: value for key, value in pre.items() if value} or None,
            "dryRun": ["All"] if self.dry_run else None,
        }
        return out | {key: value for key, value in given.items() if value is not None}

    def check(self, dry_run: list[str]) -> None:
        errors: list[FieldError] = []
        if self.policy and self.orphan is not None:
            error = "orphanDependents and deletionPropagation cannot be both set"
            errors.append(invalid_value("propagationPolicy", self.policy, error))
        if self.policy and self.policy not in _POLICIES:
            errors.append(not_supported("propagationPolicy", self.policy, (*_POLICIES, "nil"), as_given=True))
        errors += dry_run_errors(dry_run)
        if errors:
            raise invalid("DeleteOptions", "meta.k8s.io", "", errors)


def check_preconditions(resource: Resource, name: str, entry: Entry, options: DeleteOptions) -> None:
    """Raises ApiError 409. (Upstream names the kind here, not the resource.)"""
    uid = entry.obj()["metadata"].get("uid", "")
    if options.uid and options.uid != uid:
        why = (
            f"the UID in the precondition ({options.uid}) does not match the UID in record ({uid}). "
            "The object might have been deleted and then recreated"
        )
        raise conflict(resource.kind, resource.group, name, why)
    if options.resource_version and options.resource_version != str(entry.revision):
        why = (
            f"the ResourceVersion in the precondition ({options.resource_version}) does not match the ResourceVersion in record "
            f"({entry.revision}). The object might have been modified"
        )
        raise conflict(resource.kind, resource.group, name, why)


async def delete_object(
    server: ApiServer, resource: Resource, namespace: str, name: str, options: DeleteOptions, origin: Origin
) -> tuple[Entry, bool]:
    """Delete or begin to. Returns the object's last state and whether it is gone. Raises ApiError 404, 409."""
    strategy = strategy_for(resource)
    for _ in range(_TRIES):
        entry = await server.objects.get(resource, namespace, name)
        check_preconditions(resource, name, entry, options)
        marked = _mark(entry, strategy, options, server.clock.now())
        if marked is None:
            if await server.objects.remove(resource, entry, origin, dry_run=options.dry_run):
                return entry, True
            continue
        changed = await _write_mark(server, resource, namespace, name, options, origin, strategy)
        if options.dry_run:
            return changed, False
        gone = await finished(server, resource, namespace, changed, origin)
        if gone or _mark(changed, strategy, options, server.clock.now()) is not None:
            return changed, gone
    raise conflict(resource.plural, resource.group, name)


async def _write_mark(
    server: ApiServer,
    resource: Resource,
    namespace: str,
    name: str,
    options: DeleteOptions,
    origin: Origin,
    strategy: Strategy,
) -> Entry:
    async def change(entry: Entry) -> Object | None:
        check_preconditions(resource, name, entry, options)
        return _mark(entry, strategy, options, server.clock.now()) or None

    return await server.objects.guaranteed_update(resource, namespace, name, change, origin, dry_run=options.dry_run)


def _mark(entry: Entry, strategy: Strategy, options: DeleteOptions, now: float) -> Object | None:
    """The object as it must be stored while it is going; None if it can go at once."""
    obj = entry.fresh()
    meta = obj["metadata"]
    deleting = bool(meta.get("deletionTimestamp"))
    pending = meta.get("deletionGracePeriodSeconds") or 0
    if deleting and pending > 0:
        # A further delete may only shorten the time that is left.
        if options.grace is None or _seconds(options.grace) >= pending:
            return obj
        grace = _shorten(meta, pending, _seconds(options.grace), now)
    else:
        grace = 0 if deleting else strategy.grace_period(obj, options.grace) or 0
    finalizers = _finalizers(meta.get("finalizers") or [], strategy, options)
    if not deleting:
        finalizers = strategy.holding(finalizers)
    if finalizers:
        meta["finalizers"] = finalizers
    else:
        meta.pop("finalizers", None)
    if not finalizers and grace <= 0 and strategy.may_go(obj):
        return None
    if not deleting:
        meta["deletionTimestamp"] = rfc3339(now + grace)
        meta["deletionGracePeriodSeconds"] = grace
        if meta.get("generation"):
            meta["generation"] += 1
        strategy.begin_deletion(obj)
    return obj


def _seconds(asked: int) -> int:
    """Negative ones mean "at once, but gracefully"."""
    return 1 if asked < 0 else asked


def _shorten(meta: Object, pending: int, grace: int, now: float) -> int:
    """Bring an object's end forward, but not into the past; what is left of its grace period."""
    moment = parse_rfc3339(meta["deletionTimestamp"]) - pending + grace
    if moment < now:
        # Whoever asked for a graceful end still gets one.
        moment, grace = now, min(grace, 1)
    meta["deletionTimestamp"], meta["deletionGracePeriodSeconds"] = rfc3339(moment), grace
    return grace


def _finalizers(current: list[str], strategy: Strategy, options: DeleteOptions) -> list[str]:
    """The finalizers after the propagation policy has had its say."""
    if options.policy:
        orphan, foreground = options.policy == "Orphan", options.policy == "Foreground"
    elif options.orphan is not None:
        orphan, foreground = options.orphan, False
    else:
        orphan = _ORPHAN in current or (strategy.orphans_by_default and _FOREGROUND not in current)
        foreground = _FOREGROUND in current and not orphan
    kept = [f for f in current if f not in (_ORPHAN, _FOREGROUND)]
    if orphan:
        kept.append(_ORPHAN)
    if foreground:
        kept.append(_FOREGROUND)
    # An unchanged set keeps its order, so that nothing is written for it.
    return current if set(kept) == set(current) else kept


async def finished(server: ApiServer, resource: Resource, namespace: str, entry: Entry, origin: Origin) -> bool:
    """Remove the object if it is being deleted and nothing holds it any more. True: it is gone."""
    for _ in range(_TRIES):
        if b'"deletionTimestamp"' not in entry.raw:
            return False
        obj = entry.peek()
        meta = obj["metadata"]
        if not meta.get("deletionTimestamp") or meta.get("finalizers") or (meta.get("deletionGracePeriodSeconds") or 0) > 0:
            return False
        if not strategy_for(resource).may_go(obj):
            return False
        if await server.objects.remove(resource, entry, origin):
            return True
        found = await server.objects.find(resource, namespace, entry.name)
        if found is None:
            return True
        entry = found
    return False


def deleted_status(resource: Resource, entry: Entry) -> Object:
    """The answer to a delete of kinds that do not answer with the object."""
    details = {"name": entry.name, "group": resource.group, "kind": resource.plural, "uid": entry.obj()["metadata"].get("uid")}
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {key: value for key, value in details.items() if value},
    }
