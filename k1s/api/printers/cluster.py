"""Roles and bindings, certificates, autoscalers, budgets, webhooks, priority and flow control, devices.

Called by: api/table.py. Never does: workloads, networking, storage (their own files).
"""

from __future__ import annotations

from typing import Any

from k1s.api.meta import Object
from k1s.api.printers.columns import (
    AGE,
    NAME,
    NONE,
    UNSET,
    Printer,
    age,
    column,
    human_duration,
    integer,
    name,
    spec,
    status,
    true_condition,
)
from k1s.api.printers.metrics import targets


def _binding(obj: Object, now: float) -> list[Any]:
    role = obj.get("roleRef") or {}
    users, groups, accounts = [], [], []
    for subject in obj.get("subjects") or ():
        kind, who = subject.get("kind"), subject.get("name") or ""
        if kind == "User":
            users.append(who)
        elif kind == "Group":
            groups.append(who)
        elif kind == "ServiceAccount":
            accounts.append(f"{subject.get('namespace') or ''}/{who}")
    shown = f"{role.get('kind')}/{role.get('name')}"
    return [name(obj), shown, age(obj, now), ", ".join(users), ", ".join(groups), ", ".join(accounts)]


def _csr_condition(obj: Object) -> str:
    kinds = [c.get("type") for c in status(obj).get("conditions") or ()]
    words = [word for word in ("Approved", "Denied", "Failed") if word in kinds]
    if status(obj).get("certificate"):
        words.append("Issued")
    return ",".join(words) or "Pending"


def _csr(obj: Object, now: float) -> list[Any]:
    wanted = spec(obj).get("expirationSeconds")
    return [
        name(obj),
        age(obj, now),
        spec(obj).get("signerName") or NONE,
        spec(obj).get("username") or "",
        NONE if wanted is None else human_duration(wanted),
        _csr_condition(obj),
    ]


def _trust_bundle(obj: Object, now: float) -> list[Any]:
    return [name(obj), spec(obj).get("signerName") or NONE]


def _pod_certificate(obj: Object, now: float) -> list[Any]:
    state = next((c.get("type") for c in status(obj).get("conditions") or () if c.get("status") == "True"), None) or "Pending"
    return [name(obj), *(spec(obj).get(f"{kind}Name") or "" for kind in ("pod", "serviceAccount", "node", "signer")), state]


def _autoscaler(obj: Object, now: float) -> list[Any]:
    target = spec(obj).get("scaleTargetRef") or {}
    low = spec(obj).get("minReplicas")
    return [
        name(obj),
        f"{target.get('kind')}/{target.get('name')}",
        targets(obj),
        UNSET if low is None else str(low),
        spec(obj).get("maxReplicas") or 0,
        status(obj).get("currentReplicas") or 0,
        age(obj, now),
    ]


def _budget(obj: Object, now: float) -> list[Any]:
    bounds = (spec(obj).get(key) for key in ("minAvailable", "maxUnavailable"))
    shown = ["N/A" if bound is None else str(bound) for bound in bounds]
    return [name(obj), *shown, status(obj).get("disruptionsAllowed") or 0, age(obj, now)]


def _lease(obj: Object, now: float) -> list[Any]:
    return [name(obj), spec(obj).get("holderIdentity") or "", age(obj, now)]


def _priority_class(obj: Object, now: float) -> list[Any]:
    return [name(obj), obj.get("value") or 0, bool(obj.get("globalDefault")), age(obj, now), obj.get("preemptionPolicy") or ""]


def _runtime_class(obj: Object, now: float) -> list[Any]:
    return [name(obj), obj.get("handler") or "", age(obj, now)]


def _webhooks(obj: Object, now: float) -> list[Any]:
    return [name(obj), len(obj.get("webhooks") or ()), age(obj, now)]


def _param_kind(obj: Object) -> str:
    kind = spec(obj).get("paramKind")
    return f"{kind.get('apiVersion')}/{kind.get('kind')}" if kind else UNSET


def _validating_policy(obj: Object, now: float) -> list[Any]:
    return [name(obj), len(spec(obj).get("validations") or ()), _param_kind(obj), age(obj, now)]


def _mutating_policy(obj: Object, now: float) -> list[Any]:
    return [name(obj), len(spec(obj).get("mutations") or ()), _param_kind(obj), age(obj, now)]


