"""Every refusal the API gives, as one exception that becomes a metav1.Status.

ApiError(code, reason, message, details)
 400 BadRequest | 401 Unauthorized | 403 Forbidden | 404 NotFound | 405 MethodNotAllowed | 406 NotAcceptable
 409 AlreadyExists, Conflict | 410 Expired, Gone | 413 RequestEntityTooLarge | 415 UnsupportedMediaType
 422 Invalid (with causes: one FieldError each) | 429 TooManyRequests | 500 InternalError | 503 ServiceUnavailable | 504 Timeout

Owns: the wording, as upstream's apimachinery/pkg/api/errors and util/validation/field have it.
Called by: everything that refuses. Never does: HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Json = Any

# Stands for a value that is not shown: objects and lists that a rule refuses (field.OmitValueType).
OMIT: Json = object()


class ApiError(Exception):
    """A refusal with its HTTP code and Status reason. `details` is metav1.StatusDetails as a dict."""

    def __init__(self, code: int, reason: str, message: str, details: dict[str, Json] | None = None) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.details = code, reason, message, details
        # What admission had to say before it refused: Warning headers of the refusal.
        self.warnings: list[str] = []

    def status(self) -> dict[str, Json]:
        """The metav1.Status object."""
        out: dict[str, Json] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
        }
        if self.details is not None:
            out["details"] = self.details
        out["code"] = self.code
        return out

    @classmethod
    def from_status(cls, status: dict[str, Json]) -> ApiError:
        """The exception for a Status that a server sent."""
        return cls(
            int(status.get("code") or 500),
            status.get("reason") or "",
            status.get("message") or "unknown error",
            status.get("details"),
        )


@dataclass(frozen=True, slots=True)
class FieldError:
    """One fault of one field; `field` is a path such as spec.containers[0].name. See field.Error upstream."""

    type: str
    field: str
    detail: str = ""
    value: Json = None

    def body(self) -> str:
        """What stands after the path in the message."""
        if self.value is OMIT or self.type in _NO_VALUE:
            text = _TYPE_TEXT[self.type]
        else:
            text = f"{_TYPE_TEXT[self.type]}: {_format_value(self.value)}"
        return f"{text}: {self.detail}" if self.detail else text

    def __str__(self) -> str:
        return f"{self.field}: {self.body()}"

    def cause(self) -> dict[str, str]:
        """metav1.StatusCause."""
        return {"reason": self.type, "message": self.body(), "field": self.field}


_NO_VALUE = ("FieldValueRequired", "FieldValueForbidden", "FieldValueTooLong", "InternalError")
_TYPE_TEXT = {
    "FieldValueNotFound": "Not found",
    "FieldValueRequired": "Required value",
    "FieldValueDuplicate": "Duplicate value",
    "FieldValueInvalid": "Invalid value",
    "FieldValueNotSupported": "Unsupported value",
    "FieldValueForbidden": "Forbidden",
    "FieldValueTooLong": "Too long",
    "FieldValueTooMany": "Too many",
    "InternalError": "Internal error",
    "FieldValueTypeInvalid": "Invalid value",
}


class GoText(str):
    """A value that is shown as it stands: what only Go can write, such as []string{"a"}."""


def _format_value(value: Json) -> str:
    # Upstream prints strings quoted, numbers bare, structs as Go prints them; JSON is the closest we can say.
    if value is None:
        return '"null"'
    if isinstance(value, str):
        return str(value) if isinstance(value, GoText) else json.dumps(value, ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def required(field: str, detail: str = "") -> FieldError:
    return FieldError("FieldValueRequired", field, detail)


def invalid_value(field: str, value: Json, detail: str) -> FieldError:
    return FieldError("FieldValueInvalid", field, detail, value)


def omitted(field: str, detail: str) -> FieldError:
    """Invalid, with upstream's words in place of a value that is too long to be shown."""
    return FieldError("FieldValueInvalid", field, detail, "<value omitted>")


def type_invalid(field: str, value: Json, detail: str) -> FieldError:
    return FieldError("FieldValueTypeInvalid", field, detail, value)


def not_supported(field: str, value: Json, allowed: Iterable[str], *, as_given: bool = False) -> FieldError:
    """`as_given`: upstream names the allowed values in an order of its own here, not sorted."""
    names = ", ".join(json.dumps(a) for a in (allowed if as_given else sorted(allowed)))
    return FieldError("FieldValueNotSupported", field, f"supported values: {names}" if names else "", value)


def duplicate(field: str, value: Json) -> FieldError:
    return FieldError("FieldValueDuplicate", field, "", value)


def forbidden_field(field: str, detail: str) -> FieldError:
    return FieldError("FieldValueForbidden", field, detail)


