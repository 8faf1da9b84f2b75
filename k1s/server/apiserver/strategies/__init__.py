"""k1s.server.apiserver.strategies: see docs/ARCHITECTURE.md."""
