"""k1s.agent.pods: see docs/ARCHITECTURE.md."""
