"""k1s.server.controllers.job: see docs/ARCHITECTURE.md."""
