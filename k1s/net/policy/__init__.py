"""NetworkPolicy. Empty: a later issue; until then policies are stored and not enforced."""
