"""k1s.server.scheduler: see docs/ARCHITECTURE.md."""
