"""k1s.api.validation: see docs/ARCHITECTURE.md."""
