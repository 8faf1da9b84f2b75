"""k1s.storage: see docs/ARCHITECTURE.md."""
