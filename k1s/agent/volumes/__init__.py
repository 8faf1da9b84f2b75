"""k1s.agent.volumes: see docs/ARCHITECTURE.md."""
