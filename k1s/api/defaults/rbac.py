"""Defaults of rbac.authorization.k8s.io. Called by: table.py. Never does: check that a role exists."""

from __future__ import annotations

from k1s.api.meta import Object

GROUP = "rbac.authorization.k8s.io"


def binding(obj: Object) -> None:
    role = obj.get("roleRef")
    if role is not None and not role.get("apiGroup"):
        role["apiGroup"] = GROUP
    for subject in obj.get("subjects") or ():
        if not subject.get("apiGroup") and subject.get("kind") in ("User", "Group"):
            subject["apiGroup"] = GROUP
