"""Custom resource definitions and the resources they define.

Owns: CustomResource, CustomResourceDefinition. Called by: strategies/table. Never does: serve them (crds.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from k1s.server.apiserver.strategies.base import Strategy

if TYPE_CHECKING:
    from k1s.server.apiserver.call import Call

Object = dict[str, Any]

CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
_NOT_SPEC = ("apiVersion", "kind", "metadata", "status")


class CustomResource(Strategy):
    """Everything but metadata and status moves the generation."""

    unconditional_update = False

    def reset_create(self, obj: Object) -> None:
        if self.has_status:
            obj.pop("status", None)

    def prepare_create(self, call: Call, obj: Object) -> None:
        obj["metadata"]["generation"] = 1

    def prepare_update(self, call: Call, obj: Object, old: Object) -> None:
        skip = _NOT_SPEC if self.has_status else _NOT_SPEC[:-1]
        if {k: v for k, v in obj.items() if k not in skip} != {k: v for k, v in old.items() if k not in skip}:
            obj["metadata"]["generation"] = (old["metadata"].get("generation") or 0) + 1

    def reset_status(self, obj: Object, old: Object) -> None:
        """A status write changes the status and nothing else, not even metadata."""
        super().reset_status(obj, old)
        managed = obj["metadata"].get("managedFields")
        obj["metadata"] = {**old["metadata"]}
        if managed is not None:
            obj["metadata"]["managedFields"] = managed


class CustomResourceDefinition(Strategy):
    generation_fields = ("spec",)
    unconditional_update = False

    def prepare_create(self, call: Call, obj: Object) -> None:
        super().prepare_create(call, obj)
        stored = [v.get("name") for v in (obj.get("spec") or {}).get("versions") or [] if v.get("storage")]
        obj["status"] = {"conditions": [], "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": stored}

    def prepare_update(self, call: Call, obj: Object, old: Object) -> None:
        super().prepare_update(call, obj, old)
        # What is written from now on is written in the new storage version.
        stored = list((obj.get("status") or {}).get("storedVersions") or [])
        for version in (obj.get("spec") or {}).get("versions") or []:
            if version.get("storage") and version.get("name") not in stored:
                obj["status"] = {**(obj.get("status") or {}), "storedVersions": [*stored, version.get("name")]}
                return

    def holding(self, finalizers: list[str]) -> list[str]:
        """The definition stays until its objects are gone."""
        return finalizers if CLEANUP in finalizers else [*finalizers, CLEANUP]
