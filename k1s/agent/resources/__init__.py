"""k1s.agent.resources: see docs/ARCHITECTURE.md."""