def not_found_field(field: str, value: Json) -> FieldError:
    return FieldError("FieldValueNotFound", field, "", value)


def too_long(field: str, max_length: int, unit: str = "bytes") -> FieldError:
    return FieldError("FieldValueTooLong", field, f"may not be more than {max_length} {unit}")


def too_many(field: str, actual: int, max_items: int) -> FieldError:
    items = "item" if max_items == 1 else "items"
    return FieldError("FieldValueTooMany", field, f"must have at most {max_items} {items}", actual)


def _qualified(resource: str, group: str) -> str:
    return f"{resource}.{group}" if group else resource


def _details(name: str = "", group: str = "", kind: str = "", **more: Json) -> dict[str, Json]:
    pairs = {"name": name, "group": group, "kind": kind, **more}
    return {key: value for key, value in pairs.items() if value}


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def unauthorized(message: str = "Unauthorized") -> ApiError:
    return ApiError(401, "Unauthorized", message)


def forbidden(resource: str, group: str, name: str, message: str) -> ApiError:
    """`message` is the reason after the colon, as in: pods "x" is forbidden: <message>."""
    qualified = _qualified(resource, group)
    subject = f'{qualified} "{name}"' if name else (qualified or "request")
    return ApiError(403, "Forbidden", f"{subject} is forbidden: {message}", _details(name, group, resource))


def not_found(resource: str, group: str, name: str) -> ApiError:
    return ApiError(404, "NotFound", f'{_qualified(resource, group)} "{name}" not found', _details(name, group, resource))


def path_not_found() -> ApiError:
    return ApiError(404, "NotFound", "the server could not find the requested resource")


def method_not_allowed() -> ApiError:
    return ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")


def not_acceptable(accepted: Iterable[str]) -> ApiError:
    types = ", ".join(accepted)
    return ApiError(406, "NotAcceptable", f"only the following media types are accepted: {types}", None)


def already_exists(resource: str, group: str, name: str) -> ApiError:
    return ApiError(
        409, "AlreadyExists", f'{_qualified(resource, group)} "{name}" already exists', _details(name, group, resource)
    )


OBJECT_MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


def conflict(resource: str, group: str, name: str, message: str = OBJECT_MODIFIED) -> ApiError:
    return ApiError(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {_qualified(resource, group)} "{name}": {message}',
        _details(name, group, resource),
    )


def apply_conflict(message: str, causes: list[dict[str, str]]) -> ApiError:
    """Server-side apply conflict; each cause has reason FieldManagerConflict."""
    return ApiError(409, "Conflict", message, {"causes": causes})


def expired(message: str) -> ApiError:
    return ApiError(410, "Expired", message)


def too_old_resource_version(requested: int, current: int) -> ApiError:
    return ApiError(410, "Expired", f"too old resource version: {requested} ({current})")


def request_entity_too_large(message: str) -> ApiError:
    return ApiError(413, "RequestEntityTooLarge", f"Request entity too large: {message}")


def unsupported_media_type(supported: Iterable[str]) -> ApiError:
    types = ", ".join(supported)
    return ApiError(
        415,
        "UnsupportedMediaType",
        f"the body of the request was in an unknown format - accepted media types include: {types}",
    )


def invalid(kind: str, group: str, name: str, errors: list[FieldError]) -> ApiError:
    """422 with a cause per field; the message lists one error bare, more in brackets, as field.ErrorList does."""
    unique = list(dict.fromkeys(str(e) for e in errors))
    text = unique[0] if len(unique) == 1 else "[" + ", ".join(unique) + "]"
    details = _details(name, group, kind)
    details["causes"] = [e.cause() for e in errors]
    return ApiError(422, "Invalid", f"{_qualified(kind, group)} {json.dumps(name)} is invalid: {text}", details)


def too_many_requests(message: str, retry_after_seconds: int = 1) -> ApiError:
    return ApiError(429, "TooManyRequests", message, {"retryAfterSeconds": retry_after_seconds})


def internal(message: str) -> ApiError:
    return ApiError(500, "InternalError", f"Internal error occurred: {message}", {"causes": [{"message": message}]})


def service_unavailable(message: str) -> ApiError:
    return ApiError(503, "ServiceUnavailable", message)


def timeout(message: str, retry_after_seconds: int = 0) -> ApiError:
    return ApiError(504, "Timeout", f"Timeout: {message}", _details(retryAfterSeconds=retry_after_seconds) or None)


def server_timeout(resource: str, group: str, operation: str, retry_after_seconds: int = 1) -> ApiError:
    return ApiError(
        500,
        "ServerTimeout",
        f"The {operation} operation against {_qualified(resource, group)} could not be completed at this time, please try again.",
        _details("", group, resource, retryAfterSeconds=retry_after_seconds),
    )
