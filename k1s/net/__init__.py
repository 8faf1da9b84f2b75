"""k1s.net: see docs/ARCHITECTURE.md."""
