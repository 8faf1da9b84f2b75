"""k1s.server.addons.traefik: the packaged ingress controller; see docs/ARCHITECTURE.md."""
