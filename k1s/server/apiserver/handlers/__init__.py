"""k1s.server.apiserver.handlers: see docs/ARCHITECTURE.md."""
