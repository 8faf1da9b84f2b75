"""Namespaces, nodes, priority classes, secrets: what the server sets and protects in them.

Owns: Namespace, Node, PriorityClass, Secret. Called by: strategies/table.
Never does: delete a namespace's content (a controller does).
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from k1s.server.apiserver.strategies.base import Strategy, carry

if TYPE_CHECKING:
    from k1s.server.apiserver.call import Call

Object = dict[str, Any]

_NAME_LABEL = "kubernetes.io/metadata.name"


class Namespace(Strategy):
    """It goes when spec.finalizers is empty, which only the finalize subresource can bring about."""

    returns_deleted = True

    def normalize(self, obj: Object) -> None:
        meta = obj["metadata"]
        if meta.get("name"):
            meta["labels"] = {**(meta.get("labels") or {}), _NAME_LABEL: meta["name"]}

    def reset_create(self, obj: Object) -> None:
        obj.pop("status", None)

    def prepare_create(self, call: Call, obj: Object) -> None:
        obj["status"] = {"phase": "Active"}
        spec = obj.setdefault("spec", {})
        finalizers = spec.get("finalizers") or []
        if "kubernetes" not in finalizers:
            spec["finalizers"] = [*finalizers, "kubernetes"]

    def reset_update(self, obj: Object, old: Object) -> None:
        carry(obj, old, "status")
        finalizers = (old.get("spec") or {}).get("finalizers")
        obj["spec"] = {**(obj.get("spec") or {})}
        if finalizers:
            obj["spec"]["finalizers"] = finalizers
        else:
            obj["spec"].pop("finalizers", None)

    def begin_deletion(self, obj: Object) -> None:
        obj.setdefault("status", {})["phase"] = "Terminating"

    def may_go(self, obj: Object) -> bool:
        return not (obj.get("spec") or {}).get("finalizers")


class Node(Strategy):
    """An agent registers its node with a status, so creation keeps it."""

    returns_deleted = False

    def reset_create(self, obj: Object) -> None:
        return None


class PriorityClass(Strategy):
    """It is of generation 1 for ever."""

    def prepare_create(self, call: Call, obj: Object) -> None:
        obj["metadata"]["generation"] = 1


class Secret(Strategy):
    """stringData is write-only: it ends up in data."""

    def normalize(self, obj: Object) -> None:
        texts = obj.pop("stringData", None)
        if texts:
            data = obj["data"] = dict(obj.get("data") or {})
            for key, text in texts.items():
                data[key] = base64.b64encode(str(text).encode()).decode()
