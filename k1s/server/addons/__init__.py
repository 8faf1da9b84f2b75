"""k1s.server.addons: see docs/ARCHITECTURE.md."""
