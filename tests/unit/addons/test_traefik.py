"""What a HelmChartConfig makes of Traefik: pure."""

from __future__ import annotations

import io
import json
import tarfile
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml

from k1s.server.addons.chart_values import BadValues, merged
from k1s.server.addons.documents import parse
from k1s.server.addons.traefik.image import find_image
from k1s.server.addons.traefik.render import render

Object = dict[str, Any]
PACKAGE = resources.files("k1s.server.addons.traefik")
BASE = [document.content for document in parse((PACKAGE / "manifest.json").read_bytes(), json=True)]


def made(values: str = "") -> tuple[dict[str, Object], list[str]]:
    objects, unused = render(BASE, yaml.safe_load(values) or {}, "k1s.io/traefik:3.7")
    return {obj["kind"]: obj for obj in objects}, unused


def container(objects: dict[str, Object], kind: str = "Deployment") -> Object:
    found: Object = objects[kind]["spec"]["template"]["spec"]["containers"][0]
    return found


def test_without_a_configuration() -> None:
    objects, unused = made()
    assert unused == []
    assert list(objects) == ["IngressClass", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Deployment", "Service"]
    traefik = container(objects)
    assert traefik["image"] == "k1s.io/traefik:3.7"
    for flag in (
        "--entrypoints.web.address=:8000/tcp",
        "--entrypoints.websecure.address=:8443/tcp",
        "--entrypoints.websecure.http.tls=true",
        "--entrypoints.web.asdefault=true",
        "--ping=true",
        "--providers.kubernetescrd=true",
        "--providers.kubernetesingress=true",
        "--providers.kubernetesingress.strictprefixmatching=true",
        "--providers.kubernetesingress.ingressendpoint.publishedservice=kube-system/traefik",
        "--global.sendanonymoususage=false",
    ):
        assert flag in traefik["args"]
    ports = objects["Service"]["spec"]["ports"]
    assert [(p["name"], p["port"], p["targetPort"]) for p in ports] == [("web", 80, "web"), ("websecure", 443, "websecure")]
    assert objects["Service"]["spec"]["type"] == "LoadBalancer"


def test_what_k3s_users_set() -> None:
    objects, unused = made("""
deployment: {replicas: 3, podAnnotations: {a: true}}
service: {type: NodePort, annotations: {b: "1"}, spec: {externalTrafficPolicy: Local, loadBalancerIP: 192.0.2.7}}
ports:
  web: {nodePort: 30080, forwardedHeaders: {trustedIPs: [10.0.0.0/8, 192.168.0.0/16]}, redirectTo: {port: websecure}}
  websecure: {proxyProtocol: {trustedIPs: [10.0.0.0/8]}, tls: {certResolver: le}}
  dns: {port: 5353, exposedPort: 53, protocol: UDP, expose: {default: true}, hostPort: 53}
providers:
  kubernetesCRD: {allowCrossNamespace: true, namespaces: [a, b]}
  kubernetesIngress: {allowExternalNameServices: true, publishedService: {enabled: false}}
ingressClass: {isDefaultClass: false}
logs: {general: {level: DEBUG}, access: {enabled: true, format: json}}
certificatesResolvers: {le: {acme: {email: me@example.com, storage: /data/acme.json, httpChallenge: {entryPoint: web}}}}
additionalArguments: ["--api.dashboard=true"]
env: [{name: X, value: "1"}]
resources: {limits: {memory: 200Mi}}
nodeSelector: {disk: ssd}
tolerations: [{operator: Exists}]
volumes: [{name: certs, mountPath: /certs, type: secret}]
""")
    assert unused == []
    traefik, args = container(objects), container(objects)["args"]
    for flag in (
        "--entrypoints.web.forwardedheaders.trustedips=10.0.0.0/8,192.168.0.0/16",
        "--entrypoints.web.http.redirections.entrypoint.to=:443",
        "--entrypoints.web.http.redirections.entrypoint.scheme=https",
        "--entrypoints.websecure.proxyprotocol.trustedips=10.0.0.0/8",
        "--entrypoints.websecure.http.tls.certresolver=le",
        "--entrypoints.dns.address=:5353/udp",
        "--providers.kubernetescrd.allowcrossnamespace=true",
        "--providers.kubernetescrd.namespaces=a,b",
        "--providers.kubernetesingress.allowexternalnameservices=true",
        "--log.level=DEBUG",
        "--accesslog=true",
        "--accesslog.format=json",
        "--certificatesresolvers.le.acme.email=me@example.com",
        "--certificatesresolvers.le.acme.httpchallenge.entrypoint=web",
    ):
        assert flag in args, flag
    assert args[-1] == "--api.dashboard=true" and not [a for a in args if "publishedservice" in a]
    service = objects["Service"]["spec"]
    assert (service["type"], service["externalTrafficPolicy"], service["loadBalancerIP"]) == ("NodePort", "Local", "192.0.2.7")
    assert service["ports"][0]["nodePort"] == 30080 and service["ports"][2]["protocol"] == "UDP"
    assert {"name": "dns", "containerPort": 5353, "protocol": "UDP", "hostPort": 53} in traefik["ports"]
    assert objects["IngressClass"]["metadata"]["annotations"] == {"ingressclass.kubernetes.io/is-default-class": "false"}
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    assert objects["Deployment"]["spec"]["replicas"] == 3 and pod["nodeSelector"] == {"disk": "ssd"}
    assert pod["tolerations"] == [{"operator": "Exists"}] and traefik["resources"] == {"limits": {"memory": "200Mi"}}
    assert {"name": "extra-0", "secret": {"secretName": "certs"}} in pod["volumes"]
    assert {"name": "extra-0", "mountPath": "/certs", "readOnly": True} in traefik["volumeMounts"]


def test_another_image() -> None:
    assert container(made()[0])["imagePullPolicy"] == "Never"
    other = container(made("{image: {registry: r.example.com, repository: traefik, tag: v3.5}}")[0])
    assert (other["image"], other["imagePullPolicy"]) == ("r.example.com/traefik:v3.5", "IfNotPresent")
    tagged = container(made('{image: {tag: "3.8", pullPolicy: Always}}')[0])
    assert (tagged["image"], tagged["imagePullPolicy"]) == ("k1s.io/traefik:3.8", "Always")


def test_a_daemon_set_without_a_service() -> None:
    objects, unused = made("{deployment: {kind: DaemonSet}, service: {enabled: false}, hostNetwork: true}")
    assert unused == [] and "Service" not in objects and "Deployment" not in objects
    assert "replicas" not in objects["DaemonSet"]["spec"] and "strategy" not in objects["DaemonSet"]["spec"]
    assert not [a for a in container(objects, "DaemonSet")["args"] if "publishedservice" in a]


def test_objects_beside_it() -> None:
    objects, unused = made("""
tlsOptions: {default: {minVersion: VersionTLS12}}
ingressRoute: {dashboard: {enabled: true}}
extraObjects: [{kind: X}]
""")
    assert unused == [] and objects["TLSOption"]["spec"] == {"minVersion": "VersionTLS12"}
    assert objects["IngressRoute"]["spec"]["entryPoints"] == ["traefik"] and objects["X"] == {"kind": "X"}


def test_what_is_not_honoured_is_named() -> None:
    _, unused = made("{persistence: {enabled: true, size: 1Gi}, ports: {web: {http3: {enabled: true}}}, nonsense: 1, hub: {}}")
    assert unused == ["persistence.enabled", "persistence.size", "ports.web.http3.enabled", "nonsense", "hub"]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ("{ports: {web: {port: many}}}", "ports.web.port: must be a number"),
        ("{tlsOptions: [1]}", "tlsOptions: must be a mapping"),
        ("{additionalArguments: x}", "additionalArguments: must be a list"),
        ("{extraObjects: ['{{ tpl }}']}", "extraObjects[0]: must be an object"),
    ],
)
def test_what_cannot_be_understood(values: str, says: str) -> None:
    with pytest.raises(BadValues) as caught:
        made(values)
    assert says in str(caught.value)


