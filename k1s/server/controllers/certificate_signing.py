"""CertificateSigningRequests: approve what nodes may have, sign what was approved, forget what is old.

Watches: CertificateSigningRequests (own key). Owns: `check` (pure): may this signer sign this request?
Never does: approve for anybody but nodes (a person or a controller of theirs does); sign without a CA in its configuration.
Signers: kubernetes.io/kube-apiserver-client, kube-apiserver-client-kubelet, kubelet-serving. Source: upstream
pkg/controller/certificates (approver, signer, cleaner).
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
REVIEW = builtin("SubjectAccessReview")
# Field of the review -> field of the request.
_AUTHOR = (("user", "username"), ("groups", "groups"), ("uid", "uid"), ("extra", "extra"))
CLIENT = "kubernetes.io/kube-apiserver-client"
KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING = "kubernetes.io/kubelet-serving"
_HOUR = 3600.0
# How long a request is kept once it was approved or denied, and while nobody looks at it.
KEEP_DECIDED, KEEP_PENDING = _HOUR, 24 * _HOUR
_OPTIONAL = ("digital signature", "key encipherment")
MAX_LIFE = 365 * 24 * _HOUR
MIN_LIFE = 600.0


def check(request: Object, csr: ReadCsr) -> str:
    """Why the signer refuses, or "". A certificate never says more than its signer stands for."""
    signer, usages = request["spec"]["signerName"], set(request["spec"].get("usages") or ())
    subject = csr.subject
    if signer == CLIENT:
        if "system:masters" in subject.organizations:
            return "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
        strange = sorted(usages - {*_OPTIONAL, "client auth"})
        if strange:
            return f"invalid usage for client certificate: {strange[0]}"
        return "" if "client auth" in usages else "missing required usage for client certificate: client auth"
    if subject.organizations != ("system:nodes",):
        return "subject organization is not system:nodes"
    if not subject.common_name.startswith("system:node:"):
        return "subject common name does not begin with system:node: "
    if signer == KUBELET_CLIENT:
        if subject.sans:
            return "DNS, IP and other subject alternative names are not allowed"
        needed = "client auth"
    else:
        if not subject.sans:
            return "DNS or IP subjectAltName is required"
        for mark, kind in (("@", "Email"), ("://", "URI")):
            if any(mark in san for san in subject.sans):
                return f"{kind} subjectAltNames are not allowed"
        needed = "server auth"
    # Keys that are not RSA encipher nothing: their requests may leave that out.
    if usages in ({"digital signature", needed}, {*_OPTIONAL, needed}):
        return ""
    return f"usages did not match [{' '.join(sorted((*_OPTIONAL, needed)))}]"


def approval(request: Object, csr: ReadCsr) -> tuple[str, str]:
    """For which right of its author a node's request is approved at once: (subresource, message); ("", "") if for none.

    Source: upstream pkg/controller/certificates/approver. Nobody has these rights unless somebody binds them.
    """
    spec = request["spec"]
    if spec.get("signerName") != KUBELET_CLIENT or check(request, csr):
        return "", ""
    if spec.get("username") == csr.subject.common_name:
        return "selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview."
    return "nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview."


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
        if not meta.conditions(request) and self.signs(request):
            await self._approve(request)
        signed = (request.get("status") or {}).get("certificate")
        if not signed and meta.is_true(request, "Approved") and not meta.is_true(request, "Failed"):
            await self._sign(request)
        return left

    def signs(self, request: Object) -> bool:
        return ca_for(request["spec"]["signerName"], self.config.signers) is not None

    async def _approve(self, request: Object) -> None:
        """A node's own request, if its author has the right to it. Raises ApiError."""
        spec = request["spec"]
        try:
            csr = read_csr(base64.b64decode(spec["request"], validate=True))
        except (PkiError, ValueError):
            return
        subresource, message = approval(request, csr)
        if not subresource:
            return
        attributes = {"group": "certificates.k8s.io", "resource": "certificatesigningrequests", "verb": "create"}
        who = {key: spec[name] for key, name in _AUTHOR if spec.get(name)}
        asked = {**who, "resourceAttributes": {**attributes, "subresource": subresource, "version": "*"}}
        answer = await self.client.create(REVIEW, {"metadata": {}, "spec": asked})
        if not (answer.get("status") or {}).get("allowed"):
            return
        condition = {"type": "Approved", "status": "True", "reason": "AutoApproved", "message": message}
        await self.client.update(CSR, {**request, "status": {"conditions": [condition]}}, subresource="approval")

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
