"""The pods and claims of a StatefulSet.

Owns: names, ordinals, the pod of an ordinal from a revision, its volume claims, who owns the claims (all pure).
Called by: statefulset/*. Never does: I/O. Source: upstream pkg/controller/statefulset/stateful_set_utils.go.
"""

from __future__ import annotations

from k1s.api import meta
from k1s.api.catalog import builtin
from k1s.api.clone import clone
from k1s.client.interface import Object
from k1s.server.controllers import pods as podlib
from k1s.server.controllers.history import HASH_LABEL

STATEFUL_SET = builtin("StatefulSet")
POD_NAME = "statefulset.kubernetes.io/pod-name"
POD_INDEX = "apps.kubernetes.io/pod-index"


def start_of(owner: Object) -> int:
    return int((owner["spec"].get("ordinals") or {}).get("start", 0))


def replicas_of(owner: Object) -> int:
    return int(owner["spec"].get("replicas", 1))


def pod_name(owner: Object, ordinal: int) -> str:
    return f"{meta.name(owner)}-{ordinal}"


def ordinal_of(owner: Object, pod: Object) -> int:
    """The pod's ordinal, -1 if its name is not one of the set's."""
    prefix, _, tail = meta.name(pod).rpartition("-")
    return int(tail) if prefix == meta.name(owner) and tail.isdigit() else -1


def revision_of(pod: Object) -> str:
    """The name of the revision a pod was made from."""
    return meta.labels(pod).get(HASH_LABEL, "")


def claim_name(template: Object, owner: Object, ordinal: int) -> str:
    return f"{meta.name(template)}-{pod_name(owner, ordinal)}"


def new_pod(owner: Object, template: Object, revision: str, ordinal: int) -> Object:
    name = pod_name(owner, ordinal)
    pod = podlib.from_template(template, owner, STATEFUL_SET)
    metadata, spec = pod["metadata"], pod["spec"]
    del metadata["generateName"]
    metadata["name"] = name
    labels = metadata.setdefault("labels", {})
    labels.update({POD_NAME: name, POD_INDEX: str(ordinal), HASH_LABEL: revision})
    spec["hostname"] = name
    if owner["spec"].get("serviceName"):
        spec["subdomain"] = owner["spec"]["serviceName"]
    claims = {meta.name(t): claim_name(t, owner, ordinal) for t in owner["spec"].get("volumeClaimTemplates") or ()}
    if claims:
        others = [v for v in spec.get("volumes") or () if v["name"] not in claims]
        mine = [{"name": volume, "persistentVolumeClaim": {"claimName": claim}} for volume, claim in claims.items()]
        spec["volumes"] = [*mine, *others]
    return pod


def new_claims(owner: Object, ordinal: int) -> list[Object]:
    """The volume claims of an ordinal, labelled so that the set's selector finds them."""
    labels = (owner["spec"].get("selector") or {}).get("matchLabels") or {}
    out = []
    for template in owner["spec"].get("volumeClaimTemplates") or ():
        claim = clone(template)
        claim["metadata"]["name"] = claim_name(template, owner, ordinal)
        claim["metadata"]["namespace"] = meta.namespace(owner)
        claim["metadata"]["labels"] = {**claim["metadata"].get("labels", {}), **labels}
        claim.pop("status", None)
        out.append(claim)
    return out


def claim_owners(owner: Object, claim: Object, ordinal: int, pod: Object | None) -> list[Object] | None:
    """The owner references a claim should have by persistentVolumeClaimRetentionPolicy; None if they are right already.

    A claim that is to go with the set belongs to the set; one that is to go when the set shrinks belongs to the pod once its
    ordinal is no longer wanted.
    """
    policy = owner["spec"].get("persistentVolumeClaimRetentionPolicy") or {}
    condemned = not start_of(owner) <= ordinal < start_of(owner) + replicas_of(owner)
    with_set = policy.get("whenDeleted") == "Delete"
    with_pod = policy.get("whenScaled") == "Delete" and condemned and pod is not None
    before = meta.owner_references(claim)
    name = pod_name(owner, ordinal)
    out = [r for r in before if r["uid"] != meta.uid(owner) and not (r["kind"] == "Pod" and r["name"] == name)]
    if with_pod and pod is not None:
        out.append({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": meta.uid(pod)})
    elif with_set:
        out.append(
            {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": meta.name(owner), "uid": meta.uid(owner), "controller": True}
        )
    return out if {r["uid"] for r in out} != {r["uid"] for r in before} else None


def has_identity(owner: Object, pod: Object) -> bool:
    """Labels that make the pod this ordinal's are in place."""
    labels = meta.labels(pod)
    return labels.get(POD_NAME) == meta.name(pod) and labels.get(POD_INDEX) == str(ordinal_of(owner, pod))
