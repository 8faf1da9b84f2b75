"""k1s.server.scheduler.plugins: see docs/ARCHITECTURE.md."""
