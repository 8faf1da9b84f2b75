"""k1s.server.apiserver.authn.oidc: see docs/ARCHITECTURE.md."""
