"""TokenReview, the four access reviews and SelfSubjectReview: questions asked by creating an object that is never stored.

Owns: their validation and answers. Called by: apiserver/registry. Never does: decide (authn and authz do).
Source: upstream pkg/registry/authentication, pkg/registry/authorization.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import orjson

from k1s.api.errors import FieldError, bad_request, forbidden_field, invalid, invalid_value, required
from k1s.base.clock import rfc3339
from k1s.base.http import Answer, Request, Response
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.server.apiserver.authn.app import Authenticator
from k1s.server.apiserver.authn.jwt import InvalidToken
from k1s.server.apiserver.authz.app import Authorizer
from k1s.server.apiserver.call import Call

if TYPE_CHECKING:
    from k1s.server.apiserver.app import ApiServer

Object = dict[str, Any]


class ReviewHandler:
    """`handle` answers the create of any of the review resources."""

    def __init__(self, authenticator: Authenticator, authorizer: Authorizer) -> None:
        self._authenticator, self._authorizer = authenticator, authorizer
        self._by_kind: dict[str, Callable[[Object, UserInfo, RequestInfo], Awaitable[Object]]] = {
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
        obj["status"] = await self._by_kind[call.resource.kind](obj, user, info)
        if call.resource.kind == "SelfSubjectReview":
            obj["metadata"]["creationTimestamp"] = rfc3339(server.clock.now())
        return Response(201, orjson.dumps(obj), headers=call.warning_headers())

    async def _token(self, obj: Object, _user: UserInfo, _info: RequestInfo) -> Object:
        spec = obj.get("spec") or {}
        token = spec.get("token") or ""
        if not token:
            raise bad_request("token is required for TokenReview in authentication")
        try:
            user, audiences = await self._authenticator.check_token(token, spec.get("audiences") or ())
        except InvalidToken as error:
            return {"user": {}, "error": str(error)}
        return {"authenticated": True, "user": user_object(user), "audiences": list(audiences)}

    async def _subject_access(self, obj: Object, _user: UserInfo, _info: RequestInfo) -> Object:
        spec = obj.get("spec") or {}
        _check(obj, [*_attribute_faults(spec), *_subject_faults(spec), *_metadata_faults(obj)])
        return await self._answer(_subject(spec), spec)

    async def _local_subject_access(self, obj: Object, _user: UserInfo, info: RequestInfo) -> Object:
        spec = obj.get("spec") or {}
        named = obj["metadata"].get("namespace") or info.namespace
        obj["metadata"]["namespace"] = named
        faults = [*_attribute_faults(spec), *_subject_faults(spec), *_metadata_faults(obj, "namespace")]
        attributes, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
        if attributes is not None and attributes.get("namespace") != named:
            where = "spec.resourceAttributes.namespace"
            faults.append(invalid_value(where, attributes.get("namespace") or "", "must match metadata.namespace"))
        if path is not None:
            faults.append(invalid_value("spec.nonResourceAttributes", path, "disallowed on this kind of request"))
        _check(obj, faults)
        if named != info.namespace:
            raise bad_request(f"spec.resourceAttributes.namespace must match namespace: {info.namespace}")
        return await self._answer(_subject(spec), spec)

    async def _self_access(self, obj: Object, user: UserInfo, _info: RequestInfo) -> Object:
        spec = obj.get("spec") or {}
        _check(obj, [*_attribute_faults(spec), *_metadata_faults(obj)])
        return await self._answer(user, spec)

    async def _self_rules(self, obj: Object, user: UserInfo, _info: RequestInfo) -> Object:
        namespace = (obj.get("spec") or {}).get("namespace") or ""
        if not namespace:
            raise bad_request("no namespace on request")
        rules, errors, incomplete = self._authorizer.rules_for(user, namespace)
        status: Object = {"resourceRules": [], "nonResourceRules": [], "incomplete": incomplete}
        for rule in rules:
            if rule.get("nonResourceURLs"):
                status["nonResourceRules"].append({"verbs": rule["verbs"], "nonResourceURLs": rule["nonResourceURLs"]})
            else:
                keys = ("verbs", "apiGroups", "resources", "resourceNames")
                status["resourceRules"].append({key: rule[key] for key in keys if rule.get(key)})
        if errors:
            status["evaluationError"] = errors[0] if len(errors) == 1 else f"[{', '.join(errors)}]"
        return status

    async def _self(self, obj: Object, user: UserInfo, _info: RequestInfo) -> Object:
        return {"userInfo": user_object(user)}

    async def _answer(self, user: UserInfo, spec: Object) -> Object:
        decision = await self._authorizer.review(user, attributes_of(spec))
        out: Object = {"allowed": decision.allowed}
        for key, value in (("denied", decision.denied), ("reason", decision.reason), ("evaluationError", decision.error)):
            if value:
                out[key] = value
        return out


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
        field_selector=_selector(wanted, "fieldSelector"),
        label_selector=_selector(wanted, "labelSelector"),
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


def _selector(wanted: Object, key: str) -> str:
    """As a query string has it. What this server does not understand is left out: the question becomes the wider one."""
    given = wanted.get(key) or {}
    if given.get("rawSelector"):
        return str(given["rawSelector"])
    labels = key == "labelSelector"
    terms: list[str] = []
    for term in given.get("requirements") or ():
        name, operator, values = term.get("key") or "", term.get("operator"), term.get("values") or []
        if operator in ("In", "NotIn") and len(values) == 1:
            terms.append(f"{name}{'=' if operator == 'In' else '!='}{values[0]}")
        elif labels and operator in ("In", "NotIn"):
            terms.append(f"{name} {operator.lower()} ({','.join(values)})")
        elif labels and operator in ("Exists", "DoesNotExist"):
            terms.append(name if operator == "Exists" else f"!{name}")
    return ",".join(terms)


def _subject(spec: Object) -> UserInfo:
    extra = {key: tuple(values) for key, values in (spec.get("extra") or {}).items()}
    return UserInfo(spec.get("user") or "", tuple(spec.get("groups") or ()), spec.get("uid") or "", extra)


def _attribute_faults(spec: Object) -> list[FieldError]:
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if resource is None and path is None:
        text = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        return [invalid_value("spec.resourceAttributes", None, text)]
    faults: list[FieldError] = []
    if resource is not None and path is not None:
        text = "cannot be specified in combination with resourceAttributes"
        faults.append(invalid_value("spec.nonResourceAttributes", path, text))
    for key in ("fieldSelector", "labelSelector"):
        if resource is not None and resource.get(key) is not None:
            faults += _selector_faults(f"spec.resourceAttributes.{key}", resource[key])
    return faults


def _selector_faults(at: str, selector: Object) -> list[FieldError]:
    raw, terms = selector.get("rawSelector"), selector.get("requirements") or []
    faults: list[FieldError] = []
    if raw and terms:
        faults.append(invalid_value(f"{at}.rawSelector", raw, "may not specified at the same time as requirements"))
    if not raw and not terms:
        faults.append(required(f"{at}.requirements", f"when {at} is specified, requirements or rawSelector is required"))
    for index, term in enumerate(terms):
        where, operator, values = f"{at}.requirements[{index}]", term.get("operator"), term.get("values")
        if not term.get("key"):
            faults.append(required(f"{where}.key", "must be specified"))
        if operator in ("In", "NotIn") and not values:
            faults.append(required(f"{where}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
        if operator in ("Exists", "DoesNotExist") and values:
            text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            faults.append(forbidden_field(f"{where}.values", text))
    return faults


def _subject_faults(spec: Object) -> list[FieldError]:
    if spec.get("user") or spec.get("groups"):
        return []
    return [invalid_value("spec.user", "", "at least one of user or group must be specified")]


def _metadata_faults(obj: Object, *allowed: str) -> list[FieldError]:
    rest = {key: value for key, value in obj["metadata"].items() if value and key not in ("managedFields", *allowed)}
    if not rest or rest == {"creationTimestamp": None}:
        return []
    return [invalid_value("metadata", obj["metadata"], "must be empty except for namespace" if allowed else "must be empty")]


def _check(obj: Object, faults: list[FieldError]) -> None:
    if faults:
        raise invalid(obj["kind"], "authorization.k8s.io", "", faults)
