"""Which key a node's name belongs to: the record that the server keeps, and what it says to keys that have no name.

Owns: the Secret kube-system/<node>.node-key.k1s and the Statuses of nodes that are shut out.
Called by: server (join, authentication, the controller that frees names), agent, cli. Never does: I/O.

A name belongs to the first key that joins under it, until its Node is deleted or the name is forgotten (`k1s node forget`).
A node whose key is not in the record is no node of this cluster, whatever its certificate says. But a machine ends its pods only
for the words of `removed`, and the server says them only to a key of which it knows that it had the name: the record keeps the
keys that were taken out, for KEPT_SECONDS after the last one. A database that was lost or restored from a backup, or a cache that
is behind, knows nothing of a key, and says so (`unknown`): such a machine is shut out, too, but goes on as it is.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import Any

from k1s.api.errors import ApiError, service_unavailable

Object = dict[str, Any]

NAMESPACE = "kube-system"
RECORD_TYPE = "k1s.io/node-key"
_SUFFIX = ".node-key.k1s"
_FINGERPRINT, _NODE_UID, _FORMER, _FREED = "fingerprint", "nodeUID", "former", "freed"
_REMOVED, _UNKNOWN = "NodeRemoved", "NodeUnknown"
# A machine that was off for longer is shut out all the same, but not told to end its pods.
KEPT_SECONDS = 90 * 86400.0
_MOST_FORMER = 8


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
    """What a record says of the key that has the name (of a patch: the rest stays)."""
    return _encoded({_FINGERPRINT: fingerprint, _NODE_UID: node_uid})


def claimed(record: Object, fingerprint: str) -> dict[str, str]:
    """The data of a record whose free name goes to this key."""
    former = [key for key in _with_owner(record) if key != fingerprint]
    return _encoded({_FINGERPRINT: fingerprint, _FORMER: " ".join(former)})


def freed(record: Object, now: float) -> Object:
    """The patch that takes the name from its key, which is remembered. `now`: seconds since the epoch, as they are kept."""
    data = {_FORMER: " ".join(_with_owner(record)), _FREED: str(int(now))}
    nothing = {_FINGERPRINT: None, _NODE_UID: None}
    return {"metadata": {"resourceVersion": record["metadata"].get("resourceVersion")}, "data": {**_encoded(data), **nothing}}


def seconds_kept(record: Object, now: float) -> float:
    """How long a record of a free name is still of use; one that does not say is not."""
    try:
        return int(_decoded(record, _FREED)) + KEPT_SECONDS - now
    except ValueError:
        return 0.0


def belongs_to(record: Object | None, fingerprint: str) -> bool:
    return record is not None and bool(fingerprint) and hmac.compare_digest(fingerprint_of(record), fingerprint)


def fingerprint_of(record: Object) -> str:
    """The key that has the name, "" if it is free."""
    return _decoded(record, _FINGERPRINT)


def belonged_to(record: Object, fingerprint: str) -> bool:
    """Whether the name was taken from this key."""
    return bool(fingerprint) and fingerprint in _decoded(record, _FORMER).split()


def node_uid(record: Object) -> str:
    """The Node that the name stands for; "" while its machine has joined but not registered."""
    return _decoded(record, _NODE_UID)


def removed(node: str, *, taken: bool = False) -> ApiError:
    """What a node is told that was deleted, or (`taken`) whose name another machine has by now."""
    fate = "belongs to another machine now" if taken else "was removed from this cluster"
    return _shut_out(node, f'node "{node}" {fate}: this one has to join again, with a token', _REMOVED)


def unknown(node: str) -> ApiError:
    """What a node is told whose key the server has never heard of, though it has made its certificate."""
    message = (
        f'the server does not know this machine as node "{node}" (was its database restored from a backup?): '
        "it has to join again, with a token"
    )
    return _shut_out(node, message, _UNKNOWN)


def going(node: str) -> ApiError:
    """What a node is told whose Node has just gone: to ask again, when its name has been freed."""
    return service_unavailable(f'node "{node}" is being removed')


def says_removed(error: ApiError) -> bool:
    return _REMOVED in _reasons(error)


def says_unknown(error: ApiError) -> bool:
    return _UNKNOWN in _reasons(error)


def _shut_out(node: str, message: str, reason: str) -> ApiError:
    details = {"name": node, "kind": "nodes", "causes": [{"reason": reason, "message": message}]}
    return ApiError(403, "Forbidden", message, details)


def _reasons(error: ApiError) -> set[Any]:
    return {cause.get("reason") for cause in (error.details or {}).get("causes") or ()}


def _with_owner(record: Object) -> list[str]:
    """The keys that had the name, the latest ones, with the one that has it."""
    keys = [*_decoded(record, _FORMER).split(), fingerprint_of(record)]
    return [key for key in dict.fromkeys(reversed(keys)) if key][:_MOST_FORMER][::-1]


def _encoded(pairs: dict[str, str]) -> dict[str, Any]:
    return {key: base64.b64encode(value.encode()).decode() for key, value in pairs.items() if value}


def _decoded(record: Object, key: str) -> str:
    try:
        return base64.b64decode(str((record.get("data") or {}).get(key) or "")).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
