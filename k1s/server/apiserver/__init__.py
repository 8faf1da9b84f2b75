"""k1s.server.apiserver: see docs/ARCHITECTURE.md."""
