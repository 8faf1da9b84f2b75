"""k1s.server.controllers: see docs/ARCHITECTURE.md."""
