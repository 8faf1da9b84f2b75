"""k1s.api: see docs/ARCHITECTURE.md."""
