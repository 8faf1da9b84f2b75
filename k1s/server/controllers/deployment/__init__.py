"""k1s.server.controllers.deployment: see docs/ARCHITECTURE.md."""
