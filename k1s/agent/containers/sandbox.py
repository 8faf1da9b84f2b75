"""A pod as CRI's PodSandboxConfig: pure.

Owns: host name, DNS, ports, labels, sysctls, the sandbox's own security. Called by: pods/start. Never does: I/O. Golden-tested.
Source: pkg/kubelet/kuberuntime/kuberuntime_sandbox.go, pkg/kubelet/network/dns/dns.go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from k1s.agent.containers import security
from k1s.agent.pods.model import POD_NAME, POD_NAMESPACE, POD_UID

Object = dict[str, Any]
_MAX_HOSTNAME = 63
_MAX_SEARCHES, _MAX_SERVERS = 32, 3


@dataclass(frozen=True, slots=True)
class Resolver:
    """A resolv.conf."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def parse_resolv_conf(text: str) -> Resolver:
    servers: list[str] = []
    searches: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver":
            servers.append(words[1])
        elif words[0] in ("search", "domain"):
            searches = [w.rstrip(".") if w != "." else w for w in words[1:]]
        elif words[0] == "options":
            options = words[1:]
    return Resolver(tuple(servers), tuple(searches), tuple(options))


def resolver(pod: Object, *, host: Resolver, cluster_dns: str, cluster_domain: str) -> Resolver:
    """What the pod's /etc/resolv.conf says, by dnsPolicy and dnsConfig. `cluster_dns`: an address, or one of each family."""
    spec = pod["spec"]
    policy = spec.get("dnsPolicy") or "ClusterFirst"
    if policy == "ClusterFirst" and spec.get("hostNetwork"):
        policy = "Default"
    if policy == "None":
        base = Resolver()
    elif policy == "Default":
        base = host if spec.get("hostNetwork") else _reachable(host, cluster_dns)
    else:
        namespace = pod["metadata"]["namespace"]
        searches = (f"{namespace}.svc.{cluster_domain}", f"svc.{cluster_domain}", cluster_domain, *host.searches)
        base = Resolver(tuple(cluster_dns.split(",")), searches, ("ndots:5",))
    extra = spec.get("dnsConfig") or {}
    options = {o.partition(":")[0]: o for o in base.options}
    for option in extra.get("options") or []:
        value = option.get("value")
        options[option["name"]] = f"{option['name']}:{value}" if value is not None else option["name"]
    return Resolver(
        _unique((*base.servers, *(extra.get("nameservers") or ())))[:_MAX_SERVERS],
        _unique((*base.searches, *(extra.get("searches") or ())))[:_MAX_SEARCHES],
        tuple(options.values()),
    )


def _reachable(host: Resolver, cluster_dns: str) -> Resolver:
    """A pod has a loopback of its own: one on the host's (systemd-resolved, dnsmasq) is asked through the cluster's DNS."""
    servers = tuple(server for server in host.servers if not (server.startswith("127.") or server == "::1"))
    if servers == host.servers:
        return host
    return Resolver(servers or tuple(cluster_dns.split(",")), host.searches, host.options)


def _unique(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def hostname(pod: Object) -> str:
    """The host name the pod sees: its own, cut to what a name may be long."""
    spec = pod["spec"]
    if spec.get("hostnameOverride"):
        return str(spec["hostnameOverride"])
    name = spec.get("hostname") or pod["metadata"]["name"]
    return str(name)[:_MAX_HOSTNAME].rstrip("-.")


def domain_name(pod: Object, cluster_domain: str) -> str:
    """<hostname>.<subdomain>.<namespace>.svc.<domain>, or "" without a subdomain."""
    subdomain = pod["spec"].get("subdomain")
    return f"{hostname(pod)}.{subdomain}.{pod['metadata']['namespace']}.svc.{cluster_domain}" if subdomain else ""


def sandbox_config(
    pod: Object, *, attempt: int, log_directory: str, cgroup_parent: str, dns: Resolver, cluster_domain: str
) -> Object:
    """PodSandboxConfig. Raises ConfigFault."""
    meta, spec = pod["metadata"], pod["spec"]
    level = spec.get("securityContext") or {}
    context: Object = {
        "namespace_options": security.namespaces(pod),
        "seccomp": {"profile_type": "RuntimeDefault"},
        "privileged": _any_privileged(spec),
    }
    if level.get("runAsUser") is not None:
        context["run_as_user"] = {"value": level["runAsUser"]}
        # CRI refuses a group without a user.
        if level.get("runAsGroup") is not None:
            context["run_as_group"] = {"value": level["runAsGroup"]}
    groups = [*(level.get("supplementalGroups") or []), *([level["fsGroup"]] if level.get("fsGroup") is not None else [])]
    if groups:
        context["supplemental_groups"] = groups
    if level.get("seLinuxOptions"):
        context["selinux_options"] = security.selinux(level["seLinuxOptions"])
    linux: Object = {"cgroup_parent": cgroup_parent, "security_context": context}
    if level.get("sysctls"):
        linux["sysctls"] = {s["name"].replace("/", "."): s["value"] for s in level["sysctls"]}
    full = domain_name(pod, cluster_domain) if spec.get("setHostnameAsFQDN") else ""
    out: Object = {
        "metadata": {"name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"], "attempt": attempt},
        # A name of its own needs a UTS namespace of its own, which host-network pods lack.
        "hostname": "" if spec.get("hostNetwork") else full or hostname(pod),
        "log_directory": log_directory,
        "dns_config": {"servers": list(dns.servers), "searches": list(dns.searches), "options": list(dns.options)},
        "labels": {
            **(meta.get("labels") or {}),
            POD_NAME: meta["name"],
            POD_NAMESPACE: meta["namespace"],
            POD_UID: meta["uid"],
        },
        "annotations": dict(meta.get("annotations") or {}),
        "linux": linux,
    }
    ports = _ports(spec)
    if ports:
        out["port_mappings"] = ports
    return out


def _any_privileged(spec: Object) -> bool:
    everyone = [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]
    return any((c.get("securityContext") or {}).get("privileged") for c in everyone)


def _ports(spec: Object) -> list[Object]:
    out: list[Object] = []
    if spec.get("hostNetwork"):
        return out
    for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        for port in container.get("ports") or []:
            if port.get("hostPort"):
                out.append(
                    {
                        "protocol": port.get("protocol") or "TCP",
                        "container_port": port["containerPort"],
                        "host_port": port["hostPort"],
                        "host_ip": port.get("hostIP") or "",
                    }
                )
    return out


def hosts_file(pod: Object, *, ips: tuple[str, ...], cluster_domain: str) -> str:
    """The pod's /etc/hosts, as kubelet writes it."""
    lines = [
        "# Kubernetes-managed hosts file.",
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::\tip6-localnet",
        "fe00::\tip6-mcastprefix",
        "fe00::1\tip6-allnodes",
        "fe00::2\tip6-allrouters",
    ]
    full = domain_name(pod, cluster_domain)
    for ip in ips:
        lines.append(f"{ip}\t{full}\t{hostname(pod)}" if full else f"{ip}\t{hostname(pod)}")
    return "\n".join(lines) + "\n" + host_aliases(pod)


def host_aliases(pod: Object) -> str:
    aliases = pod["spec"].get("hostAliases") or []
    if not aliases:
        return ""
    lines = ["", "# Entries added by HostAliases.", *("\t".join([a["ip"], *(a.get("hostnames") or [])]) for a in aliases)]
    return "\n".join(lines) + "\n"
