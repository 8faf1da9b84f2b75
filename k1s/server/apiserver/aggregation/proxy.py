"""A client's request handed on to an extension server, in the client's name.

Owns: as_user (which headers say who asks), pass_on, the answers when nobody is there. Called by: aggregation/app.
Never does: decide where to, authorize.
The extension server believes these headers because our client certificate is signed by request-header-ca.
"""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import quote

from k1s.api.errors import ApiError
from k1s.base.http import Answer, Headers, Request, Response
from k1s.server.apiserver.attributes import UserInfo
from k1s.server.apiserver.forward import Connect, Target, forward

_PREFIX = "x-remote-"
# What may stand in a header's name (RFC 9110, 5.6.2) except %, which escapes the rest.
_TOKEN = "!#$&'*+-.^_`|~"


def as_user(user: UserInfo) -> list[tuple[str, str]]:
    """X-Remote-User, -Uid, -Group and -Extra-KEY."""
    out = [("X-Remote-User", user.name)]
    if user.uid:
        out.append(("X-Remote-Uid", user.uid))
    out += [("X-Remote-Group", group) for group in user.groups]
    for key, values in user.extra.items():
        out += [(f"X-Remote-Extra-{quote(key.lower(), safe=_TOKEN)}", value) for value in values]
    return out


async def pass_on(request: Request, user: UserInfo, target: Target, connect: Connect) -> Answer:
    """Raises ApiError 503."""
    headers = [(name, value) for name, value in request.headers.items() if not name.startswith(_PREFIX)]
    earlier = request.headers.get("X-Forwarded-For", "")
    headers = [(name, value) for name, value in headers if name != "x-forwarded-for"]
    if request.remote:
        headers.append(("X-Forwarded-For", f"{earlier}, {request.remote}" if earlier else request.remote))
    passed = replace(request, headers=Headers(headers))
    there = replace(target, path=request.raw_path, headers=tuple(as_user(user)))
    # An extension server must not send the client's credentials elsewhere.
    return await forward(passed, there, connect, redirects=False)


def unavailable() -> Response:
    return _text("service unavailable")


def unreachable(error: ApiError) -> Response:
    """As upstream's aggregator says it, in plain text: clients in Go make "currently unable to handle the request" of that."""
    return _text(error.message)


def _text(message: str) -> Response:
    return Response(503, f"{message}\n".encode(), "text/plain; charset=utf-8", [("X-Content-Type-Options", "nosniff")])