def test_values_are_merged_as_helm_merges_them() -> None:
    base = {"a": {"b": 1, "c": 2}, "l": [1, 2], "x": 1}
    assert merged(base, {"a": {"b": 3, "d": 4}, "l": [3], "x": None}) == {"a": {"b": 3, "c": 2, "d": 4}, "l": [3]}
    assert base == {"a": {"b": 1, "c": 2}, "l": [1, 2], "x": 1}


def archive(path: Path, name: str) -> None:
    index = json.dumps({"manifests": [{"annotations": {"io.containerd.image.name": name}}]}).encode()
    with tarfile.open(path, "w") as tar:
        for member, data in (("oci-layout", b"{}"), ("index.json", index), ("blobs/sha256/x", b"x" * 100)):
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_the_image_is_found_in_an_archive_or_on_a_node(tmp_path: Path) -> None:
    nodes = [
        {"status": {"images": [{"names": ["k1s.io/traefik:3.7.9"]}, {"names": ["k1s.io/pause:1"]}]}},
        {"status": {"images": [{"names": ["k1s.io/traefik@sha256:1", "k1s.io/traefik:3.7.15"]}]}},
        {},
    ]
    assert find_image([tmp_path, tmp_path / "missing"], []) is None
    assert find_image([tmp_path], nodes) == "k1s.io/traefik:3.7.15"
    (tmp_path / "traefik-broken.tar").write_bytes(b"nonsense")
    archive(tmp_path / "traefik.tar", "k1s.io/traefik:3.8.1")
    assert find_image([tmp_path], nodes) == "k1s.io/traefik:3.8.1"


def test_the_definitions_that_come_with_it_cover_what_its_role_names() -> None:
    definitions = [document.content for document in parse((PACKAGE / "definitions.json").read_bytes(), json=True)]
    plurals = {definition["spec"]["names"]["plural"] for definition in definitions}
    (role,) = (obj for obj in BASE if obj["kind"] == "ClusterRole")
    assert plurals == {
        r for rule in role["rules"] if "traefik.io" in rule["apiGroups"] for r in rule["resources"] if "/" not in r
    }
    assert all(
        definition["metadata"]["name"] == f"{definition['spec']['names']['plural']}.traefik.io" for definition in definitions
    )
