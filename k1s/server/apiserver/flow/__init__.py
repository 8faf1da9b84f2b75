"""API priority and fairness (KEP-1040): who may use how much of the server at once."""
