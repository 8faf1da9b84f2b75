"""The way back: the server reaches this node through a connection that the agent opens (app.py)."""
