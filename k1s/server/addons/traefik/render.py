"""Traefik's objects, with what a HelmChartConfig asks for.

Owns: which values of Traefik's chart k1s understands and what they become of manifest.json (Traefik as k3s' users know it).
Called by: traefik/part. Never does: I/O. Pure.
Source: the values of Traefik's Helm chart, as k3s' users set them by a HelmChartConfig named traefik. Values that are not named
here are not honoured, and said to be so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from k1s.api.clone import clone
from k1s.server.addons.chart_values import BadValues, Tree, Values
from k1s.server.addons.traefik.entry_points import DEFAULT_PORTS, container_ports, entry_point_flags, flags, service_ports

Object = dict[str, Any]
NAMESPACE = "kube-system"

DEFAULTS: Tree = {
    "ports": DEFAULT_PORTS,
    "ingressClass": {"enabled": True, "isDefaultClass": True},
    "service": {"enabled": True, "type": "LoadBalancer"},
    "providers": {
        "kubernetesCRD": {"enabled": True, "allowEmptyServices": True},
        "kubernetesIngress": {
            "enabled": True,
            "allowEmptyServices": True,
            # Prefix /foo does not match /foobar: the Ingress API's rule.
            "strictPrefixMatching": True,
            "publishedService": {"enabled": True},
        },
    },
    "logs": {"general": {"level": "INFO", "noColor": True}},
    "metrics": {"prometheus": {"entryPoint": "metrics"}},
    "globalArguments": ["--global.checknewversion=false", "--global.sendanonymoususage=false"],
}
# What k3s sets for its own Traefik and what is so here anyway.
_SILENT = ("rbac.enabled", "global.systemDefaultRegistry", "deployment.enabled", "image.pullPolicy")


def render(base: list[Object], given: Tree, image: str) -> tuple[list[Object], list[str]]:
    """(the objects, the values that are not honoured). `base`: manifest.json's. Raises BadValues."""
    values = Values(DEFAULTS, given)
    objects = {obj["kind"]: obj for obj in clone(base)}
    for path in _SILENT:
        values.get(path)
    _deployment(objects["Deployment"], values, image)
    _service(objects["Service"], values)
    if values.get("deployment.kind") == "DaemonSet":
        _as_daemon_set(objects["Deployment"])
    if not values.get("service.enabled"):
        del objects["Service"]
    default_class = bool(values.get("ingressClass.isDefaultClass"))
    objects["IngressClass"]["metadata"]["annotations"]["ingressclass.kubernetes.io/is-default-class"] = str(default_class).lower()
    objects["IngressClass"]["metadata"]["name"] = str(values.get("ingressClass.name", "traefik"))
    if not values.get("ingressClass.enabled"):
        del objects["IngressClass"]
    return [*objects.values(), *_extra(values)], values.unused()


def _deployment(workload: Object, values: Values, image: str) -> None:
    spec, template = workload["spec"], workload["spec"]["template"]
    pod, container = template["spec"], template["spec"]["containers"][0]
    container["image"] = _image(values, image)
    if container["image"] != image:
        # Ours is in no registry: its name must not be asked for there.
        container["imagePullPolicy"] = str(values.get("image.pullPolicy", "IfNotPresent"))
    container["args"] = list(_arguments(values))
    container["ports"] = container_ports(values)
    _set(spec, "replicas", values.get("deployment.replicas"))
    _set(pod, "terminationGracePeriodSeconds", values.get("deployment.terminationGracePeriodSeconds"))
    _set(pod, "dnsPolicy", values.get("deployment.dnsPolicy"))
    _set(workload["metadata"], "annotations", values.mapping("deployment.annotations") or None)
    _set(workload["metadata"], "labels", values.mapping("deployment.labels") or None)
    template["metadata"]["annotations"].update(_texts(values.mapping("podAnnotations")))
    template["metadata"]["annotations"].update(_texts(values.mapping("deployment.podAnnotations")))
    template["metadata"]["labels"] = {**_texts(values.mapping("deployment.podLabels")), **template["metadata"]["labels"]}
    if values.get("updateStrategy"):
        spec["strategy"] = values.mapping("updateStrategy")
    for key in ("nodeSelector", "affinity", "tolerations", "topologySpreadConstraints", "priorityClassName", "hostNetwork"):
        _set(pod, key, values.get(key))
    if values.get("podSecurityContext"):
        pod["securityContext"] = values.mapping("podSecurityContext")
    if values.get("securityContext"):
        container["securityContext"] = values.mapping("securityContext")
    for key in ("resources", "env", "envFrom"):
        _set(container, key, values.get(key))
    if values.items("deployment.initContainers"):
        pod["initContainers"] = values.items("deployment.initContainers")
    pod["volumes"] += values.items("deployment.additionalVolumes")
    container["volumeMounts"] += values.items("additionalVolumeMounts")
    _mounts(pod, container, values.items("volumes"))
    port = int(values.get("ports.traefik.port"))
    for probe in ("readinessProbe", "livenessProbe"):
        container[probe]["httpGet"]["port"] = port
        container[probe].update(values.mapping(probe))


