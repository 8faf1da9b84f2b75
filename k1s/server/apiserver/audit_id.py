"""The name of one request, in its answer's header and in the audit log.

Owns: audit_id. Called by: app (every request over the wire), audit. Never does: trust a name that is no token.
"""

from __future__ import annotations

import itertools
import uuid

from k1s.base.http import Request

HEADER = "Audit-Id"
_LONGEST = 64
# Shaped like any UUID: random, its last part counted; each at random would cost more than the rest of a small request.
_start = str(uuid.uuid4())[:24]
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
        name = f"{_start}{next(_count):012x}"
    request.context["audit_id"] = name
    return HEADER, name
