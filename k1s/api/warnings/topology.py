"""Kinds of the cluster that choose nodes by labels: those that have a newer name.

Called by: table.py. Never does: rename labels.
Source: upstream pkg/api/storage/util.go, pkg/api/node/util.go.
"""

from __future__ import annotations

from k1s.api.meta import Object
from k1s.api.warnings.nodes import deprecated_label, node_selector_term


def storage_class(obj: Object, old: Object | None) -> list[str]:
    out = []
    for i, term in enumerate(obj.get("allowedTopologies") or ()):
        for j, wanted in enumerate(term.get("matchLabelExpressions") or ()):
            if text := deprecated_label(wanted.get("key")):
                out.append(f"allowedTopologies[{i}].matchLabelExpressions[{j}].key: {text}")
    return out


def storage_capacity(obj: Object, old: Object | None) -> list[str]:
    topology = obj.get("nodeTopology") or {}
    out = node_selector_term("nodeTopology", topology)
    for key in sorted(topology.get("matchLabels") or ()):
        if text := deprecated_label(key):
            out.append(f"nodeTopology.matchLabels.{key}: {text}")
    return out


def runtime_class(obj: Object, old: Object | None) -> list[str]:
    keys = sorted((obj.get("scheduling") or {}).get("nodeSelector") or ())
    return [f"scheduling.nodeSelector: {text}" for key in keys if (text := deprecated_label(key))]
