"""What is true of writes of every kind, and where a kind says otherwise.

Owns: Strategy, the base of the per-kind rules. Called by: writes, deletion. Never does: validate (api/validation), default.
A write passes two of its steps: `reset_*` takes out what the client may not set by this path (before field ownership is
recorded), `prepare_*` puts in what the server sets (after that, so that nobody owns it).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from k1s.server.apiserver.call import Call

Object = dict[str, Any]

_IDENTITY = ("apiVersion", "kind", "metadata")
_KEPT_METADATA = ("annotations", "finalizers", "labels", "ownerReferences")


class Strategy:
    """The defaults; subclasses override what differs. All steps change `obj` in place; `old` is read-only."""

    # PUT of an object that does not exist creates it.
    create_on_update = False
    # PUT without resourceVersion overwrites whatever is there.
    unconditional_update = True
    # DELETE answers with the object, not with a Status.
    returns_deleted = False
    # Dependents outlive the object unless the client says otherwise.
    orphans_by_default = False
    # Which top-level fields move metadata.generation; () for kinds without one.
    generation_fields: tuple[str, ...] = ()
    # The status can be changed only through the status subresource.
    has_status = False
    # A write to the status subresource changes no labels, annotations, finalizers, owners (ResetObjectMetaForStatus).
    status_keeps_metadata = False

    def normalize(self, obj: Object) -> None:
        """What upstream's conversion does on decoding, before defaults."""

    def reset_create(self, obj: Object) -> None:
        if self.has_status:
            obj["status"] = {}

    def prepare_create(self, call: Call, obj: Object) -> None:
        if self.generation_fields:
            obj["metadata"]["generation"] = 1

    def reset_update(self, obj: Object, old: Object) -> None:
        if self.has_status:
            _carry(obj, old, "status")

    def prepare_update(self, call: Call, obj: Object, old: Object) -> None:
        if any(obj.get(field) != old.get(field) for field in self.generation_fields):
            obj["metadata"]["generation"] = (old["metadata"].get("generation") or 0) + 1

    def reset_status(self, obj: Object, old: Object) -> None:
        """A write to the status subresource keeps everything but status and metadata."""
        for field in [f for f in obj if f not in _IDENTITY and f != "status"]:
            if field not in old:
                del obj[field]
        for field in old:
            if field not in _IDENTITY and field != "status":
                obj[field] = old[field]
        if self.status_keeps_metadata:
            for field in _KEPT_METADATA:
                _carry(obj["metadata"], old["metadata"], field)

    def prepare_status(self, call: Call, obj: Object, old: Object) -> None:
        """What the server sets in a status that somebody writes."""

    async def allocate(self, call: Call, obj: Object, old: Object | None) -> None:
        """Take what the object needs from pools, noting in call.pending what to give back once the write is settled."""

    def grace_period(self, obj: Object, asked: int | None) -> int | None:
        """Seconds until the object goes; None: this kind does not go gracefully."""
        return None

    def holding(self, finalizers: list[str]) -> list[str]:
        """The finalizers of an object whose deletion begins."""
        return finalizers

    def begin_deletion(self, obj: Object) -> None:
        """What else changes when an object gets its deletionTimestamp."""

    def may_go(self, obj: Object) -> bool:
        """Whether an object without finalizers that is being deleted may be removed."""
        return True


def _carry(obj: Object, old: Object, field: str) -> None:
    if field in old:
        obj[field] = old[field]
    else:
        obj.pop(field, None)


def carry(obj: Object, old: Object, *fields: str) -> None:
    """Make these top-level fields what they are in `old`."""
    for field in fields:
        _carry(obj, old, field)
