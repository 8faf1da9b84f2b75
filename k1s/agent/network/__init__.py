"""The agent's network: read app.py first."""
