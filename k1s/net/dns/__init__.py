"""k1s.net.dns: see docs/ARCHITECTURE.md."""
