"""The name of one request, in its answer's header and in the audit log.

Owns: audit_id. Called by: app (every request over the wire), audit. Never does: trust a name that is no token.
"""

from __future__ import annotations

import itertools
import uuid

from k1s.base.http import Request

HEADER = "Audit-Id"
_LONGEST = 64
# Unique like any UUID: random, and counted from there; making each at random costs more than the rest of a small request.
_start = uuid.uuid4().int
_count = itertools.count()


def audit_id(request: Request) -> tuple[str, str]:
    """The header; the client may have named the request itself. The name is kept in the request's context."""
    known = request.context.get("audit_id")
    if known is not None:
        return HEADER, known
    given = request.headers.get("audit-id", "")
    if given and len(given) <= _LONGEST and given.isascii() and given.isprintable():
        name = given
    else:
        number = f"{(_start + next(_count)) & ((1 << 128) - 1):032x}"
        name = f"{number[:8]}-{number[8:12]}-{number[12:16]}-{number[16:20]}-{number[20:]}"
    request.context["audit_id"] = name
    return HEADER, name
