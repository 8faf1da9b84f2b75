"""NetworkPolicy: read apply.py first."""
