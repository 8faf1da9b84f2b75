"""The default FlowSchemas and PriorityLevelConfigurations: upstream's mandatory and suggested ones.

Owns: the tables, and what is to be done about one that is missing or was changed (`plan`). Called by: bootstrap,
controllers/flow_schema. Never does: limit anything (apiserver/flow).
"""

from __future__ import annotations

from typing import Any

from k1s.api.clone import clone

Object = dict[str, Any]

API_VERSION = "flowcontrol.apiserver.k8s.io/v1"
AUTOUPDATE = "apf.kubernetes.io/autoupdate-spec"
# Nobody can take these over.
MANDATORY = ("exempt", "catch-all")

# name -> (shares, lendable percent, queues, hand size, queue length); None: exempt; queues 0: reject at once.
_LEVELS: dict[str, tuple[int, int, int, int, int] | None] = {
    "exempt": None,
    "catch-all": (5, 0, 0, 0, 0),
    "system": (30, 33, 64, 6, 50),
    "node-high": (40, 25, 64, 6, 50),
    "leader-election": (10, 0, 16, 4, 50),
    "workload-high": (40, 50, 128, 6, 50),
    "workload-low": (100, 90, 128, 6, 50),
    "global-default": (20, 50, 128, 6, 50),
}

_EVERY = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": True, "namespaces": ["*"]}
_PATHS = {"verbs": ["*"], "nonResourceURLs": ["*"]}


def _resources(groups: list[str], resources: list[str], verbs: list[str], namespaces: list[str] | None = None) -> Object:
    out: Object = {"verbs": verbs, "apiGroups": groups, "resources": resources, "namespaces": namespaces or ["*"]}
    if namespaces is None:
        out["clusterScope"] = True
    return out


def _group(name: str) -> Object:
    return {"kind": "Group", "group": {"name": name}}


def _user(name: str) -> Object:
    return {"kind": "User", "user": {"name": name}}


def _accounts(name: str, namespace: str = "kube-system") -> Object:
    return {"kind": "ServiceAccount", "serviceAccount": {"name": name, "namespace": namespace}}


_ALL = [_group("system:unauthenticated"), _group("system:authenticated")]
_LEASES = _resources(["coordination.k8s.io"], ["leases"], ["get", "create", "update"], ["*"])
_NODE_PARTS = [
    _resources([""], ["nodes", "nodes/status"], ["*"]),
    _resources(["coordination.k8s.io"], ["leases"], ["*"], ["*"]),
]

# name -> (level, precedence, distinguisher, subjects, resource rules, path rules)
_SCHEMAS: dict[str, tuple[str, int, str, list[Object], list[Object], list[Object]]] = {
    "exempt": ("exempt", 1, "", [_group("system:masters")], [_EVERY], [_PATHS]),
    "probes": (
        "exempt",
        2,
        "",
        _ALL,
        [],
        [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}],
    ),
    "system-leader-election": (
        "leader-election",
        100,
        "ByUser",
        [_user("system:kube-controller-manager"), _user("system:kube-scheduler"), _accounts("*")],
        [_LEASES],
        [],
    ),
    "endpoint-controller": (
        "workload-high",
        150,
        "ByUser",
        [
            _user("system:kube-controller-manager"),
            _accounts("endpoint-controller"),
            _accounts("endpointslicemirroring-controller"),
        ],
        [_resources([""], ["endpoints"], ["get", "create", "update"], ["*"])],
        [],
    ),
    "workload-leader-election": (
        "leader-election",
        200,
        "ByUser",
        [_accounts("*")],
        [_LEASES],
        [],
    ),
    "system-node-high": ("node-high", 400, "ByUser", [_group("system:nodes")], _NODE_PARTS, []),
    "system-nodes": ("system", 500, "ByUser", [_group("system:nodes")], [_EVERY], [_PATHS]),
    "kube-controller-manager": (
        "workload-high",
        800,
        "ByNamespace",
        [_user("system:kube-controller-manager")],
        [_EVERY],
        [_PATHS],
    ),
    "kube-scheduler": ("workload-high", 800, "ByNamespace", [_user("system:kube-scheduler")], [_EVERY], [_PATHS]),
    "kube-system-service-accounts": ("workload-high", 900, "ByNamespace", [_accounts("*")], [_EVERY], [_PATHS]),
    "service-accounts": ("workload-low", 9000, "ByUser", [_group("system:serviceaccounts")], [_EVERY], [_PATHS]),
    "global-default": ("global-default", 9900, "ByUser", _ALL, [_EVERY], [_PATHS]),
    "catch-all": ("catch-all", 10000, "ByUser", _ALL, [_EVERY], [_PATHS]),
}


def objects() -> list[Object]:
    return [_level(name) for name in _LEVELS] + [_schema(name) for name in _SCHEMAS]


def plan(wanted: Object, found: Object | None) -> Object | None:
    """What is to be written, None for nothing. The annotation says who keeps the spec; where it is missing, a spec that nobody
    has changed yet (generation 1) is ours. Source: apiserver's registry/flowcontrol/ensurer/strategy.go."""
    if found is None:
        return wanted
    meta = found["metadata"]
    if meta["name"] in MANDATORY:
        ours = True
    else:
        said = (meta.get("annotations") or {}).get(AUTOUPDATE)
        ours = said == "true" if said in ("true", "false") else meta.get("generation", 1) == 1
    note = "true" if ours else "false"
    noted = (meta.get("annotations") or {}).get(AUTOUPDATE) == note
    right = not ours or _says(found.get("spec"), wanted["spec"])
    if noted and right:
        return None
    out: Object = clone(found)
    out["metadata"]["annotations"] = {**(meta.get("annotations") or {}), AUTOUPDATE: note}
    if not right:
        out["spec"] = wanted["spec"]
    return out


def _says(found: Any, wanted: Any) -> bool:
    """Whether `found` says all that `wanted` says, and no more but defaults."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(_says(found.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return (
            isinstance(found, list) and len(found) == len(wanted) and all(_says(f, w) for f, w in zip(found, wanted, strict=True))
        )
    return bool(found == wanted)


def _metadata(name: str) -> Object:
    return {"name": name, "annotations": {AUTOUPDATE: "true"}}


def _level(name: str) -> Object:
    row = _LEVELS[name]
    if row is None:
        spec: Object = {"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}}
    else:
        shares, lendable, queues, hand, length = row
        response: Object = {"type": "Reject"}
        if queues:
            response = {"type": "Queue", "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": length}}
        limited = {"nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response}
        spec = {"type": "Limited", "limited": limited}
    return {"apiVersion": API_VERSION, "kind": "PriorityLevelConfiguration", "metadata": _metadata(name), "spec": spec}


def _schema(name: str) -> Object:
    level, precedence, distinguisher, subjects, resources, paths = _SCHEMAS[name]
    rule: Object = {"subjects": subjects}
    if resources:
        rule["resourceRules"] = resources
    if paths:
        rule["nonResourceRules"] = paths
    spec: Object = {
        "priorityLevelConfiguration": {"name": level},
        "matchingPrecedence": precedence,
        "rules": [rule],
    }
    if distinguisher:
        spec["distinguisherMethod"] = {"type": distinguisher}
    return {"apiVersion": API_VERSION, "kind": "FlowSchema", "metadata": _metadata(name), "spec": spec}
