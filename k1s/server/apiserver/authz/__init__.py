"""k1s.server.apiserver.authz: see docs/ARCHITECTURE.md."""
