"""Requests that another server is asked about by a SubjectAccessReview.

Owns: WebhookAuthorizer. Called by: authz/app. Never does: decide for itself, except by its conditions.
Source: upstream apiserver/plugin/pkg/authorizer/webhook. Bounds: 4,096 answers for the times in the configuration, none of more
than 10 KB; 256 questions under way, beyond which it is as if the server had failed.
"""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

from k1s.api.cel.program import CelError, compile_expression
from k1s.api.errors import ApiError
from k1s.api.selectors import parse_fields, parse_labels
from k1s.server.apiserver.answer_cache import AnswerCache
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.server.apiserver.authz.app import Decision
from k1s.server.apiserver.authz.configuration import REQUEST, WebhookConfig
from k1s.server.apiserver.kubeconfig_call import KubeconfigCall
from k1s.server.apiserver.outgoing import CallFailed

Object = dict[str, Any]

MAX_ANSWERS = 4096
MAX_CALLS = 256
_LARGEST_KEPT = 10_000
_NAMES = {"in": "In", "notin": "NotIn", "=": "In", "==": "In", "!=": "NotIn", "exists": "Exists", "!": "DoesNotExist"}


class WebhookAuthorizer:
    def __init__(self, config: WebhookConfig, call: KubeconfigCall, answers: AnswerCache[Decision]) -> None:
        self._config, self._call, self._answers = config, call, answers
        self._calls = 0

    async def decide(self, user: UserInfo, info: RequestInfo) -> Decision:
        spec = review_spec(user, info)
        try:
            if not self._concerned(spec):
                return Decision(False)
        except CelError as error:
            return self._failed(str(error))
        data = orjson.dumps(spec, option=orjson.OPT_SORT_KEYS)
        key = hashlib.sha256(data).digest()
        known = self._answers.get(key)
        if known is not None:
            return known
        if self._calls >= MAX_CALLS:
            return self._failed("too many requests are being asked about")
        review = {"apiVersion": f"authorization.k8s.io/{self._config.version}", "kind": "SubjectAccessReview", "spec": spec}
        if self._config.version == "v1beta1" and "groups" in spec:
            review["spec"] = {**{k: v for k, v in spec.items() if k != "groups"}, "group": spec["groups"]}
        self._calls += 1
        try:
            status = (await self._call.post(review, self._config.timeout))["status"]
        except CallFailed as error:
            return self._failed(str(error))
        finally:
            self._calls -= 1
        decision = _decision(status)
        if len(data) <= _LARGEST_KEPT and not decision.error:
            seconds = self._config.authorized_seconds if decision.allowed else self._config.unauthorized_seconds
            self._answers.put(key, decision, seconds)
        return decision

    def _concerned(self, spec: Object) -> bool:
        """Whether all conditions hold; one that is false decides before one that fails. Raises CelError."""
        if not self._config.conditions:
            return True
        value = _whole(spec)
        failed: CelError | None = None
        for condition in self._config.conditions:
            try:
                if compile_expression(condition, REQUEST).evaluate({"request": value}) is not True:
                    return False
            except CelError as error:
                failed = error
        if failed is not None:
            raise failed
        return True

    def _failed(self, why: str) -> Decision:
        return Decision(False, denied=self._config.deny_on_failure, error=why)


def review_spec(user: UserInfo, info: RequestInfo) -> Object:
    """The spec of a SubjectAccessReview about a request."""
    spec: Object = {"user": user.name}
    if user.groups:
        spec["groups"] = list(user.groups)
    if user.uid:
        spec["uid"] = user.uid
    if user.extra:
        spec["extra"] = {key: list(values) for key, values in user.extra.items()}
    if not info.is_resource:
        spec["nonResourceAttributes"] = {"path": info.path, "verb": info.verb}
        return spec
    attributes: Object = {
        "namespace": info.namespace,
        "verb": info.verb,
        "group": info.group,
        "version": info.version,
        "resource": info.plural,
        "subresource": info.subresource,
        "name": info.name,
    }
    spec["resourceAttributes"] = {key: value for key, value in attributes.items() if value}
    for key, terms in (("fieldSelector", _fields(info.field_selector)), ("labelSelector", _labels(info.label_selector))):
        if terms:
            spec["resourceAttributes"][key] = {"requirements": terms}
    return spec


def _whole(spec: Object) -> Object:
    """The same for expressions, which may speak of every field that there can be."""
    out = {"user": "", "groups": [], "uid": "", "extra": {}, **spec}
    if "resourceAttributes" in spec:
        keys = ("namespace", "verb", "group", "version", "resource", "subresource", "name")
        out["resourceAttributes"] = {**dict.fromkeys(keys, ""), **spec["resourceAttributes"]}
    return out


def _fields(selector: str) -> list[Object]:
    # One that cannot be read is refused by the handler; the question is the wider one then.
    try:
        terms = parse_fields(selector).requirements if selector else ()
    except ApiError:
        return []
    return [{"key": t.field, "operator": "In" if t.operator == "=" else "NotIn", "values": [t.value]} for t in terms]


def _labels(selector: str) -> list[Object]:
    try:
        terms = parse_labels(selector).requirements if selector else ()
    except ApiError:
        return []
    out: list[Object] = []
    for term in terms:
        if term.operator in _NAMES:
            entry: Object = {"key": term.key, "operator": _NAMES[term.operator]}
            out.append({**entry, "values": list(term.values)} if term.values else entry)
    return out


def _decision(status: Object) -> Decision:
    allowed, denied = status.get("allowed") is True, status.get("denied") is True
    reason = str(status.get("reason") or "")
    if allowed and denied:
        return Decision(False, True, reason, "webhook subject access review returned both allow and deny response")
    return Decision(allowed, denied, reason)
