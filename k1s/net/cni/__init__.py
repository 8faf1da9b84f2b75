"""k1s.net.cni: see docs/ARCHITECTURE.md."""