def _image(values: Values, image: str) -> str:
    repository = values.get("image.repository") or values.get("image.name")
    registry, tag = values.get("image.registry"), values.get("image.tag")
    if not repository and not tag:
        return image
    name = str(repository) if repository else image.rpartition(":")[0]
    if registry:
        name = f"{registry}/{name}"
    return f"{name}:{tag or image.rpartition(':')[2]}"


def _mounts(pod: Object, container: Object, volumes: list[Any]) -> None:
    """The chart's `volumes`: {name, mountPath, type: secret | configMap} each."""
    for number, volume in enumerate(volumes):
        if not isinstance(volume, dict) or volume.get("type") not in ("secret", "configMap"):
            raise BadValues(f"volumes[{number}]: must have name, mountPath and type secret or configMap")
        name, kind = str(volume.get("name")), volume["type"]
        source = {"secretName": name} if kind == "secret" else {"name": name}
        pod["volumes"].append({"name": f"extra-{number}", kind: source})
        container["volumeMounts"].append({"name": f"extra-{number}", "mountPath": volume.get("mountPath"), "readOnly": True})


def _arguments(values: Values) -> Iterator[str]:
    yield from map(str, values.items("globalArguments"))
    for name in values.names("ports"):
        yield from entry_point_flags(values, name)
    yield "--ping=true"
    general = values.mapping("logs.general")
    yield from flags("log", general)
    if values.get("logs.access.enabled"):
        access = {key: value for key, value in values.mapping("logs.access").items() if key != "enabled"}
        yield "--accesslog=true"
        yield from flags("accesslog", access)
    if values.mapping("metrics.prometheus"):
        yield "--metrics.prometheus=true"
        yield from flags("metrics.prometheus", values.mapping("metrics.prometheus"))
    yield from _providers(values)
    for section in ("api", "certificatesResolvers", "certResolvers", "experimental"):
        yield from flags("certificatesresolvers" if section == "certResolvers" else section.lower(), values.mapping(section))
    yield from map(str, values.items("additionalArguments"))


def _providers(values: Values) -> Iterator[str]:
    crd = values.mapping("providers.kubernetesCRD")
    if crd.get("enabled"):
        yield "--providers.kubernetescrd=true"
        yield from flags("providers.kubernetescrd", {key: value for key, value in crd.items() if key != "enabled"})
    ingress = values.mapping("providers.kubernetesIngress")
    if ingress.get("enabled"):
        yield "--providers.kubernetesingress=true"
        options = {key: value for key, value in ingress.items() if key not in ("enabled", "publishedService")}
        yield from flags("providers.kubernetesingress", options)
        published = ingress.get("publishedService") or {}
        if published.get("enabled") and values.get("service.enabled"):
            path = published.get("pathOverride") or f"{NAMESPACE}/traefik"
            yield f"--providers.kubernetesingress.ingressendpoint.publishedservice={path}"


def _service(service: Object, values: Values) -> None:
    spec = service["spec"]
    spec["type"] = str(values.get("service.type"))
    spec["ports"] = service_ports(values)
    if spec["type"] == "ClusterIP":
        del spec["externalTrafficPolicy"]
    spec.update(values.mapping("service.spec"))
    for key in ("loadBalancerSourceRanges", "externalIPs", "ipFamilyPolicy", "ipFamilies"):
        _set(spec, key, values.get(f"service.{key}"))
    _set(service["metadata"], "annotations", _texts(values.mapping("service.annotations")) or None)
    _set(service["metadata"], "labels", _texts(values.mapping("service.labels")) or None)


def _as_daemon_set(workload: Object) -> None:
    workload["kind"] = "DaemonSet"
    spec = workload["spec"]
    spec.pop("replicas", None)
    spec.pop("strategy", None)
    spec["template"]["spec"].get("affinity", {}).pop("nodeAffinity", None)


def _extra(values: Values) -> Iterator[Object]:
    """Objects beside Traefik's own: options and stores of TLS, the dashboard's route, the user's own."""
    for kind, section in (("TLSOption", "tlsOptions"), ("TLSStore", "tlsStore")):
        for name, spec in values.mapping(section).items():
            yield _custom(kind, name, spec)
    dashboard = values.mapping("ingressRoute.dashboard")
    if dashboard.get("enabled"):
        route: Object = {
            "match": dashboard.get("matchRule") or "PathPrefix(`/dashboard`) || PathPrefix(`/api`)",
            "kind": "Rule",
            "services": [{"name": "api@internal", "kind": "TraefikService"}],
        }
        _set(route, "middlewares", dashboard.get("middlewares"))
        spec = {"entryPoints": dashboard.get("entryPoints") or ["traefik"], "routes": [route]}
        _set(spec, "tls", dashboard.get("tls"))
        yield _custom("IngressRoute", "traefik-dashboard", spec)
    for number, extra in enumerate(values.items("extraObjects")):
        if not isinstance(extra, dict):
            raise BadValues(f"extraObjects[{number}]: must be an object (templates are not evaluated)")
        yield extra


def _custom(kind: str, name: str, spec: Any) -> Object:
    return {
        "apiVersion": "traefik.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec,
    }


def _set(target: Object, key: str, value: Any) -> None:
    if value is not None:
        target[key] = value


def _texts(values: Tree) -> dict[str, str]:
    return {key: value if isinstance(value, str) else str(value).lower() for key, value in values.items()}
