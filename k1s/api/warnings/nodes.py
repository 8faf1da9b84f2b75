"""Nodes, and the labels of nodes that have a newer name.

Called by: table.py, pods.py, topology.py, volumes.py. Never does: rename labels.
Source: upstream pkg/api/node/util.go, pkg/registry/core/node/strategy.go.
"""

from __future__ import annotations

from typing import Any

from k1s.api import names
from k1s.api.meta import Object
from k1s.api.warnings.addresses import for_cidr

_DEPRECATED = {
    "beta.kubernetes.io/arch": 'deprecated since v1.14; use "kubernetes.io/arch" instead',
    "beta.kubernetes.io/os": 'deprecated since v1.14; use "kubernetes.io/os" instead',
    "failure-domain.beta.kubernetes.io/region": 'deprecated since v1.17; use "topology.kubernetes.io/region" instead',
    "failure-domain.beta.kubernetes.io/zone": 'deprecated since v1.17; use "topology.kubernetes.io/zone" instead',
    "beta.kubernetes.io/instance-type": 'deprecated since v1.17; use "node.kubernetes.io/instance-type" instead',
    "app.kubernetes.io/created-by": "deprecated since v1.9",
    "scheduler.alpha.kubernetes.io/preferAvoidPods": "deprecated since v1.22; use Taints and Tolerations instead",
    "node-role.kubernetes.io/master": 'use "node-role.kubernetes.io/control-plane" instead',
}


def deprecated_label(key: Any) -> str:
    """What is wrong with a node label as a key; "" if nothing."""
    return _DEPRECATED.get(str(key), "")


def node_selector(field: str, selector: Any) -> list[str]:
    """A plain map of labels."""
    found = ((key, deprecated_label(key)) for key in sorted(selector or {}))
    return [f"{field}[{key}]: {text}" for key, text in found if text]


def node_selector_term(field: str, term: Object, *, values: bool = False) -> list[str]:
    """A NodeSelectorTerm; `values`: also those that no label can have (validation lets them pass where it did once)."""
    out = []
    for index, wanted in enumerate(term.get("matchExpressions") or ()):
        at, key = f"{field}.matchExpressions[{index}]", wanted.get("key")
        text = deprecated_label(key)
        if text:
            out.append(f"{at}.key: {key} is {text}")
        for number, value in enumerate(wanted.get("values") or ()) if values else ():
            out += [f"{at}.values[{number}]: {value} is invalid, {message}" for message in names.label_value(value)]
    return out


def node(obj: Object, old: Object | None) -> list[str]:
    spec, out = obj.get("spec") or {}, []
    if spec.get("configSource") is not None:
        out.append("spec.configSource: the feature is removed")
    if spec.get("externalID"):
        out.append("spec.externalID: this field is deprecated, and is unused by Kubernetes")
    for index, block in enumerate(spec.get("podCIDRs") or ()):
        out += for_cidr(f"spec.podCIDRs[{index}]", block)
    return out
