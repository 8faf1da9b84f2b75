"""Which variables an expression may speak of, by where it stands.

Owns: the names. Called by: admission (policies, match conditions), validation. Never does: give them values.
"""

from __future__ import annotations

ADMISSION = frozenset(("object", "oldObject", "request", "params", "namespaceObject", "variables", "authorizer"))
