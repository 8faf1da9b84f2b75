"""Who did what, as audit.k8s.io/v1 events: which requests, how much of each, and where it is written."""
