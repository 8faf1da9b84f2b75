"""k1s.server.controllers.statefulset: see docs/ARCHITECTURE.md."""
