"""k1s.agent.serving: see docs/ARCHITECTURE.md."""
