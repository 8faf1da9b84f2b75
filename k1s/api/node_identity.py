"""Which key a node's name belongs to: the record that the server keeps, and how it says that there is none.

Owns: the Secret kube-system/<node>.node-key.k1s and the Status of a node that was removed.
Called by: server (join, authentication, the controller that frees names), agent, cli. Never does: I/O.

A name belongs to the first key that joins under it, until its Node is deleted or the name is forgotten (`k1s node forget`).
A node whose key is not in the record is no node of this cluster any more, whatever its certificate says.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import Any

from k1s.api.errors import ApiError

Object = dict[str, Any]

NAMESPACE = "kube-system"
RECORD_TYPE = "k1s.io/node-key"
_SUFFIX = ".node-key.k1s"
_FINGERPRINT, _NODE_UID = "fingerprint", "nodeUID"
_REASON = "NodeRemoved"


def record_name(node: str) -> str:
    return node + _SUFFIX


def node_of(record: Object) -> str:
    """The node's name, "" if the Secret is no such record."""
    name = str(record["metadata"]["name"])
    return name.removesuffix(_SUFFIX) if record.get("type") == RECORD_TYPE and name.endswith(_SUFFIX) else ""


def new_record(node: str, fingerprint: str, node_uid: str = "") -> Object:
    """`fingerprint`: of the node's public key. `node_uid`: of its Node, once there is one."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": record_name(node), "namespace": NAMESPACE},
        "type": RECORD_TYPE,
        "data": record_data(fingerprint, node_uid),
    }


def record_data(fingerprint: str, node_uid: str = "") -> dict[str, str]:
    pairs = {_FINGERPRINT: fingerprint, _NODE_UID: node_uid}
    return {key: base64.b64encode(value.encode()).decode() for key, value in pairs.items() if value}


def belongs_to(record: Object | None, fingerprint: str) -> bool:
    return record is not None and bool(fingerprint) and hmac.compare_digest(fingerprint_of(record), fingerprint)


def fingerprint_of(record: Object) -> str:
    return _decoded(record, _FINGERPRINT)


def node_uid(record: Object) -> str:
    """The Node that the name stands for; "" while its machine has joined but not registered."""
    return _decoded(record, _NODE_UID)


def removed(node: str, *, taken: bool = False) -> ApiError:
    """What a node is told that was deleted, or (`taken`) whose name another machine has by now."""
    fate = "belongs to another machine now" if taken else "was removed from this cluster"
    message = f'node "{node}" {fate}: this one has to join again, with a token'
    details = {"name": node, "kind": "nodes", "causes": [{"reason": _REASON, "message": message}]}
    return ApiError(403, "Forbidden", message, details)


def says_removed(error: ApiError) -> bool:
    return any(cause.get("reason") == _REASON for cause in (error.details or {}).get("causes") or ())


def _decoded(record: Object, key: str) -> str:
    try:
        return base64.b64decode(str((record.get("data") or {}).get(key) or "")).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
