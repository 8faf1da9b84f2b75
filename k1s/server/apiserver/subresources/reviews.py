"""TokenReview, the four access reviews and SelfSubjectReview: questions asked by creating an object that is never stored.

Owns: their validation and answers. Called by: apiserver/registry. Never does: decide (authn and authz do).
Source: upstream pkg/registry/authentication, pkg/registry/authorization.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import orjson

from k1s.api.errors import ApiError, FieldError, bad_request, forbidden_field, invalid, invalid_value, required
from k1s.base.clock import rfc3339
from k1s.base.http import Answer, Request, Response
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.server.apiserver.authn.app import Authenticator
from k1s.server.apiserver.authz.app import Authorizer
from k1s.server.apiserver.authz.node import node_name
from k1s.server.apiserver.call import Call

if TYPE_CHECKING:
    from k1s.server.apiserver.app import ApiServer

Object = dict[str, Any]


class ReviewHandler:
    """`handle` answers the create of any of the review resources; `KINDS` names them."""

    def __init__(self, authenticator: Authenticator, authorizer: Authorizer) -> None:
        self._authenticator, self._authorizer = authenticator, authorizer
        self._by_kind: dict[str, Callable[[Object, UserInfo, RequestInfo], Object]] = {
            "TokenReview": self._token,
            "SubjectAccessReview": self._subject_access,
            "LocalSubjectAccessReview": self._local_subject_access,
            "SelfSubjectAccessReview": self._self_access,
            "SelfSubjectRulesReview": self._self_rules,
            "SelfSubjectReview": self._self,
        }

    async def handle(self, request: Request, info: RequestInfo, user: UserInfo, server: ApiServer) -> Answer:
        call = Call(request, info, user, server)
        call.options("CreateOptions")
        obj = await call.object(call.resource)
        obj["status"] = self._by_kind[call.resource.kind](obj, user, info)
        if call.resource.kind == "SelfSubjectReview":
            obj["metadata"]["creationTimestamp"] = rfc3339(server.clock.now())
        return Response(201, orjson.dumps(obj), headers=call.warning_headers())

    def _token(self, obj: Object, _user: UserInfo, _info: RequestInfo) -> Object:
        spec = obj.get("spec") or {}
        token = spec.get("token") or ""
        if not token:
            raise bad_request("token is required for TokenReview in authentication")
        try:
            user, audiences = self._authenticator.check_token(token, spec.get("audiences") or ())
        except ApiError as error:
            if error.code != 401:
                raise
            return {"user": {}, "error": "[invalid bearer token]"}
        return {"authenticated": True, "user": user_object(user), "audiences": list(audiences)}

    def _subject_access(self, obj: Object, _user: UserInfo, _info: RequestInfo) -> Object:
        spec = obj.get("spec") or {}
        _check(obj, [*_attribute_faults(spec), *_subject_faults(spec)])
        return self._answer(_subject(spec), spec)

    def _local_subject_access(self, obj: Object, _user: UserInfo, info: RequestInfo) -> Object:
        spec = obj.get("spec") or {}
        faults = [*_attribute_faults(spec), *_subject_faults(spec)]
        attributes = spec.get("resourceAttributes")
        if spec.get("nonResourceAttributes") is not None:
            faults.append(forbidden_field("spec.nonResourceAttributes", "disallowed on this kind of request"))
        named = obj["metadata"].get("namespace") or info.namespace
        if attributes is not None and attributes.get("namespace") != named:
            faults.append(
                invalid_value("spec.resourceAttributes.namespace", attributes.get("namespace"), "must match metadata.namespace")
            )
        _check(obj, faults)
        if named != info.namespace:
            raise bad_request(f"spec.resourceAttributes.namespace must match namespace: {info.namespace}")
        return self._answer(_subject(spec), spec)

    def _self_access(self, obj: Object, user: UserInfo, _info: RequestInfo) -> Object:
        spec = obj.get("spec") or {}
        _check(obj, _attribute_faults(spec))
        return self._answer(user, spec)

    def _self_rules(self, obj: Object, user: UserInfo, _info: RequestInfo) -> Object:
        namespace = (obj.get("spec") or {}).get("namespace") or ""
        if not namespace:
            raise bad_request("no namespace on request")
        rules, errors = self._authorizer.rbac.rules_for(user, namespace)
        faults = list(errors)
        if node_name(user):
            faults.append("node authorizer does not support user rule resolution")
        status: Object = {"resourceRules": [], "nonResourceRules": [], "incomplete": bool(faults)}
        for rule in rules:
            if rule.get("nonResourceURLs"):
                status["nonResourceRules"].append({"verbs": rule["verbs"], "nonResourceURLs": rule["nonResourceURLs"]})
            else:
                keys = ("verbs", "apiGroups", "resources", "resourceNames")
                status["resourceRules"].append({key: rule[key] for key in keys if rule.get(key)})
        if faults:
            status["evaluationError"] = ", ".join(faults)
        return status

    def _self(self, _obj: Object, user: UserInfo, _info: RequestInfo) -> Object:
        return {"userInfo": user_object(user)}

    def _answer(self, user: UserInfo, spec: Object) -> Object:
        good, reason = self._authorizer.decide(user, attributes_of(spec))
        return {"allowed": good, **({"reason": reason} if reason else {})}


def attributes_of(spec: Object) -> RequestInfo:
    """The request that an access review asks about."""
    path = spec.get("nonResourceAttributes")
    if path is not None:
        return RequestInfo(False, path.get("path") or "", path.get("verb") or "")
    wanted = spec.get("resourceAttributes") or {}
    return RequestInfo(
        is_resource=True,
        path="",
        verb=wanted.get("verb") or "",
        group=wanted.get("group") or "",
        version=wanted.get("version") or "*",
        plural=wanted.get("resource") or "",
        subresource=wanted.get("subresource") or "",
        namespace=wanted.get("namespace") or "",
        name=wanted.get("name") or "",
        field_selector=_raw(wanted, "fieldSelector"),
        label_selector=_raw(wanted, "labelSelector"),
    )


def user_object(user: UserInfo) -> Object:
    """authentication.k8s.io UserInfo."""
    out: Object = {"username": user.name}
    if user.uid:
        out["uid"] = user.uid
    if user.groups:
        out["groups"] = list(user.groups)
    if user.extra:
        out["extra"] = {key: list(values) for key, values in user.extra.items()}
    return out


def _raw(wanted: Object, key: str) -> str:
    return str((wanted.get(key) or {}).get("rawSelector") or "")


def _subject(spec: Object) -> UserInfo:
    extra = {key: tuple(values) for key, values in (spec.get("extra") or {}).items()}
    return UserInfo(spec.get("user") or "", tuple(spec.get("groups") or ()), spec.get("uid") or "", extra)


def _attribute_faults(spec: Object) -> list[FieldError]:
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if resource is not None and path is not None:
        text = "cannot be specified in combination with resourceAttributes"
        return [invalid_value("spec.nonResourceAttributes", path, text)]
    if resource is None and path is None:
        text = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        return [invalid_value("spec.resourceAttributes", None, text)]
    return []


def _subject_faults(spec: Object) -> list[FieldError]:
    if spec.get("user") or spec.get("groups"):
        return []
    return [required("spec.user", "at least one of user or group must be specified")]


def _check(obj: Object, faults: list[FieldError]) -> None:
    if faults:
        raise invalid(obj["kind"], "authorization.k8s.io", "", faults)
