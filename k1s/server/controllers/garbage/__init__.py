"""k1s.server.controllers.garbage: see docs/ARCHITECTURE.md."""
