"""The two admission steps that ask other servers: mutating webhooks one after the other, validating ones at the same time.

Owns: MutatingWebhooks, ValidatingWebhooks. Called by: admission/chain. Never does: defaults and pruning after a patch: writes
does them when `request.patched` says so.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import orjson

from k1s.api.catalog import Catalog, Resource, builtin
from k1s.api.cel.program import CelError
from k1s.api.clone import clone
from k1s.api.convert import convert
from k1s.api.errors import ApiError, internal
from k1s.api.patch.json import apply_json_patch
from k1s.client.interface import Informer, InformerFactory
from k1s.server.apiserver.admission.conditions import match, values_of
from k1s.server.apiserver.admission.matching import Scope, exempt
from k1s.server.apiserver.admission.step import Step
from k1s.server.apiserver.admission.webhooks.caller import Caller, CallFailed
from k1s.server.apiserver.admission.webhooks.review import BadAnswer, denied, patch_of, read, review
from k1s.server.apiserver.attributes import AdmissionRequest
from k1s.server.apiserver.authz.app import Authorizer

Object = dict[str, Any]
Hook = Mapping[str, Any]

_DEFAULT_SECONDS = 10


class _Webhooks(Step):
    """What both have in common: which hooks a request concerns, and one call."""

    kind = ""

    def __init__(
        self, informers: InformerFactory, catalog: Catalog, caller: Caller, authorizer: Authorizer | None = None
    ) -> None:
        self._catalog, self._caller, self._authorizer = catalog, caller, authorizer
        self._configurations: Informer = informers.informer(builtin(self.kind))
        self._scope = Scope(catalog, informers.informer(builtin("Namespace")))
        self._hooks: tuple[Hook, ...] = ()
        self._stale = True
        self._configurations.add_handler(self._changed)

    def _changed(self, old: Object | None, new: Object | None) -> None:
        self._stale = True

    def _all(self) -> tuple[Hook, ...]:
        """Every hook in the order of its configuration's name."""
        if self._stale:
            configurations = sorted(self._configurations.list(), key=lambda c: str(c["metadata"]["name"]))
            self._hooks = tuple(hook for c in configurations for hook in c.get("webhooks") or ())
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
            raise ApiError(403, "Forbidden", f"admission webhook {json.dumps(hook['name'])}: {error}") from error
        return row if matched else None

    def _stored(self, resource: Resource) -> Resource:
        found = None
        if resource.storage_version:
            found = self._catalog.by_plural(resource.storage_group, resource.storage_version, resource.storage_plural)
        return found if found is not None else resource

    async def _ask(self, hook: Hook, request: AdmissionRequest, row: Resource) -> Object | None:
        """The hook's answer; None if it could not be asked and that may be ignored. Raises ApiError 500 or its refusal."""
        question = review(request, row, self._stored(request.resource), hook.get("admissionReviewVersions") or ["v1"])
        seconds = float(hook.get("timeoutSeconds") or _DEFAULT_SECONDS)
        try:
            data = await self._caller.post(hook["clientConfig"], orjson.dumps(question), seconds)
            response = read(data, question)
        except (CallFailed, BadAnswer) as error:
            if hook.get("failurePolicy") == "Ignore":
                return None
            raise _failed(hook, error) from error
        request.warnings += [str(text) for text in response.get("warnings") or ()]
        for key, value in (response.get("auditAnnotations") or {}).items():
            request.annotations[f"{hook['name']}/{key}"] = str(value)
        if not response.get("allowed"):
            raise denied(hook["name"], response)
        return response


class MutatingWebhooks(_Webhooks):
    kind = "MutatingWebhookConfiguration"

    async def mutate(self, request: AdmissionRequest) -> None:
        hooks = self._all()
        if not hooks or exempt(request):
            return
        # Of hooks that want to see what later ones changed: the object each saw last.
        again: list[tuple[Hook, bytes]] = []
        for hook in hooks:
            await self._run(hook, request)
            if hook.get("reinvocationPolicy") == "IfNeeded":
                again.append((hook, orjson.dumps(request.obj)))
        for hook, seen in again:
            if orjson.dumps(request.obj) != seen:
                await self._run(hook, request)

    async def _run(self, hook: Hook, request: AdmissionRequest) -> None:
        row = self._concerned(request, hook)
        if row is None:
            return
        response = await self._ask(hook, request, row)
        if response is None or request.obj is None:
            return
        try:
            operations = patch_of(response)
            if operations:
                self._patch(request, row, operations)
        except BadAnswer as error:
            if hook.get("failurePolicy") != "Ignore":
                raise _failed(hook, error) from error
        except ApiError as error:
            raise internal(error.message) from error

    def _patch(self, request: AdmissionRequest, row: Resource, operations: list[Object]) -> None:
        obj, stored = request.obj, self._stored(request.resource)
        assert obj is not None
        main = obj.get("kind") == stored.kind
        given = convert(clone(obj), stored, row) if main else clone(obj)
        changed = apply_json_patch(given, operations)
        if main:
            changed = convert(changed, row, stored)
        obj.clear()
        obj.update(changed)
        request.patched = True


class ValidatingWebhooks(_Webhooks):
    kind = "ValidatingWebhookConfiguration"

    async def validate(self, request: AdmissionRequest) -> None:
        hooks = self._all()
        if not hooks or exempt(request):
            return
        concerned = [(hook, row) for hook in hooks if (row := self._concerned(request, hook)) is not None]
        if not concerned:
            return
        answers = await asyncio.gather(*(self._ask(hook, request, row) for hook, row in concerned), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer


def _failed(hook: Hook, error: Exception) -> ApiError:
    return internal(f"failed calling webhook {json.dumps(hook['name'])}: failed to call webhook: {error}")
