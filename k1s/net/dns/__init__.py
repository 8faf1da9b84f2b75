"""Cluster DNS: answers from the agent's own view of Services and EndpointSlices."""
