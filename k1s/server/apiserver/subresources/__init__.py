"""k1s.server.apiserver.subresources: see docs/ARCHITECTURE.md."""
