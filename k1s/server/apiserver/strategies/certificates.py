"""Certificate signing requests: who asks is what the server says, not what the client says.

Owns: CertificateSigningRequest, PodCertificateRequest. Called by: strategies/table. Never does: sign or approve.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from k1s.base.clock import rfc3339
from k1s.server.apiserver.strategies.base import Strategy

if TYPE_CHECKING:
    from k1s.server.apiserver.call import Call

Object = dict[str, Any]


class CertificateSigningRequest(Strategy):
    def prepare_create(self, call: Call, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        for field in ("uid", "groups", "extra"):
            spec.pop(field, None)
        user = call.user
        spec["username"] = user.name
        if user.uid:
            spec["uid"] = user.uid
        if user.groups:
            spec["groups"] = list(user.groups)
        if user.extra:
            spec["extra"] = {key: list(values) for key, values in user.extra.items()}
        obj["status"] = {}

    def reset_update(self, obj: Object, old: Object) -> None:
        super().reset_update(obj, old)
        obj["spec"] = old.get("spec") or {}

    def reset_status(self, obj: Object, old: Object) -> None:
        """Approval is another subresource's business: only the certificate and conditions that are not about it change here."""
        super().reset_status(obj, old)
        status = obj["status"] = dict(obj.get("status") or {})
        decided = [c for c in (old.get("status") or {}).get("conditions") or [] if c.get("type") in ("Approved", "Denied")]
        others = [c for c in status.get("conditions") or [] if c.get("type") not in ("Approved", "Denied")]
        conditions = decided + others
        if conditions:
            status["conditions"] = conditions

    @staticmethod
    def reset_approval(obj: Object, old: Object) -> None:
        """The approval subresource changes conditions and nothing else."""
        conditions = (obj.get("status") or {}).get("conditions")
        for field in [f for f in obj if f not in ("apiVersion", "kind", "metadata")]:
            del obj[field]
        for field in old:
            if field not in ("apiVersion", "kind", "metadata"):
                obj[field] = old[field]
        obj["status"] = dict(old.get("status") or {})
        if conditions is not None:
            obj["status"]["conditions"] = conditions


class PodCertificateRequest(Strategy):
    """A signer answers once; conditions that stand are not rewritten, and get their times from the server."""

    unconditional_update = False
    status_keeps_metadata = True

    def prepare_status(self, call: Call, obj: Object, old: Object) -> None:
        before = {c.get("type"): c for c in (old.get("status") or {}).get("conditions") or []}
        conditions = (obj.get("status") or {}).get("conditions") or []
        for index, condition in enumerate(conditions):
            there = before.get(condition.get("type"))
            if there is not None:
                conditions[index] = there
            elif not condition.get("lastTransitionTime"):
                condition["lastTransitionTime"] = rfc3339(call.server.clock.now())
