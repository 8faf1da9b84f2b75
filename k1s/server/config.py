"""The server's options.

Owns: ServerConfig and the paths below the data directory. Called by: cli/server, server/app. Never does: I/O.
Names are k3s's where k3s has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from k1s.base.config import option


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Options of `k1s server`. The agent's own options (node-name, ...) are taken beside these and passed on."""

    data_dir: Path = option(
        "data-dir", Path("/var/lib/k1s"), "where everything is kept", short="d", env="K1S_DATA_DIR", metavar="DIR"
    )
    bind_address: str = option("bind-address", "0.0.0.0", "address to listen on")
    https_listen_port: int = option("https-listen-port", 6443, "port of the API server")
    advertise_address: str = option("advertise-address", "", "address that clients in the cluster use (default: the node's)")
    tls_san: tuple[str, ...] = option("tls-san", (), "more names or addresses for the serving certificate")
    cluster_cidr: str = option("cluster-cidr", "10.42.0.0/16", "range of pod addresses")
    service_cidr: str = option("service-cidr", "10.43.0.0/16", "range of service addresses")
    service_node_port_range: str = option("service-node-port-range", "30000-32767", "ports for NodePort services")
    loadbalancer_pool: tuple[str, ...] = option(
        "loadbalancer-pool",
        (),
        "addresses of the hosts' network for LoadBalancer Services, e.g. 192.168.1.240-192.168.1.250 (default: the nodes' own)",
        metavar="RANGE",
    )
    network_backend: str = option(
        "network-backend", "vxlan", "how pods of different hosts reach each other: vxlan, host-gw, wireguard, none"
    )
    cluster_dns: str = option("cluster-dns", "10.43.0.10", "address of the cluster's DNS service, or one of each family")
    cluster_domain: str = option("cluster-domain", "cluster.local", "DNS domain of the cluster")
    write_kubeconfig: str = option(
        "write-kubeconfig", "/etc/k1s/k1s.yaml", "where to write the admin kubeconfig", short="o", metavar="FILE"
    )
    write_kubeconfig_mode: str = option("write-kubeconfig-mode", "600", "mode of that file, octal")
    token: str = option(
        "token", "", "join token (default: a random one, made at first start)", env="K1S_TOKEN", short="t", secret=True
    )
    token_file: str = option("token-file", "", "file that holds the join token", env="K1S_TOKEN_FILE", metavar="FILE")
    datastore_endpoint: str = option("datastore-endpoint", "", "where state is kept (default: SQLite below the data directory)")
    secrets_encryption: bool = option(
        "secrets-encryption", False, "encrypt Secrets at rest, with a random key made at first start"
    )
    encryption_provider_config: str = option(
        "encryption-provider-config", "", "an EncryptionConfiguration (aesgcm, identity) with keys of your own", metavar="FILE"
    )
    max_requests_inflight: int = option(
        "max-requests-inflight", 400, "with the next one: the seats that priority levels share, for requests at the same time"
    )
    max_mutating_requests_inflight: int = option("max-mutating-requests-inflight", 200, "see --max-requests-inflight")
    audit_log_path: str = option("audit-log-path", "", "where to log who changed what (default: nowhere)", metavar="FILE")
    authentication_config: str = option(
        "authentication-config", "", "who else may say who somebody is: an AuthenticationConfiguration", metavar="FILE"
    )
    authorization_config: str = option(
        "authorization-config", "", "who is asked whether somebody may: an AuthorizationConfiguration", metavar="FILE"
    )
    token_auth_file: str = option("token-auth-file", "", "static tokens, a line each: token,user,uid,groups", metavar="FILE")
    kube_apiserver_arg: tuple[str, ...] = option(
        "kube-apiserver-arg", (), "a flag of kube-apiserver's that k1s knows too, e.g. oidc-issuer-url=https://..."
    )
    profiling: bool = option("profiling", False, "serve /debug/tasks, /debug/threads and /debug/memory to administrators")
    audit_policy_file: str = option("audit-policy-file", "", "a Policy of audit.k8s.io/v1 (default: changes and refusals)")
    audit_log_maxsize: int = option("audit-log-maxsize", 100, "size of the audit log in MiB at which it is rotated")
    audit_log_maxbackup: int = option("audit-log-maxbackup", 5, "rotated audit logs that are kept")
    audit_log_maxage: int = option("audit-log-maxage", 0, "days that rotated audit logs are kept (default: any)")
    disable_agent: bool = option("disable-agent", False, "run no node on this host")
    disable: tuple[str, ...] = option("disable", (), "packaged parts that are not wanted")
    debug: bool = option("debug", False, "log more")

    @property
    def server_dir(self) -> Path:
        return self.data_dir / "server"

    @property
    def database(self) -> Path:
        return self.server_dir / "db" / "state.db"

    @property
    def tls_dir(self) -> Path:
        """Certificate authorities, serving and client certificates, the service account key."""
        return self.server_dir / "tls"

    @property
    def node_token_file(self) -> Path:
        return self.server_dir / "node-token"

    @property
    def credentials_dir(self) -> Path:
        """The keys that stored values are encrypted with."""
        return self.server_dir / "cred"
