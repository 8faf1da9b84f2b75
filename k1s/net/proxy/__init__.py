"""k1s.net.proxy: see docs/ARCHITECTURE.md."""
