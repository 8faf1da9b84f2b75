"""The agent's options.

Owns: AgentConfig and the paths below the data directory. Called by: cli/agent, every part of the agent. Never does: I/O.
Names are k3s's where k3s has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from k1s.base.config import option


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Options of `k1s agent`; a server passes the same to the agent it supervises."""

    server: str = option(
        "server",
        "",
        "URL of the server to join (default: the one that this machine has joined)",
        env="K1S_URL",
        short="s",
        alias="join",
        metavar="URL",
    )
    token: str = option("token", "", "join token", env="K1S_TOKEN", short="t", secret=True)
    token_file: str = option("token-file", "", "file that holds the join token", env="K1S_TOKEN_FILE", metavar="FILE")
    data_dir: Path = option(
        "data-dir", Path("/var/lib/k1s"), "where everything is kept", short="d", env="K1S_DATA_DIR", metavar="DIR"
    )
    run_dir: Path = option("run-dir", Path("/run/k1s"), "sockets and other things that do not outlive a boot", metavar="DIR")
    node_name: str = option("node-name", "", "name of this node (default: the host's name)", env="K1S_NODE_NAME")
    node_ip: str = option("node-ip", "", "address of this node (default: that of the default route)", short="i")
    node_label: tuple[str, ...] = option("node-label", (), "labels to register this node with, key=value")
    node_taint: tuple[str, ...] = option("node-taint", (), "taints to register this node with, key=value:effect")
    container_runtime_endpoint: str = option(
        "container-runtime-endpoint", "", "CRI socket of a runtime that k1s does not run itself"
    )
    fake_runtime: bool = option("fake-runtime", False, "run no containers: an in-memory runtime, for demos and scale tests")
    containerd: str = option("containerd", "", "containerd binary (default: the bundled one, else that in PATH)", metavar="FILE")
    pause_image: str = option("pause-image", "k1s.io/pause:1", "image of the pod sandboxes")
    snapshotter: str = option("snapshotter", "overlayfs", "containerd snapshotter")
    cluster_cidr: str = option("cluster-cidr", "10.42.0.0/16", "range of pod addresses")
    service_cidr: str = option("service-cidr", "10.43.0.0/16", "range of service addresses")
    network_backend: str = option(
        "network-backend",
        "vxlan",
        "how pods of different hosts reach each other: vxlan, host-gw, wireguard, none (given by the server)",
    )
    foreign_cni_conf_dir: str = option(
        "cni-conf-dir", "/etc/cni/net.d", "with --network-backend none: where the CNI plugin's configuration is", metavar="DIR"
    )
    foreign_cni_bin_dir: str = option(
        "cni-bin-dir", "/opt/cni/bin", "with --network-backend none: where the CNI plugins are", metavar="DIR"
    )
    cluster_dns: str = option("cluster-dns", "10.43.0.10", "address of the cluster's DNS service, or one of each family")
    cluster_domain: str = option("cluster-domain", "cluster.local", "DNS domain of the cluster")
    resolv_conf: str = option(
        "resolv-conf", "/etc/resolv.conf", "resolver configuration of the host", env="K1S_RESOLV_CONF", metavar="FILE"
    )
    max_pods: int = option("max-pods", 110, "how many pods this node takes")
    kubelet_port: int = option("kubelet-port", 10250, "port on which the agent serves logs, exec, stats")
    pod_log_dir: Path = option("pod-log-dir", Path("/var/log/pods"), "where container logs are written", metavar="DIR")
    supervised: bool = option("supervised", False, "set by a server for the node beside it, which it starts again when it ends")
    debug: bool = option("debug", False, "log more")

    @property
    def agent_dir(self) -> Path:
        return self.data_dir / "agent"

    @property
    def images_dir(self) -> Path:
        """Image tars found here are imported at start and when they appear."""
        return self.agent_dir / "images"

    @property
    def containerd_socket(self) -> Path:
        return self.run_dir / "containerd" / "containerd.sock"

    @property
    def cni_socket(self) -> Path:
        return self.run_dir / "cni.sock"

    @property
    def cni_conf_dir(self) -> Path:
        """Where the runtime looks for the network's configuration."""
        return Path(self.foreign_cni_conf_dir) if self.network_backend == "none" else self.own_cni_conf_dir

    @property
    def cni_bin_dir(self) -> Path:
        return Path(self.foreign_cni_bin_dir) if self.network_backend == "none" else self.own_cni_bin_dir

    @property
    def own_cni_conf_dir(self) -> Path:
        return self.agent_dir / "etc" / "cni" / "net.d"

    @property
    def own_cni_bin_dir(self) -> Path:
        return self.agent_dir / "cni-bin"

    @property
    def pods_dir(self) -> Path:
        """A directory per pod uid: volumes, plugins, etc-hosts, termination messages (kubelet's layout)."""
        return self.agent_dir / "pods"

    @property
    def tls_dir(self) -> Path:
        """client.crt, client.key, serving.crt, serving.key, server-ca.crt, client-ca.crt."""
        return self.agent_dir / "tls"
