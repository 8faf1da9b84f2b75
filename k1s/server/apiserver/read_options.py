"""What a list or a watch asks for besides its selectors, read off the query and checked.

Owns: ListOptions, WatchOptions, revision(). Called by: handlers/list, handlers/watch, handlers/get. Never does: read objects.
Source: apimachinery/pkg/apis/meta/internalversion/validation and apiserver/pkg/storage.ValidateListOptions; KEP-1904, KEP-3157.
"""

from __future__ import annotations

from typing import NamedTuple

from k1s.api.errors import FieldError, bad_request, forbidden_field, invalid, invalid_value, not_supported
from k1s.base.http import Request
from k1s.server.apiserver.request_info import truthy

EXACT, NOT_OLDER = "Exact", "NotOlderThan"
_INT64, _UINT64 = 1 << 63, 1 << 64
_MATCH = "resourceVersionMatch"
_INITIAL = "sendInitialEvents"


class ListOptions(NamedTuple):
    """`version` as sent, "" or a number; `exact`: the revision that is to be shown, 0 if that is not fixed."""

    version: str = ""
    match: str = ""
    limit: int = 0
    token: str = ""

    @property
    def exact(self) -> int:
        # KEP-1904: a version with a limit meant "exactly this one" before there was a way to say so.
        if self.version not in ("", "0") and (self.match == EXACT or (not self.match and self.limit and not self.token)):
            return int(self.version)
        return 0

    @property
    def least(self) -> int:
        """The revision that must have happened."""
        return int(self.version or "0")


class WatchOptions(NamedTuple):
    """`initial`: sendInitialEvents, None if not said. `timeout` 0: not said."""

    version: str = ""
    initial: bool | None = None
    bookmarks: bool = False
    timeout: int = 0

    @property
    def streamed_list(self) -> bool:
        """KEP-3157: a list that goes on as a watch."""
        return bool(self.initial) and self.bookmarks


def list_options(request: Request) -> ListOptions:
    """Raises ApiError 400, 422."""
    if not request.query:
        return ListOptions()
    version, match, token = request.param("resourceVersion"), request.param(_MATCH), request.param("continue")
    limit = max(_integer(request, "limit"), 0)
    _integer(request, "timeoutSeconds")
    errors = []
    if match:
        if not version:
            errors.append(forbidden_field(_MATCH, "resourceVersionMatch is forbidden unless resourceVersion is provided"))
        if token:
            errors.append(_not_with_continue())
        if match not in (EXACT, NOT_OLDER):
            errors.append(_unsupported(match, EXACT, NOT_OLDER, ""))
        if match == EXACT and version == "0":
            errors.append(forbidden_field(_MATCH, 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'))
    if any(key == _INITIAL for key, _ in request.query):
        errors.append(forbidden_field(_INITIAL, "sendInitialEvents is forbidden for list"))
    _refuse(errors)
    if not token:
        fault = _fault(version)
        if fault is not None:
            raise bad_request(f"invalid resource version: {fault}")
    return ListOptions(version, match, limit, token)


def watch_options(request: Request) -> WatchOptions:
    """Raises ApiError 400, 422."""
    version, match = request.param("resourceVersion"), request.param(_MATCH)
    timeout = _integer(request, "timeoutSeconds")
    _integer(request, "limit")
    initial = truthy(request, _INITIAL) if any(key == _INITIAL for key, _ in request.query) else None
    errors: list[FieldError] = []
    if initial is not None and match != NOT_OLDER:
        errors.append(forbidden_field(_MATCH, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"))
    if match:
        if initial is None:
            why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
            errors.append(forbidden_field(_MATCH, why))
        if match != NOT_OLDER:
            errors.append(_unsupported(match, NOT_OLDER))
        if request.param("continue"):
            errors.append(_not_with_continue())
    _refuse(errors)
    revision(version)
    return WatchOptions(version, initial, truthy(request, "allowWatchBookmarks"), timeout)


def revision(version: str) -> int:
    """A resourceVersion as a number, 0 if there is none. Raises ApiError 400."""
    fault = _fault(version)
    if fault is not None:
        raise bad_request(str(fault))
    return int(version or "0")


def _fault(version: str) -> FieldError | None:
    if not version or (version.isascii() and version.isdigit() and int(version[:40]) < _UINT64):
        return None
    why = "value out of range" if version.isascii() and version.isdigit() else "invalid syntax"
    return invalid_value("resourceVersion", version, f'strconv.ParseUint: parsing "{version}": {why}')


def _integer(request: Request, name: str) -> int:
    for key, value in request.query:
        if key == name:
            digits = value[1:] if value[:1] in ("-", "+") else value
            if not (digits.isascii() and digits.isdigit()):
                raise bad_request(f'strconv.ParseInt: parsing "{value}": invalid syntax')
            number = int(value[:40])
            if not -_INT64 <= number < _INT64:
                raise bad_request(f'strconv.ParseInt: parsing "{value}": value out of range')
            return number
    return 0


def _not_with_continue() -> FieldError:
    return forbidden_field(_MATCH, "resourceVersionMatch is forbidden when continue is provided")


def _unsupported(match: str, *allowed: str) -> FieldError:
    return not_supported(_MATCH, match, allowed, as_given=True)


def _refuse(errors: list[FieldError]) -> None:
    if errors:
        raise invalid("ListOptions", "meta.k8s.io", "", errors)
