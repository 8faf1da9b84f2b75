"""MutatingAdmissionPolicy: changes written in CEL, as apply configurations or JSON patches, in the order of the policies' names.

Owns: MutatingPolicies. Called by: admission/chain, before the mutating webhooks. Never does: defaults and pruning afterwards:
writes does them when `request.patched` says so.
Source: apiserver/pkg/admission/plugin/policy/mutating.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from k1s.api.catalog import Resource
from k1s.api.cel.optional import jsonable
from k1s.api.cel.program import CelError
from k1s.api.clone import clone
from k1s.api.errors import ApiError
from k1s.api.patch.json import apply_json_patch
from k1s.api.patch.typed_merge import merge
from k1s.api.schema import Schema, schema_for, schema_for_kind
from k1s.api.typed import TypeMismatch, field_schema, is_granular_list, is_granular_map, item_schema
from k1s.server.apiserver.admission.conditions import match
from k1s.server.apiserver.admission.policy_evaluation import Composition
from k1s.server.apiserver.admission.policy_step import Misconfigured, PolicyStep
from k1s.server.apiserver.admission.step import refuse
from k1s.server.apiserver.attributes import AdmissionRequest

Object = Mapping[str, Any]
Json = dict[str, Any]


class MutatingPolicies(PolicyStep):
    kind = "MutatingAdmissionPolicy"
    operations = frozenset({"CREATE", "UPDATE", "CONNECT"})

    async def mutate(self, request: AdmissionRequest) -> None:
        if request.obj is None:
            return
        for policy, binding, row in self.concerned(request):
            await self._run(policy, binding, request, row)
            if policy["spec"].get("reinvocationPolicy") == "IfNeeded":
                request.seen[_key(policy, binding)] = orjson.dumps(request.obj)

    async def mutate_again(self, request: AdmissionRequest) -> None:
        for policy, binding, row in self.concerned(request):
            seen = request.seen.get(_key(policy, binding))
            if seen is not None and orjson.dumps(request.obj) != seen:
                await self._run(policy, binding, request, row)

    async def _run(self, policy: Object, binding: Object, request: AdmissionRequest, row: Resource) -> None:
        errors: list[Exception] = []
        try:
            for params in await self.params(policy, binding, request):
                errors += await self._mutate(policy, params, request, row)
        except (Misconfigured, CelError) as error:
            errors.append(error)
        if errors and policy["spec"].get("failurePolicy") != "Ignore":
            raise _refusal(policy, binding, errors[0], request)

    async def _mutate(self, policy: Object, params: Any, request: AdmissionRequest, row: Resource) -> list[Exception]:
        """Make a policy's changes; those that fail are left out and given back. Raises CelError if it cannot be asked."""
        spec, stored = policy["spec"], self.stored(request.resource)
        assert request.obj is not None
        main = request.obj.get("kind") == stored.kind
        values = (await self.values(request, row)).having(params=params)
        if not match(spec.get("matchConditions") or (), Composition(spec.get("variables") or [], values)):
            return []
        errors: list[Exception] = []
        obj = clone(request.obj)
        if main:
            obj = await self.convert(obj, stored, row)
        for mutation in spec.get("mutations") or ():
            # Each sees what the ones before it did, and so do the policy's variables.
            run = Composition(spec.get("variables") or [], values.having(object=obj))
            try:
                obj = _changed(obj, mutation, run, row)
            except (CelError, TypeMismatch, ApiError) as error:
                errors.append(error)
        changed = await self.convert(obj, row, stored) if main else obj
        if changed != request.obj:
            request.obj.clear()
            request.obj.update(changed)
            request.patched = True
        return errors


def _refusal(policy: Object, binding: Object, error: Exception, request: AdmissionRequest) -> ApiError:
    """As upstream's policy dispatcher says it: 403 whatever the reason, and no "is forbidden" before it."""
    names = f"policy '{policy['metadata']['name']}'"
    if not (isinstance(error, Misconfigured) and error.policy):
        names += f" with binding '{binding['metadata']['name']}'"
    message = f"{names} denied request: {error}"
    details = {**(refuse(request, message).details or {}), "causes": [{"message": message}]}
    return ApiError(403, "Forbidden" if isinstance(error, Misconfigured) else "Invalid", message, details)


def _key(policy: Object, binding: Object) -> str:
    return f"policy {policy['metadata']['name']}/{binding['metadata']['name']}"


def _changed(obj: Json, mutation: Object, run: Composition, row: Resource) -> Json:
    if mutation.get("patchType") == "JSONPatch":
        expression = mutation["jsonPatch"]["expression"]
        operations = _evaluated(run, expression)
        if not isinstance(operations, list):
            raise CelError(f"expression '{expression}' must evaluate to a list of JSONPatch")
        patched: Json = apply_json_patch(obj, operations)
        return patched
    expression = mutation["applyConfiguration"]["expression"]
    wanted = _evaluated(run, expression)
    if not isinstance(wanted, dict):
        raise CelError(f"expression '{expression}' must evaluate to an Object")
    schema = schema_for(row) if obj.get("kind") == row.kind else _schema_of(obj)
    atomic = _atomic(wanted, schema, "")
    if atomic:
        raise CelError(f"invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {', '.join(atomic)}")
    merged: Json = clone(merge(obj, wanted, schema))
    return merged


def _evaluated(run: Composition, expression: str) -> Any:
    try:
        return jsonable(run.evaluate(expression))
    except CelError as error:
        raise CelError(f"expression '{expression}' resulted in error: {error}") from error


def _schema_of(obj: Json) -> Schema:
    group, _, version = str(obj.get("apiVersion") or "").rpartition("/")
    return schema_for_kind(group, version, obj["kind"])


def _atomic(value: Any, schema: Schema, path: str) -> list[str]:
    """What of a configuration would replace more than it says."""
    if isinstance(value, dict):
        if not is_granular_map(value, schema):
            return [path]
        return [fault for key, item in value.items() for fault in _atomic(item, field_schema(schema, key), f"{path}.{key}")]
    if isinstance(value, list):
        if not is_granular_list(value, schema):
            return [path]
        items = item_schema(schema)
        return [fault for index, item in enumerate(value) for fault in _atomic(item, items, f"{path}[{index}]")]
    return []
