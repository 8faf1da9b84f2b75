"""k1s.server.apiserver.authn: see docs/ARCHITECTURE.md."""
