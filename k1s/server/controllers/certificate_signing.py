"""CertificateSigningRequests: sign what was approved, forget what is old.

Watches: CertificateSigningRequests (own key). Owns: `check` (pure): may this signer sign this request?
Never does: approve (a person or a controller of theirs does); sign without a CA in its configuration.
Signers: kubernetes.io/kube-apiserver-client, kube-apiserver-client-kubelet, kubelet-serving. Source: upstream
pkg/controller/certificates (signer, cleaner).
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable

from k1s.api import meta
from k1s.api.catalog import builtin
from k1s.api.clone import clone
from k1s.api.errors import ApiError
from k1s.base.pki import Pair, PkiError, ReadCsr, issue_for_csr, read_csr
from k1s.client.interface import Object
from k1s.server.controllers import keys
from k1s.server.controllers.config import CertificateSigners
from k1s.server.controllers.reconciler import Context, Reconciler, Watch, seconds_of

CSR = builtin("CertificateSigningRequest")
CLIENT = "kubernetes.io/kube-apiserver-client"
KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING = "kubernetes.io/kubelet-serving"
_HOUR = 3600.0
# How long a request is kept once it was approved or denied, and while nobody looks at it.
KEEP_DECIDED, KEEP_PENDING = _HOUR, 24 * _HOUR
MAX_LIFE = 365 * 24 * _HOUR
MIN_LIFE = 600.0


def check(request: Object, csr: ReadCsr) -> str:
    """Why the signer refuses, or "". A certificate never says more than its signer stands for."""
    signer, usages = request["spec"]["signerName"], set(request["spec"].get("usages") or ())
    subject = csr.subject
    if signer == CLIENT:
        if "system:masters" in subject.organizations:
            return "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
        allowed = {"digital signature", "key encipherment", "client auth"}
        return "" if "client auth" in usages and usages <= allowed else f"usages did not match {sorted(allowed)}"
    if subject.organizations != ("system:nodes",):
        return "subject organization is not system:nodes"
    if not subject.common_name.startswith("system:node:"):
        return "subject common name does not begin with system:node:"
    if signer == KUBELET_CLIENT:
        if subject.sans:
            return "DNS, IP and other subject alternative names are not allowed"
        needed, allowed = "client auth", {"digital signature", "key encipherment", "client auth"}
    else:
        if not subject.sans:
            return "DNS or IP subjectAltName is required"
        needed, allowed = "server auth", {"digital signature", "key encipherment", "server auth"}
    return "" if needed in usages and usages <= allowed else f"usages did not match {sorted(allowed)}"


def ca_for(signer: str, signers: CertificateSigners) -> Pair | None:
    if signer in (CLIENT, KUBELET_CLIENT) and signers.key_pem:
        return Pair(signers.ca_pem, signers.key_pem)
    if signer == KUBELET_SERVING and (signers.serving_key_pem or signers.key_pem):
        return Pair(signers.serving_ca_pem or signers.ca_pem, signers.serving_key_pem or signers.key_pem)
    return None


def expiry(request: Object, now: float) -> float:
    """Seconds until the request is to be forgotten."""
    decided = [c for c in meta.conditions(request) if c["type"] in ("Approved", "Denied", "Failed")]
    if decided:
        stamps = [seconds_of(c.get("lastUpdateTime") or c.get("lastTransitionTime")) for c in decided]
        return max([s for s in stamps if s] or [now]) + KEEP_DECIDED - now
    return seconds_of(meta.metadata(request).get("creationTimestamp"), now) + KEEP_PENDING - now


class CertificateController(Reconciler):
    name = "certificate"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.requests = self.cache(CSR)

    def watches(self) -> Iterable[Watch]:
        return ((CSR, keys.own_key_unless_deleted),)

    async def reconcile(self, key: str) -> float | None:
        request = self.requests.get(key)
        if request is None:
            return None
        left = expiry(request, self.clock.now())
        if left <= 0:
            try:
                await self.client.delete(CSR, key, uid=meta.uid(request))
            except ApiError as error:
                if error.code != 404:
                    raise
            return None
        signed = (request.get("status") or {}).get("certificate")
        if not signed and meta.is_true(request, "Approved") and not meta.is_true(request, "Failed"):
            await self._sign(request)
        return left

    async def _sign(self, request: Object) -> None:
        ca = ca_for(request["spec"]["signerName"], self.config.signers)
        if ca is None:
            return  # another signer's
        status: Object = clone(request.get("status") or {})
        try:
            pem = base64.b64decode(request["spec"]["request"], validate=True)
            csr = read_csr(pem)
            refusal = check(request, csr)
        except (PkiError, ValueError) as error:
            refusal = str(error)
        if refusal:
            condition = {"type": "Failed", "status": "True", "reason": "SignerValidationFailure", "message": refusal}
            meta.set_condition(status.setdefault("conditions", []), condition, self.stamp())
        else:
            usage = "server" if request["spec"]["signerName"] == KUBELET_SERVING else "client"
            life = min(max(float(request["spec"].get("expirationSeconds") or MAX_LIFE), MIN_LIFE), MAX_LIFE)
            certificate = await asyncio.to_thread(
                issue_for_csr, ca, pem, csr.subject, usage=usage, now=self.clock.now(), life=life
            )
            status["certificate"] = base64.b64encode(certificate).decode()
        await self.client.update(CSR, {**request, "status": status}, subresource="status")
