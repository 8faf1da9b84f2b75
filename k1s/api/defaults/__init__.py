"""k1s.api.defaults: see docs/ARCHITECTURE.md."""
