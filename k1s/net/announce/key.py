"""Where the key is that nodes sign their heartbeats with.

Owns: the names. Called by: server/controllers/service_lb (makes the Secret), agent/network/announce (reads it). Never does: I/O.
"""

from __future__ import annotations

NAMESPACE, NAME, FIELD = "kube-system", "k1s-load-balancer", "key"
