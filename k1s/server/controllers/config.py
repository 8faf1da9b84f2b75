"""The controllers' options.

Owns: ControllerConfig. Called by: server/app (fills it from ServerConfig), controllers. Never does: I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from k1s.server.controllers.service_lb_plan import BalancerConfig


@dataclass(frozen=True, slots=True)
class CertificateSigners:
    """What the certificate controller needs to sign: CA certificate and key, PEM. Without them it approves and signs nothing."""

    ca_pem: bytes = b""
    key_pem: bytes = field(default=b"", repr=False)
    # The serving CA may be another one; empty means the same.
    serving_ca_pem: bytes = b""
    serving_key_pem: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class ControllerConfig:
    """`ca_bundle`: the PEM that every namespace gets as kube-root-ca.crt. Times in seconds."""

    ca_bundle: str = ""
    cluster_cidr: str = "10.42.0.0/16"
    node_mask: int = 24
    node_monitor_grace: float = 40.0
    # The node beside the server, labelled as control plane; "" where there is none.
    control_plane_node: str = ""
    # Pods that ended: above this many the oldest are deleted.
    terminated_pod_threshold: int = 12_500
    signers: CertificateSigners = CertificateSigners()
    load_balancer: BalancerConfig = field(default_factory=BalancerConfig)
    # Names of controllers not to run.
    disabled: tuple[str, ...] = ()