def _policy_binding(obj: Object, now: float) -> list[Any]:
    ref = spec(obj).get("paramRef")
    shown = UNSET
    if ref:
        shown = f"{ref['namespace']}/{ref.get('name')}" if ref.get("namespace") else ref.get("name") or "*"
    return [name(obj), spec(obj).get("policyName") or "", shown, age(obj, now)]


def _api_service(obj: Object, now: float) -> list[Any]:
    service = spec(obj).get("service")
    shown = f"{service.get('namespace')}/{service.get('name')}" if service else "Local"
    condition = next((c for c in status(obj).get("conditions") or () if c.get("type") == "Available"), None)
    available = "Unknown"
    if condition:
        available = str(condition.get("status"))
        if not true_condition(obj, "Available"):
            available = f"{available} ({condition.get('reason')})"
    return [name(obj), shown, available, age(obj, now)]


def _flow_schema(obj: Object, now: float) -> list[Any]:
    level = (spec(obj).get("priorityLevelConfiguration") or {}).get("name") or ""
    method = (spec(obj).get("distinguisherMethod") or {}).get("type") or NONE
    dangling: Object = next((c for c in status(obj).get("conditions") or () if c.get("type") == "Dangling"), {})
    return [name(obj), level, spec(obj).get("matchingPrecedence") or 0, method, age(obj, now), dangling.get("status") or "?"]


def _priority_level(obj: Object, now: float) -> list[Any]:
    limited = spec(obj).get("limited")
    part = limited or spec(obj).get("exempt") or {}
    queuing = ((limited or {}).get("limitResponse") or {}).get("queuing")
    shares = part.get("nominalConcurrencyShares")
    cells = [NONE] * 3 if queuing is None else [queuing.get(key) for key in ("queues", "handSize", "queueLengthLimit")]
    return [name(obj), spec(obj).get("type") or "", NONE if shares is None else shares, *cells, age(obj, now)]


def _claim(obj: Object, now: float) -> list[Any]:
    state = status(obj)
    words = [word for key, word in (("allocation", "allocated"), ("reservedFor", "reserved")) if state.get(key)]
    if (obj.get("metadata") or {}).get("deletionTimestamp"):
        words.insert(0, "deleted")
    return [name(obj), ",".join(words) or "pending", age(obj, now)]


def _slice(obj: Object, now: float) -> list[Any]:
    pool = (spec(obj).get("pool") or {}).get("name") or ""
    return [name(obj), spec(obj).get("nodeName") or UNSET, spec(obj).get("driver") or "", pool, age(obj, now)]


def _scale(obj: Object, now: float) -> list[Any]:
    return [name(obj), spec(obj).get("replicas") or 0, status(obj).get("replicas") or 0, age(obj, now)]


def _wide(name: str, description: str) -> dict[str, Any]:
    return column(name, description, wide=True)


_ROLES = Printer(
    (
        NAME,
        column("Role", "The role that is granted."),
        AGE,
        _wide("Users", "Users in the roleBinding"),
        _wide("Groups", "Groups in the roleBinding"),
        _wide("ServiceAccounts", "ServiceAccounts in the roleBinding"),
    ),
    _binding,
)
_HOOKS = Printer(
    (NAME, integer("Webhooks", "Webhooks indicates the number of webhooks defined in this configuration"), AGE), _webhooks
)
_PARAM_KIND = column("ParamKind", "ParamKind specifies the kind of resources used to parameterize this policy")
_POLICY_BINDING = Printer(
    (
        NAME,
        column("PolicyName", "PolicyName indicates the policy definition which the policy binding binded to"),
        column("ParamRef", "ParamRef indicates the param resource which sets the configration param"),
        AGE,
    ),
    _policy_binding,
)
_RBAC, _ADMISSION = "rbac.authorization.k8s.io", "admissionregistration.k8s.io"
_FLOW, _DEVICES = "flowcontrol.apiserver.k8s.io", "resource.k8s.io"

