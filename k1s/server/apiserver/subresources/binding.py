"""pods/binding (and the old bindings collection): gives a pod its node.

Owns: handle, handle_collection. Called by: registry. Never does: choose the node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from k1s.api.catalog import Resource, builtin
from k1s.api.errors import FieldError, bad_request, conflict, invalid
from k1s.base.clock import rfc3339
from k1s.base.http import Answer, Request
from k1s.server.apiserver.answers import json_answer
from k1s.server.apiserver.attributes import AdmissionRequest, RequestInfo, UserInfo
from k1s.server.apiserver.call import Call
from k1s.server.apiserver.entries import Entry

if TYPE_CHECKING:
    from k1s.server.apiserver.app import ApiServer

Object = dict[str, Any]


async def handle(request: Request, info: RequestInfo, user: UserInfo, server: ApiServer) -> Answer:
    return await _bind(Call(request, info, user, server), info.name)


async def handle_collection(request: Request, info: RequestInfo, user: UserInfo, server: ApiServer) -> Answer:
    return await _bind(Call(request, info, user, server), "")


async def _bind(call: Call, name: str) -> Answer:
    call.options("CreateOptions")
    binding = await call.object(_binding())
    meta = binding["metadata"]
    if name and (meta.get("name") or name) != name:
        raise bad_request("name in URL does not match name in Binding object")
    name = name or meta.get("name") or ""
    target = binding.get("target") or {}
    _check_target(target, name)
    pods, server = builtin("Pod"), call.server
    admission = AdmissionRequest(
        "CREATE", call.resource, call.subresource, call.namespace, name, binding, None, call.user, call.dry_run
    )
    if server.admission is not None:
        await server.admission.mutate(admission)
        await server.admission.validate(admission)

    async def change(entry: Entry) -> Object:
        return _bound(entry, pods, meta, target["name"], rfc3339(server.clock.now()))

    await server.objects.guaranteed_update(pods, call.namespace, name, change, call.origin, dry_run=call.dry_run)
    return json_answer({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, 201)


def _binding() -> Resource:
    return builtin("Binding")


def _check_target(target: Object, name: str) -> None:
    errors = []
    kind = target.get("kind") or ""
    if kind not in ("", "Node"):
        errors.append(FieldError("FieldValueNotSupported", "target.kind", 'supported values: "Node", "<empty>"', kind))
    if not target.get("name"):
        errors.append(FieldError("FieldValueRequired", "target.name"))
    if errors:
        raise invalid("Binding", "", name, errors)


def _bound(entry: Entry, pods: Resource, meta: Object, node: str, now: str) -> Object:
    """The pod on its node. Raises ApiError 409."""
    pod = entry.fresh()
    own = pod["metadata"]
    if meta.get("uid") and meta["uid"] != own.get("uid"):
        why = f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {own.get('uid')}"
        raise conflict(pods.plural, pods.group, entry.name, why)
    if meta.get("resourceVersion") and meta["resourceVersion"] != str(entry.revision):
        why = (
            f"Precondition failed: ResourceVersion in precondition: {meta['resourceVersion']}, "
            f"ResourceVersion in object meta: {entry.revision}"
        )
        raise conflict(pods.plural, pods.group, entry.name, why)
    if own.get("deletionTimestamp"):
        raise conflict("pods/binding", "", entry.name, f"pod {entry.name} is being deleted, cannot be assigned to a host")
    spec = pod["spec"]
    if spec.get("nodeName"):
        why = f'pod {entry.name} is already assigned to node "{spec["nodeName"]}"'
        raise conflict("pods/binding", "", entry.name, why)
    if spec.get("schedulingGates"):
        raise conflict("pods/binding", "", entry.name, f"pod {entry.name} has non-empty .spec.schedulingGates")
    spec["nodeName"] = node
    for field in ("annotations", "labels"):
        if meta.get(field):
            own[field] = {**(own.get(field) or {}), **meta[field]}
    status = pod.setdefault("status", {})
    # The promise has been kept (KEP-5278): who counts promised nodes must not count this pod twice.
    status.pop("nominatedNodeName", None)
    conditions = [c for c in status.get("conditions") or [] if c.get("type") != "PodScheduled"]
    status["conditions"] = [
        *conditions,
        {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now},
    ]
    return pod
