"""k1s.server: see docs/ARCHITECTURE.md."""