PRINTERS = {
    (_RBAC, "RoleBinding"): _ROLES,
    (_RBAC, "ClusterRoleBinding"): _ROLES,
    ("certificates.k8s.io", "CertificateSigningRequest"): Printer(
        (
            NAME,
            AGE,
            column("SignerName", "The requested signer."),
            column("Requestor", "Who asked."),
            column("RequestedDuration", "How long the certificate is to be valid."),
            column("Condition", "What became of the request."),
        ),
        _csr,
    ),
    ("certificates.k8s.io", "ClusterTrustBundle"): Printer(
        (NAME, column("SignerName", "The signer whose trust anchors these are.")), _trust_bundle
    ),
    ("certificates.k8s.io", "PodCertificateRequest"): Printer(
        (
            NAME,
            column("PodName", "The pod that the certificate is for."),
            column("ServiceAccountName", "The service account of the pod."),
            column("NodeName", "The node of the pod."),
            column("SignerName", "The requested signer."),
            column("State", "Pending, Issued, Denied or Failed."),
        ),
        _pod_certificate,
    ),
    ("autoscaling", "HorizontalPodAutoscaler"): Printer(
        (
            NAME,
            column("Reference", "What is scaled."),
            column("Targets", "Metrics: current/wanted."),
            column("MinPods", "Least number of pods."),
            column("MaxPods", "Greatest number of pods."),
            column("Replicas", "Current number of pods."),
            AGE,
        ),
        _autoscaler,
    ),
    ("autoscaling", "Scale"): Printer(
        (NAME, integer("Desired", "The number of pods wanted."), integer("Available", "The number of pods there are."), AGE),
        _scale,
    ),
    ("policy", "PodDisruptionBudget"): Printer(
        (
            NAME,
            column("Min Available", "The minimum number of pods that must be available."),
            column("Max Unavailable", "The maximum number of pods that may be unavailable."),
            integer("Allowed Disruptions", "Calculated number of pods that may be disrupted at this time."),
            AGE,
        ),
        _budget,
    ),
    ("coordination.k8s.io", "Lease"): Printer((NAME, column("Holder", "Who holds the lease."), AGE), _lease),
    ("scheduling.k8s.io", "PriorityClass"): Printer(
        (
            NAME,
            integer("Value", "The priority that pods of this class get."),
            column("Global-Default", "Whether pods without a class get this one.", type="boolean"),
            AGE,
            column("PreemptionPolicy", "Whether pods of this class push others out."),
        ),
        _priority_class,
    ),
    ("node.k8s.io", "RuntimeClass"): Printer((NAME, column("Handler", "The runtime's handler."), AGE), _runtime_class),
    (_ADMISSION, "ValidatingWebhookConfiguration"): _HOOKS,
    (_ADMISSION, "MutatingWebhookConfiguration"): _HOOKS,
    (_ADMISSION, "ValidatingAdmissionPolicy"): Printer(
        (
            NAME,
            integer("Validations", "Validations indicates the number of validation rules defined in this configuration"),
            _PARAM_KIND,
            AGE,
        ),
        _validating_policy,
    ),
    (_ADMISSION, "MutatingAdmissionPolicy"): Printer(
        (
            NAME,
            integer("Mutations", "Mutation indicates the number of mutations rules defined in this configuration"),
            _PARAM_KIND,
            AGE,
        ),
        _mutating_policy,
    ),
    (_ADMISSION, "ValidatingAdmissionPolicyBinding"): _POLICY_BINDING,
    (_ADMISSION, "MutatingAdmissionPolicyBinding"): _POLICY_BINDING,
    ("apiregistration.k8s.io", "APIService"): Printer(
        (
            NAME,
            column("Service", "The reference to the service that hosts this API endpoint."),
            column("Available", "Whether this service is available."),
            AGE,
        ),
        _api_service,
    ),
    (_FLOW, "FlowSchema"): Printer(
        (
            NAME,
            column("PriorityLevel", "The priority level of the requests that match."),
            integer("MatchingPrecedence", "The lower, the earlier it is tried."),
            column("DistinguisherMethod", "How requests are told apart."),
            AGE,
            column("MissingPL", "Whether the priority level is missing."),
        ),
        _flow_schema,
    ),
    (_FLOW, "PriorityLevelConfiguration"): Printer(
        (
            NAME,
            column("Type", "Limited or Exempt."),
            column("NominalConcurrencyShares", "Share of the server's concurrency."),
            column("Queues", "Number of queues."),
            column("HandSize", "Queues a flow is dealt."),
            column("QueueLengthLimit", "Requests a queue holds."),
            AGE,
        ),
        _priority_level,
    ),
    (_DEVICES, "ResourceClaim"): Printer((NAME, column("State", "A summary of the current state."), AGE), _claim),
    (_DEVICES, "ResourceSlice"): Printer(
        (NAME, column("Node", "The node of the devices."), column("Driver", "The driver."), column("Pool", "The pool."), AGE),
        _slice,
    ),
}
