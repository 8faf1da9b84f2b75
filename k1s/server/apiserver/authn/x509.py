"""The user in a client certificate: common name, a group per organization, a uid under Kubernetes' own attribute.

Owns: that mapping. Called by: authn/app. Never does: verify (the TLS layer let only certificates of client-ca through, within
their dates and made for clients). Source: upstream apiserver/pkg/authentication/request/x509.
"""

from __future__ import annotations

from k1s.base.http import PeerCertificate
from k1s.server.apiserver.attributes import UserInfo
from k1s.server.apiserver.authn.jwt import InvalidToken


def user(peer: PeerCertificate) -> UserInfo:
    """Raises InvalidToken for a subject with several uids or an empty one."""
    if len(peer.uids) > 1:
        raise InvalidToken("expected 1 UID, but found multiple")
    if peer.uids == ("",):
        raise InvalidToken("UID cannot be an empty string")
    extra: dict[str, tuple[str, ...]] = {}
    if peer.fingerprint:
        extra["authentication.kubernetes.io/credential-id"] = (f"X509SHA256={peer.fingerprint}",)
    return UserInfo(peer.common_name, peer.organizations, "".join(peer.uids), extra)
