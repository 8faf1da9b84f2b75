"""k1s.agent.devices: see docs/ARCHITECTURE.md."""
