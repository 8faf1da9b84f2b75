"""Which variables an expression may speak of, by where it stands, and those that a policy makes itself.

Owns: the names; composed(). Called by: admission (policies, match conditions), validation. Never does: give them values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

ADMISSION = frozenset(("object", "oldObject", "request", "params", "namespaceObject", "variables", "authorizer"))
_COMPOSED = re.compile(r"\bvariables\s*\.\s*\??\s*([A-Za-z_]\w*)")


def composed(expression: str) -> Iterator[tuple[str, int]]:
    """The names that follow `variables.` and where; text in strings counts, too (an unneeded value does no harm)."""
    return ((match.group(1), match.start(1)) for match in _COMPOSED.finditer(expression))
