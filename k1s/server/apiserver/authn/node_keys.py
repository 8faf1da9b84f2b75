"""Whether a node's certificate still speaks for its node.

Owns: NodeKeys. Called by: authn/app, at each request of a node; server/join, before it renews a certificate.
Never does: write the record (server/join makes it, controllers/node_identity frees the name).

Certificates live for a year and there is no list of revoked ones: instead a node's key must be the one in the record of its
name. The name is taken from it with the Node, so a deleted node is shut out at once, and stays so until it joins again with a
token. What it is told matters: api/node_identity.
"""

from __future__ import annotations

from k1s.api import node_identity
from k1s.api.catalog import builtin
from k1s.base.http import PeerCertificate
from k1s.client.interface import InformerFactory
from k1s.server.apiserver.attributes import UserInfo
from k1s.server.apiserver.authz.node import node_name


class NodeKeys:
    def __init__(self, informers: InformerFactory) -> None:
        self._secrets = informers.informer(builtin("Secret"))
        self._nodes = informers.informer(builtin("Node"))

    def check(self, user: UserInfo, peer: PeerCertificate) -> None:
        """Raises ApiError 403 if `user` is a node that is shut out; says nothing about other users."""
        name = node_name(user)
        if name:
            self.require(name, peer.key_fingerprint)

    def require(self, name: str, fingerprint: str) -> None:
        """Raises ApiError 403, or 503 for a moment, unless the name of this node belongs to this key now."""
        record = self._secrets.get(node_identity.record_name(name), node_identity.NAMESPACE)
        if record is None:
            raise node_identity.unknown(name)
        if not node_identity.belongs_to(record, fingerprint):
            if node_identity.belonged_to(record, fingerprint):
                raise node_identity.removed(name, taken=bool(node_identity.fingerprint_of(record)))
            raise node_identity.unknown(name)
        # A name whose Node has gone is about to be free: nothing may slip in between.
        if node_identity.node_uid(record) and self._nodes.get(name) is None:
            raise node_identity.going(name)
