"""k1s.server.apiserver.admission: see docs/ARCHITECTURE.md."""
