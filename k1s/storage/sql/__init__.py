"""k1s.storage.sql: see docs/ARCHITECTURE.md."""
