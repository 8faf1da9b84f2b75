"""The user in a client certificate: common name, and a group per organization.

Owns: that mapping. Called by: authn/app. Never does: verify (the TLS layer let only certificates of client-ca through).
"""

from __future__ import annotations

from k1s.base.http import PeerCertificate
from k1s.server.apiserver.attributes import UserInfo


def user(peer: PeerCertificate) -> UserInfo:
    extra: dict[str, tuple[str, ...]] = {}
    if peer.fingerprint:
        extra["authentication.kubernetes.io/credential-id"] = (f"X509SHA256={peer.fingerprint}",)
    return UserInfo(peer.common_name, peer.organizations, "", extra)
