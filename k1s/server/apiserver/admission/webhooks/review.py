"""What is said to a webhook and what its answer means (admission.k8s.io/v1 AdmissionReview).

Owns: review, read. Called by: steps. Never does: I/O.
"""

from __future__ import annotations

import base64
import binascii
import json
import uuid
from collections.abc import Mapping
from typing import Any

import orjson

from k1s.api.catalog import Resource
from k1s.api.errors import ApiError
from k1s.server.apiserver.admission.request_value import describe
from k1s.server.apiserver.attributes import AdmissionRequest

Object = dict[str, Any]


class BadAnswer(Exception):
    """The webhook answered, but not as a webhook answers."""


class BadPatchType(BadAnswer):
    """It wants the object changed in a way that there is not."""


def review(request: AdmissionRequest, row: Resource, obj: Object | None, old: Object | None, versions: list[str]) -> Object:
    """The question; `obj` and `old` are in the version of `row`."""
    version = next((v for v in versions if v in ("v1", "v1beta1")), "v1")
    body = describe(request, row)
    body["uid"] = str(uuid.uuid4())
    body["object"] = obj
    body["oldObject"] = old
    return {"apiVersion": f"admission.k8s.io/{version}", "kind": "AdmissionReview", "request": body}


def read(data: bytes, asked: Object, *, mutating: bool = False) -> Object:
    """The response. Raises BadAnswer."""
    try:
        answer = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise BadAnswer(f"couldn't get version/kind; json parse error: {error}") from error
    response = answer.get("response") if isinstance(answer, dict) else None
    if not isinstance(response, dict):
        raise BadAnswer("webhook response was absent")
    uid, strict = asked["request"]["uid"], asked["apiVersion"] == "admission.k8s.io/v1"
    if strict and response.get("uid") != uid:
        raise BadAnswer(f"expected response.uid={json.dumps(uid)}, got {json.dumps(response.get('uid') or '')}")
    for key in ("apiVersion", "kind"):
        if answer.get(key) != asked[key]:
            given = answer.get("apiVersion") or "/"
            raise BadAnswer(
                f"expected webhook response of {asked['apiVersion']}, Kind=AdmissionReview, "
                f"got {given if '/' in given else '/' + given}, Kind={answer.get('kind') or ''}"
            )
    _check_types(response)
    if strict:
        _check_patch(response, mutating=mutating)
    return response


_TYPES = (("allowed", bool), ("status", dict), ("warnings", list), ("auditAnnotations", dict), ("patch", str), ("patchType", str))


def _check_types(response: Object) -> None:
    for key, kind in _TYPES:
        if response.get(key) is not None and not isinstance(response[key], kind):
            raise BadAnswer(f"json: cannot unmarshal response.{key} into Go struct field AdmissionResponse.{key}")
    code = (response.get("status") or {}).get("code")
    if code is not None and not isinstance(code, int):
        raise BadAnswer("json: cannot unmarshal response.status.code into Go struct field Status.code of type int32")


def _check_patch(response: Object, *, mutating: bool) -> None:
    """patch and patchType come together, from mutating webhooks only."""
    patch, kind = response.get("patch"), response.get("patchType")
    if not mutating:
        for key, value in (("patch", patch), ("patchType", kind)):
            if value or (key == "patchType" and value is not None):
                raise BadAnswer(f"validating webhook may not return response.{key}")
        return
    if patch and kind is None:
        raise BadAnswer("webhook returned response.patch but not response.patchType")
    if not patch and kind is not None:
        raise BadAnswer("webhook returned response.patchType but not response.patch")
    if kind is not None and not kind:
        raise BadAnswer('webhook returned invalid response.patchType of ""')


def patch_of(response: Mapping[str, Any]) -> list[Object]:
    """The JSON patch of a mutating webhook; empty if it changes nothing. Raises BadAnswer."""
    if not response.get("patch"):
        return []
    kind = response.get("patchType") or "JSONPatch"
    if kind != "JSONPatch":
        raise BadPatchType(f"unsupported patch type {json.dumps(kind)}")
    try:
        operations = orjson.loads(base64.b64decode(response["patch"], validate=True))
    except (binascii.Error, orjson.JSONDecodeError, TypeError, ValueError) as error:
        raise BadAnswer(f"the patch is no JSON patch: {error}") from error
    if not isinstance(operations, list):
        raise BadAnswer("the patch is no JSON patch")
    return operations


def denied(hook: str, response: Mapping[str, Any]) -> ApiError:
    """The refusal, in the webhook's words."""
    result = response.get("status") or {}
    text = f"admission webhook {json.dumps(hook)} denied the request"
    why = result.get("message") or result.get("reason")
    message = f"{text}: {why}" if why else f"{text} without explanation"
    code = int(result.get("code") or 0)
    return ApiError(max(code, 400), result.get("reason") or "", message, result.get("details"))
