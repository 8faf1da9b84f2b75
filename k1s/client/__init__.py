"""k1s.client: see docs/ARCHITECTURE.md."""
