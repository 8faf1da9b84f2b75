"""k1s: Kubernetes for one board on a shelf up to a rack in a cupboard."""
