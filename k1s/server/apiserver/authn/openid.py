"""What others need to check this cluster's service account tokens: the discovery document and the keys.

Owns: /.well-known/openid-configuration and /openid/v1/jwks. Called by: apiserver/app. Never does: authorize
(RBAC lets service accounts in: system:service-account-issuer-discovery).
"""

from __future__ import annotations

import orjson

from k1s.base.http import Response
from k1s.server.apiserver.authn.jwt import TokenKeys

CONFIGURATION_PATH = "/.well-known/openid-configuration"
JWKS_PATH = "/openid/v1/jwks"
_CACHE = [("Cache-Control", "public, max-age=3600")]


def configuration(issuer: str, jwks_uri: str, keys: TokenKeys) -> Response:
    document = {
        "issuer": issuer,
        "jwks_uri": jwks_uri,
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": keys.algorithms(),
    }
    return Response(200, orjson.dumps(document), headers=list(_CACHE))


def jwks(keys: TokenKeys) -> Response:
    return Response(200, orjson.dumps(keys.jwks()), "application/jwk-set+json", list(_CACHE))
