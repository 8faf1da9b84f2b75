"""k1s.net.policy: see docs/ARCHITECTURE.md."""
