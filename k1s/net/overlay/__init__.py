"""k1s.net.overlay: see docs/ARCHITECTURE.md."""
