"""Who may approve and sign certificate requests, and what nobody may ask for.

Owns: CertificateApproval, CertificateSubjectRestriction. Called by: admission/chain. Never does: sign.
Source: upstream plugin/pkg/admission/certificates.
"""

from __future__ import annotations

import base64
import binascii

from k1s.base import pki
from k1s.server.apiserver.admission.step import Step, refuse, subresource
from k1s.server.apiserver.attributes import AdmissionRequest, RequestInfo, UserInfo
from k1s.server.apiserver.authz.app import Authorizer

_REQUESTS = frozenset({"certificatesigningrequests.certificates.k8s.io"})
_API_CLIENT = "kubernetes.io/kube-apiserver-client"


class CertificateApproval(Step):
    """approval needs the verb `approve` on the signer, issuing a certificate (in status) needs `sign`."""

    resources = _REQUESTS
    operations = frozenset({"UPDATE"})

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    async def validate(self, request: AdmissionRequest) -> None:
        verb = {"approval": "approve", "status": "sign"}.get(subresource(request))
        if verb is None or request.obj is None or request.old is None:
            return
        if verb == "sign" and not _issues(request.obj, request.old):
            return
        signer = str(request.old["spec"].get("signerName") or "")
        if not await may_use_signer(self._authorizer, request.user, verb, signer):
            raise refuse(request, f"user not permitted to {verb} requests with signerName {_quoted(signer)}")


class CertificateSubjectRestriction(Step):
    """Certificates of the API's own client signer never make a member of system:masters."""

    resources = _REQUESTS
    operations = frozenset({"CREATE"})

    async def validate(self, request: AdmissionRequest) -> None:
        if request.obj is None or subresource(request) or request.obj["spec"].get("signerName") != _API_CLIENT:
            return
        try:
            csr = pki.read_csr(base64.b64decode(request.obj["spec"].get("request") or ""))
        except (pki.PkiError, binascii.Error) as error:
            raise refuse(request, f"unable to parse csr: {error}") from error
        if "system:masters" in csr.subject.organizations:
            text = f"use of {_API_CLIENT} signer with system:masters group is not allowed"
            raise refuse(request, text)


async def may_use_signer(authorizer: Authorizer, user: UserInfo, verb: str, signer: str) -> bool:
    """By the signer's own name, or by `<domain>/*`."""
    for name in (signer, signer.partition("/")[0] + "/*"):
        info = RequestInfo(True, "", verb, "certificates.k8s.io", "*", "signers", name=name)
        if (await authorizer.allowed(user, info))[0]:
            return True
    return False


def _issues(new: dict[str, object], old: dict[str, object]) -> bool:
    """Whether the write changes the certificate or says that signing failed."""

    def parts(obj: dict[str, object]) -> tuple[object, list[object]]:
        status = obj.get("status")
        status = status if isinstance(status, dict) else {}
        failed = [c for c in status.get("conditions") or () if c.get("type") == "Failed"]
        return status.get("certificate"), failed

    return parts(new) != parts(old)


def _quoted(text: str) -> str:
    return f'"{text}"'
