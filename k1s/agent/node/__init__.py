"""k1s.agent.node: see docs/ARCHITECTURE.md."""
