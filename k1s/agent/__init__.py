"""k1s.agent: see docs/ARCHITECTURE.md."""
