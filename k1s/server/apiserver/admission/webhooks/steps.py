"""The two admission steps that ask other servers: mutating webhooks one after the other, validating ones at the same time.

Owns: MutatingWebhooks, ValidatingWebhooks. Called by: admission/chain. Never does: defaults and pruning after a patch: writes
does them when `request.patched` says so.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

from k1s.api.catalog import Catalog, Resource, builtin
from k1s.api.cel.program import CelError
from k1s.api.clone import clone
from k1s.api.convert import convert
from k1s.api.decode import check_types
from k1s.api.defaults.table import apply_defaults
from k1s.api.errors import ApiError, bad_request, internal
from k1s.api.patch.json import Rejected, apply_json_patch
from k1s.api.prune import prune
from k1s.api.schema import schema_for
from k1s.client.interface import Informer, InformerFactory
from k1s.server.apiserver.admission.conditions import match, values_of
from k1s.server.apiserver.admission.matching import Scope, exempt
from k1s.server.apiserver.admission.step import Step, refuse
from k1s.server.apiserver.admission.webhooks.caller import Caller, CallFailed
from k1s.server.apiserver.admission.webhooks.review import BadAnswer, BadPatchType, denied, patch_of, read, review
from k1s.server.apiserver.attributes import AdmissionRequest
from k1s.server.apiserver.authz.app import Authorizer

Object = dict[str, Any]
Hook = Mapping[str, Any]

# (object, the version it is in, the version wanted)
Convert = Callable[[Object, Resource, Resource], Awaitable[Object]]

_DEFAULT_SECONDS = 10
_DRY_RUN = ("None", "NoneOnDryRun")


async def convert_builtin(obj: Object, source: Resource, target: Resource) -> Object:
    """A Convert for servers without custom resources."""
    return convert(obj, source, target)


class _Webhooks(Step):
    """What both have in common: which hooks a request concerns, and one call."""

    kind = ""
    # What audit annotations begin with.
    audit = ""

    def __init__(
        self,
        informers: InformerFactory,
        catalog: Catalog,
        caller: Caller,
        authorizer: Authorizer | None = None,
        convert: Convert = convert_builtin,
    ) -> None:
        self._catalog, self._caller, self._authorizer, self._convert = catalog, caller, authorizer, convert
        self._configurations: Informer = informers.informer(builtin(self.kind))
        self._scope = Scope(catalog, informers.informer(builtin("Namespace")))
        self._hooks: tuple[tuple[str, Hook], ...] = ()
        self._stale = True
        self._configurations.add_handler(self._changed)

    def _changed(self, old: Object | None, new: Object | None) -> None:
        self._stale = True

    def _all(self) -> tuple[tuple[str, Hook], ...]:
        """Every hook and its key, in the order of its configuration's name."""
        if self._stale:
            configurations = sorted(self._configurations.list(), key=lambda c: str(c["metadata"]["name"]))
            self._hooks = tuple(
                (f"{c['metadata']['name']}/{hook['name']}", hook) for c in configurations for hook in c.get("webhooks") or ()
            )
            self._stale = False
        return self._hooks

    def _concerned(self, request: AdmissionRequest, hook: Hook) -> Resource | None:
        row = self._scope.matches(hook, request)
        if row is None or not hook.get("matchConditions"):
            return row
        try:
            namespace, stored = self._scope.namespace(request), self._stored(request.resource)
            values = values_of(request, row, namespace, stored=stored, authorizer=self._authorizer)
            matched = match(hook["matchConditions"], values)
        except CelError as error:
            if hook.get("failurePolicy") == "Ignore":
                return None
            raise refuse(request, str(error)) from error
        return row if matched else None

    def _stored(self, resource: Resource) -> Resource:
        found = None
        if resource.storage_version:
            found = self._catalog.by_plural(resource.storage_group, resource.storage_version, resource.storage_plural)
        return found if found is not None else resource

    async def _ask(self, hook: Hook, request: AdmissionRequest, row: Resource, place: str) -> Object | None:
        """The hook's answer; None if it could not be asked and that may be ignored. Raises ApiError 500 or its refusal."""
        if request.dry_run and hook.get("sideEffects") not in _DRY_RUN:
            raise bad_request(f"admission webhook {json.dumps(hook['name'])} does not support dry run")
        obj, old = await self._in_version(request, request.obj, row), await self._in_version(request, request.old, row)
        question = review(request, row, obj, old, hook.get("admissionReviewVersions") or ["v1"])
        seconds = float(hook.get("timeoutSeconds") or _DEFAULT_SECONDS)
        try:
            data = await self._caller.post(hook["clientConfig"], orjson.dumps(question), seconds)
            response = read(data, question, mutating=self.mutates())
        except (CallFailed, BadAnswer) as error:
            if hook.get("failurePolicy") == "Ignore":
                request.annotations[f"failed-open.{self.audit}/{place}"] = hook["name"]
                return None
            raise _failed(hook, error) from error
        request.warnings += [str(text) for text in response.get("warnings") or ()]
        for key, value in (response.get("auditAnnotations") or {}).items():
            request.annotations[f"{hook['name']}/{key}"] = str(value)
        if not response.get("allowed"):
            raise denied(hook["name"], response)
        return response

    async def _in_version(self, request: AdmissionRequest, obj: Object | None, row: Resource) -> Object | None:
        # What a subresource takes (a Scale, an Eviction) has one version only.
        stored = self._stored(request.resource)
        if obj is None or obj.get("kind") != stored.kind or obj.get("apiVersion") == row.api_version:
            return obj
        return await self._convert(obj, stored, row)


