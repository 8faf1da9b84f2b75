"""k1s.cri: see docs/ARCHITECTURE.md."""
