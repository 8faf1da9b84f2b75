"""Persistent volumes and claims.

Called by: table.py, pods.py (ephemeral volumes), workloads.py (claim templates). Never does: pod volumes.
Source: upstream pkg/api/persistentvolume/util.go, pkg/api/persistentvolumeclaim/util.go.
"""

from __future__ import annotations

import json
from typing import Any

from k1s.api import quantity
from k1s.api.meta import Object
from k1s.api.warnings.nodes import node_selector_term

_BETA_CLASS = "volume.beta.kubernetes.io/storage-class"
_BETA_OPTIONS = "volume.beta.kubernetes.io/mount-options"
_OLD_CLASS = 'deprecated since v1.8; use "storageClassName" attribute instead'
# Sources whose drivers left the tree.
REMOVED = {
    "photonPersistentDisk": "deprecated in v1.11, non-functional in v1.16+",
    "scaleIO": "deprecated in v1.16, non-functional in v1.22+",
    "flocker": "deprecated in v1.22, non-functional in v1.25+",
    "storageos": "deprecated in v1.22, non-functional in v1.25+",
    "quobyte": "deprecated in v1.22, non-functional in v1.25+",
    "glusterfs": "deprecated in v1.25, non-functional in v1.26+",
    "cephfs": "deprecated in v1.28, non-functional in v1.31+",
    "rbd": "deprecated in v1.28, non-functional in v1.31+",
}


def removed_source(field: str, holder: Object) -> list[str]:
    # Upstream's own spelling of the path of storageos.
    return [f"{field}.{'storageOS' if key == 'storageos' else key}: {text}" for key, text in REMOVED.items() if holder.get(key)]


def _annotations(obj: Object) -> dict[str, Any]:
    return (obj.get("metadata") or {}).get("annotations") or {}


def persistent_volume(obj: Object, old: Object | None) -> list[str]:
    spec, out = obj.get("spec") or {}, []
    terms = ((spec.get("nodeAffinity") or {}).get("required") or {}).get("nodeSelectorTerms") or ()
    if _BETA_CLASS in _annotations(obj):
        out.append(f"metadata.annotations[{_BETA_CLASS}]: {_OLD_CLASS}")
    if _BETA_OPTIONS in _annotations(obj):
        out.append(f'metadata.annotations[{_BETA_OPTIONS}]: deprecated since v1.31; use "mountOptions" attribute instead')
    if spec.get("persistentVolumeReclaimPolicy") == "Recycle":
        text = "The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning."
        out.append(f"spec.persistentVolumeReclaimPolicy: {text}")
    for index, term in enumerate(terms):
        out += node_selector_term(f"spec.nodeAffinity.required.nodeSelectorTerms[{index}]", term)
    return out + removed_source("spec", spec)


def persistent_volume_claim(obj: Object, old: Object | None) -> list[str]:
    out = []
    if _BETA_CLASS in _annotations(obj):
        out.append(f"metadata.annotations[{_BETA_CLASS}]: {_OLD_CLASS}")
    return out + claim_spec("spec", obj.get("spec") or {})


def claim_spec(field: str, spec: Object) -> list[str]:
    """A storage size that is no whole number of bytes."""
    out = []
    for which in ("requests", "limits"):
        out += fractional(f"{field}.resources.{which}", (spec.get("resources") or {}).get(which), "storage")
    return out


def fractional(field: str, amounts: Any, *keys: str) -> list[str]:
    """Amounts of bytes that are not whole."""
    out = []
    for key in keys:
        value = (amounts or {}).get(key)
        if value is None:
            continue
        try:
            broken = quantity.milli(value) % 1000 != 0
        except ValueError:
            continue
        if broken:
            out.append(f"{field}[{key}]: fractional byte value {json.dumps(str(value))} is invalid, must be an integer")
    return out
