"""pods/eviction: a delete that asks the pod disruption budgets first.

Owns: handle. Called by: registry. Never does: keep budgets' status (a controller does); it takes one from disruptionsAllowed.
Source: pkg/registry/core/pod/storage/eviction.go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from k1s.api.catalog import builtin
from k1s.api.errors import ApiError, bad_request
from k1s.api.schema import schema_for_kind
from k1s.api.selectors import labels_from
from k1s.api.type_check import check_types
from k1s.base.clock import rfc3339
from k1s.base.http import Answer, Request
from k1s.server.apiserver.answers import json_answer
from k1s.server.apiserver.attributes import AdmissionRequest, RequestInfo, UserInfo
from k1s.server.apiserver.call import Call, check_kind, decode_body
from k1s.server.apiserver.deletion import DeleteOptions, check_preconditions, delete_object
from k1s.server.apiserver.entries import Entry
from k1s.server.apiserver.negotiation import body_form

if TYPE_CHECKING:
    from k1s.server.apiserver.app import ApiServer

Object = dict[str, Any]

# Evictions that may be under way in one budget before it must catch up (upstream's MaxDisruptedPodSize).
_MAX_DISRUPTED = 2000


async def handle(request: Request, info: RequestInfo, user: UserInfo, server: ApiServer) -> Answer:
    call = Call(request, info, user, server)
    call.options("CreateOptions")
    eviction, _ = decode_body(await call.body(), body_form(request))
    given = eviction.get("apiVersion")
    if given not in (None, "", "policy/v1"):
        raise bad_request(f"the API version in the data ({given}) does not match the expected API version (policy/v1)")
    eviction["apiVersion"] = call.resource.api_version
    check_kind(eviction, call.resource, server, "Eviction")
    eviction["apiVersion"] = "policy/v1"
    check_types(eviction, schema_for_kind("policy", "v1", "Eviction"))
    name = (eviction.get("metadata") or {}).get("name") or info.name
    if name != info.name:
        raise bad_request("name in URL does not match name in Eviction object")
    options = DeleteOptions.read(eviction.get("deleteOptions") or {})
    options.dry_run = options.dry_run or call.dry_run
    pod = await server.objects.get(call.stored, call.namespace, name)
    await _admit(call, eviction, options)
    if _needs_budget(pod.obj()):
        await _take_budget(call, pod, options)
    if not options.dry_run:
        await _say_why(call, name, options)
    await delete_object(server, call.stored, call.namespace, name, options, call.origin)
    return json_answer({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, 201)


async def _say_why(call: Call, name: str, options: DeleteOptions) -> None:
    """The pod's condition DisruptionTarget, by which a Job's failure policy knows an eviction (KEP-3329)."""
    server = call.server
    condition = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
        "lastProbeTime": None,
        "lastTransitionTime": rfc3339(server.clock.now()),
    }

    async def change(entry: Entry) -> Object:
        check_preconditions(call.stored, name, entry, options)
        pod = entry.fresh()
        status = pod.setdefault("status", {})
        others = [c for c in status.get("conditions") or [] if c.get("type") != "DisruptionTarget"]
        status["conditions"] = [*others, condition]
        return pod

    entry = await server.objects.guaranteed_update(call.stored, call.namespace, name, change, call.origin)
    if options.resource_version:
        options.resource_version = str(entry.revision)


async def _admit(call: Call, eviction: Object, options: DeleteOptions) -> None:
    if call.server.admission is None:
        return
    step = AdmissionRequest(
        "CREATE", call.resource, call.subresource, call.namespace, call.name, eviction, None, call.user, options.dry_run
    )
    await call.server.admission.mutate(step)
    await call.server.admission.validate(step)
    call.warnings += step.warnings


def _needs_budget(pod: Object) -> bool:
    """A pod that is over, pending or going already can go without asking."""
    phase = (pod.get("status") or {}).get("phase")
    return phase not in ("Succeeded", "Failed", "Pending") and not pod["metadata"].get("deletionTimestamp")


def _ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


async def _take_budget(call: Call, entry: Entry, options: DeleteOptions) -> None:
    """Note the eviction in the pod's budget. Raises ApiError 429 when it allows none, 500 when there are two budgets."""
    server, pod = call.server, entry.obj()
    budgets = builtin("PodDisruptionBudget")
    labels = pod["metadata"].get("labels") or {}
    found = [
        budget.obj()
        for budget in server.hub.cache(budgets).entries(call.namespace)
        if labels_from((budget.obj().get("spec") or {}).get("selector")).matches(labels)
    ]
    if not found:
        return
    if len(found) > 1:
        message = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
        raise ApiError(500, "InternalError", message)
    name = found[0]["metadata"]["name"]
    if not _ready(pod) and _unready_may_go(found[0]):
        return
    now = rfc3339(server.clock.now())

    async def change(budget: Entry) -> Object:
        return _charged(budget.fresh(), entry.name, now)

    await server.objects.guaranteed_update(budgets, call.namespace, name, change, call.origin, dry_run=options.dry_run)


def _unready_may_go(budget: Object) -> bool:
    if (budget.get("spec") or {}).get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return True
    status = budget.get("status") or {}
    desired = int(status.get("desiredHealthy", 0))
    return desired > 0 and int(status.get("currentHealthy", 0)) >= desired


def _charged(budget: Object, pod: str, now: str) -> Object:
    name, status = budget["metadata"]["name"], budget.setdefault("status", {})
    if status.get("observedGeneration", 0) < budget["metadata"].get("generation", 0):
        message = "Cannot evict pod as it would violate the pod's disruption budget."
        detail = f"The disruption budget {name} is still being processed by the server."
        raise _refused(message, detail, 10)
    allowed = status.get("disruptionsAllowed", 0)
    if allowed <= 0:
        healthy, desired = status.get("currentHealthy", 0), status.get("desiredHealthy", 0)
        detail = f"The disruption budget {name} needs {desired} healthy pods and has {healthy} currently"
        raise _refused("Cannot evict pod as it would violate the pod's disruption budget.", detail, 0)
    disrupted = status.setdefault("disruptedPods", {})
    if len(disrupted) > _MAX_DISRUPTED:
        raise ApiError(403, "Forbidden", "DisruptedPods map too big - too many evictions not confirmed by PDB controller")
    disrupted[pod] = now
    status["disruptionsAllowed"] = allowed - 1
    return budget


def _refused(message: str, detail: str, retry: int) -> ApiError:
    details: Object = {"causes": [{"reason": "DisruptionBudget", "message": detail}]}
    if retry:
        details["retryAfterSeconds"] = retry
    return ApiError(429, "TooManyRequests", message, details)
