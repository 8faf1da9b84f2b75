"""k1s.agent.containers: see docs/ARCHITECTURE.md."""
