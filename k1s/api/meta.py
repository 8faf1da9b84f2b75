"""Reading and writing what every object has: metadata, owner references, conditions.

Owns: small accessors on plain dicts, so that nobody spells obj["metadata"].get(...) by hand.
Called by: everyone. Never does: validation, defaults.
"""

from collections.abc import Mapping, MutableSequence
from typing import Any

from k1s.api.catalog import Resource

Object = dict[str, Any]

_EMPTY: Mapping[str, Any] = {}


def metadata(obj: Mapping[str, Any]) -> Mapping[str, Any]:
    return obj.get("metadata") or _EMPTY


def name(obj: Mapping[str, Any]) -> str:
    return metadata(obj).get("name") or ""


def namespace(obj: Mapping[str, Any]) -> str:
    return metadata(obj).get("namespace") or ""


def uid(obj: Mapping[str, Any]) -> str:
    return metadata(obj).get("uid") or ""


def resource_version(obj: Mapping[str, Any]) -> str:
    return metadata(obj).get("resourceVersion") or ""


def generation(obj: Mapping[str, Any]) -> int:
    return metadata(obj).get("generation") or 0


def labels(obj: Mapping[str, Any]) -> Mapping[str, str]:
    return metadata(obj).get("labels") or _EMPTY


def annotations(obj: Mapping[str, Any]) -> Mapping[str, str]:
    return metadata(obj).get("annotations") or _EMPTY


def finalizers(obj: Mapping[str, Any]) -> list[str]:
    return metadata(obj).get("finalizers") or []


def owner_references(obj: Mapping[str, Any]) -> list[Object]:
    return metadata(obj).get("ownerReferences") or []


def controller_of(obj: Mapping[str, Any]) -> Object | None:
    """The owner reference with controller: true, if there is one."""
    return next((owner for owner in owner_references(obj) if owner.get("controller")), None)


def controlled_by(obj: Mapping[str, Any], owner: Mapping[str, Any]) -> bool:
    """Is `owner` (by uid) the controller of `obj`?"""
    reference = controller_of(obj)
    return reference is not None and reference.get("uid") == uid(owner)


def is_deleting(obj: Mapping[str, Any]) -> bool:
    return bool(metadata(obj).get("deletionTimestamp"))


def key(obj: Mapping[str, Any]) -> str:
    """`namespace/name`, or `name` for what has no namespace; what workqueues hold."""
    space = namespace(obj)
    return f"{space}/{name(obj)}" if space else name(obj)


def split_key(text: str) -> tuple[str, str]:
    """(namespace, name) of a key()."""
    space, _, plain = text.rpartition("/")
    return space, plain


def owner_reference(owner: Mapping[str, Any], resource: Resource, controller: bool = True) -> Object:
    """A metav1.OwnerReference to `owner`; as its controller it also blocks the owner's foreground deletion."""
    reference: Object = {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "name": name(owner),
        "uid": uid(owner),
    }
    if controller:
        reference["controller"] = True
        reference["blockOwnerDeletion"] = True
    return reference


def conditions(obj: Mapping[str, Any]) -> list[Object]:
    return (obj.get("status") or _EMPTY).get("conditions") or []


def condition(obj: Mapping[str, Any], type: str) -> Object | None:
    """The entry of status.conditions of that type."""
    return next((c for c in conditions(obj) if c.get("type") == type), None)


def is_true(obj: Mapping[str, Any], type: str) -> bool:
    found = condition(obj, type)
    return found is not None and found.get("status") == "True"


def set_condition(conditions: MutableSequence[Object], new: Object, now: str) -> bool:
    """Put `new` into the list in place; lastTransitionTime moves only when the status does. True if anything changed."""
    for index, old in enumerate(conditions):
        if old.get("type") != new.get("type"):
            continue
        same_status = old.get("status") == new.get("status")
        kept = old.get("lastTransitionTime") if same_status else None
        merged = {**old, **new, "lastTransitionTime": kept or new.get("lastTransitionTime") or now}
        if merged == old:
            return False
        conditions[index] = merged
        return True
    conditions.append({**new, "lastTransitionTime": new.get("lastTransitionTime") or now})
    return True


def remove_condition(conditions: MutableSequence[Object], type: str) -> bool:
    """Take the entry of that type out in place. True if it was there."""
    for index, old in enumerate(conditions):
        if old.get("type") == type:
            del conditions[index]
            return True
    return False


def ensure_metadata(obj: Object) -> Object:
    """obj["metadata"], made if it is missing; to be written to."""
    found = obj.get("metadata")
    if not isinstance(found, dict):
        found = obj["metadata"] = {}
    return found
