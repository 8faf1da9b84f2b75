"""k1s.api.patch: see docs/ARCHITECTURE.md."""
