"""k1s.base: see docs/ARCHITECTURE.md."""