class MutatingWebhooks(_Webhooks):
    kind = "MutatingWebhookConfiguration"
    audit = "mutation.webhook.admission.k8s.io"

    async def mutate(self, request: AdmissionRequest) -> None:
        hooks = self._all()
        if not hooks or exempt(request):
            return
        for index, (key, hook) in enumerate(hooks):
            called = await self._run(key, hook, request, f"round_0_index_{index}")
            # One that did not match is not asked again, though it may match by then.
            if called and hook.get("reinvocationPolicy") == "IfNeeded":
                request.seen[key] = orjson.dumps(request.obj)

    async def mutate_again(self, request: AdmissionRequest) -> None:
        for index, (key, hook) in enumerate(self._all()):
            seen = request.seen.get(key)
            if seen is not None and orjson.dumps(request.obj) != seen:
                await self._run(key, hook, request, f"round_1_index_{index}")

    async def _run(self, key: str, hook: Hook, request: AdmissionRequest, place: str) -> bool:
        """Whether the hook was asked."""
        row = self._concerned(request, hook)
        if row is None:
            return False
        response = await self._ask(hook, request, row, place)
        noted: Object = {"configuration": key.partition("/")[0], "webhook": hook["name"], "mutated": False}
        if response is not None:
            try:
                operations = patch_of(response)
                if operations and request.obj is None:
                    name = json.dumps(hook["name"])
                    raise internal(
                        f"admission webhook {name} attempted to modify the object, which is not supported for this operation"
                    )
                if operations:
                    noted["mutated"] = await self._patch(request, row, operations)
                    patched = {**noted, "patch": operations, "patchType": "JSONPatch"}
                    del patched["mutated"]
                    request.annotations[f"patch.webhook.admission.k8s.io/{place}"] = orjson.dumps(patched).decode()
            except BadPatchType as error:
                if hook.get("failurePolicy") != "Ignore":
                    raise internal(f"failed calling webhook {json.dumps(hook['name'])}: {error}") from error
                request.annotations[f"failed-open.{self.audit}/{place}"] = hook["name"]
            except BadAnswer as error:  # upstream's failure policy does not speak of patches that make no sense
                raise internal(str(error)) from error
            except ApiError as error:
                if error.reason == "InternalError":
                    raise
                raise internal(error.detail if isinstance(error, Rejected) else error.message) from error
        request.annotations[f"{self.audit}/{place}"] = orjson.dumps(noted).decode()
        return True

    async def _patch(self, request: AdmissionRequest, row: Resource, operations: list[Object]) -> bool:
        """Change the object; whether that made a difference."""
        obj, stored = request.obj, self._stored(request.resource)
        assert obj is not None
        before = orjson.dumps(obj, option=orjson.OPT_SORT_KEYS)
        main = obj.get("kind") == stored.kind
        given = await self._in_version(request, clone(obj), row)
        assert given is not None
        changed = apply_json_patch(given, operations)
        if main:
            if stored.api_version != row.api_version:
                changed = await self._convert(changed, row, stored)
            if not stored.custom:
                # The next one is to see a whole object.
                schema = schema_for(stored)
                check_types(changed, schema)
                prune(changed, schema)
                apply_defaults(stored, changed)
        obj.clear()
        obj.update(changed)
        different = before != orjson.dumps(obj, option=orjson.OPT_SORT_KEYS)
        request.patched = request.patched or different
        return different


class ValidatingWebhooks(_Webhooks):
    kind = "ValidatingWebhookConfiguration"
    audit = "validating.webhook.admission.k8s.io"

    async def validate(self, request: AdmissionRequest) -> None:
        hooks = self._all()
        if not hooks or exempt(request):
            return
        concerned = [(hook, row) for _, hook in hooks if (row := self._concerned(request, hook)) is not None]
        if not concerned:
            return
        asked = (self._ask(hook, request, row, f"round_0_index_{index}") for index, (hook, row) in enumerate(concerned))
        answers = await asyncio.gather(*asked, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer


def _failed(hook: Hook, error: Exception) -> ApiError:
    what = "received invalid webhook response" if isinstance(error, BadAnswer) else "failed to call webhook"
    return internal(f"failed calling webhook {json.dumps(hook['name'])}: {what}: {error}")
