"""k1s.server.addons.helm: HelmChart objects, run by helm on this host; see docs/ARCHITECTURE.md."""
