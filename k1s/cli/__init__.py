"""k1s.cli: see docs/ARCHITECTURE.md."""
