"""The packaged Traefik: asked from outside the cluster, over HTTP, HTTPS and WebSockets."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from k1s.base import pki

from .conftest import ROOT, TOOLS, Cluster, eventually, run
from .hosts import Hosts, cluster_of

WEB = Path(__file__).with_name("web.py")
CLIENT = "192.0.2.99"
ECHO_PORT = 18080


class Site(Cluster):
    """A cluster with Traefik, and a neighbour on its LAN that asks."""

    @property
    def neighbour(self) -> str:
        return f"{self.netns}-out"

    def create_network(self) -> None:
        super().create_network()
        run("ip", "netns", "add", self.neighbour)
        run("ip", "-n", self.netns, "link", "add", "port0", "type", "veth", "peer", "name", "eth0", "netns", self.neighbour)
        run("ip", "-n", self.netns, "link", "set", "port0", "master", "uplink0", "up")
        run("ip", "-n", self.neighbour, "addr", "add", f"{CLIENT}/24", "dev", "eth0")
        run("ip", "-n", self.neighbour, "link", "set", "lo", "up")
        run("ip", "-n", self.neighbour, "link", "set", "eth0", "up")

    def prepare_files(self) -> Path:
        resolv = super().prepare_files()
        image = self.data / "agent" / "images" / "traefik.tar"
        if not image.exists():
            shutil.copy(TOOLS / "addons" / "traefik.tar", image)
        return resolv

    def remove(self) -> None:
        super().remove()
        run("ip", "netns", "del", self.neighbour, check=False)

    def outside(self, *command: str | Path) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self.neighbour}", *map(str, command)]

    def curl(self, url: str, host: str = "", *flags: str) -> str:
        """The body; with -w "%{http_code}" and the like what these say."""
        named = ["-H", f"Host: {host}"] if host else []
        return run(*self.outside("curl", "-sS", "--max-time", "10", *named, *flags, url)).stdout

    def status(self, url: str, host: str = "", *flags: str) -> int:
        return int(self.curl(url, host, "-o", "/dev/null", "-w", "%{http_code}", *flags))

    def ingress_address(self, ingress: str) -> str:
        found = self.get("ingress", ingress)["status"].get("loadBalancer", {}).get("ingress") or [{}]
        return str(found[0].get("ip", ""))


@pytest.fixture(scope="module")
def site(tools: Path) -> Iterator[Site]:
    if not (TOOLS / "addons" / "traefik.tar").exists():
        pytest.skip(f"{TOOLS} lacks traefik: run 'packaging/prepare.sh test'")
    made = Site(f"k1s-ing-{os.getpid()}")
    server = None
    try:
        made.create_network()
        made.start("--disable", "none")
        made.kubectl("-n", "kube-system", "wait", "--for=condition=Available", "deploy/traefik", "--timeout=90s")
        server = subprocess.Popen(made.inside(sys.executable, "-IS", WEB, "serve", made.address, str(ECHO_PORT)))
        made.kubectl("apply", "-f", "-", input=ECHO)
        made.kubectl("apply", "-f", str(ROOT / "examples" / "ingress.yaml"))
        made.kubectl("wait", "--for=condition=Available", "deploy/shop", "deploy/cart", "--timeout=60s")
        eventually(lambda: made.curl(f"http://{made.address}/", "shop.example.com").startswith("welcome"), 20)
        yield made
    finally:
        if server is not None:
            server.kill()
            server.wait()
        made.remove()


def ingress(name: str, spec: str) -> str:
    return f"apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}}}\nspec: {spec}\n"


def path(place: str, kind: str, service: str = "echo") -> str:
    return f"{{path: {place}, pathType: {kind}, backend: {{service: {{name: {service}, port: {{number: 80}}}}}}}}"


# A Service without a selector: its endpoint is a program of the host.
ECHO = f"""
apiVersion: v1
kind: Service
metadata: {{name: echo}}
spec: {{ports: [{{name: http, port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: echo-by-hand, labels: {{kubernetes.io/service-name: echo}}}}
addressType: IPv4
ports: [{{name: http, port: {ECHO_PORT}, protocol: TCP}}]
endpoints: [{{addresses: ["192.0.2.10"], conditions: {{ready: true}}}}]
"""


def test_the_example_works_as_its_head_says(site: Site) -> None:
    address = eventually(lambda: site.ingress_address("shop"), 20, "an address in the Ingress's status")
    assert address == site.address
    assert site.get("ingress", "shop")["spec"]["ingressClassName"] == "traefik", "the default class"
    service = site.get("service", "traefik", "-n", "kube-system")
    assert service["status"]["loadBalancer"]["ingress"][0]["ip"] == address
    assert site.curl(f"http://{address}/", "shop.example.com") == "welcome to the shop\n"
    assert site.curl(f"http://{address}/cart/", "shop.example.com") == "your cart is empty\n"
    resolve = f"shop.example.com:443:{address}"
    assert site.curl("https://shop.example.com/", "", "-k", "--resolve", resolve) == "welcome to the shop\n"
    assert site.status(f"http://{address}/", "other.example.com") == 404


def test_hosts_and_path_types(site: Site) -> None:
    http = f"paths: [{path('/exact', 'Exact')}, {path('/prefix', 'Prefix')}, {path('/as-you-like', 'ImplementationSpecific')}]"
    wild = f"{{host: '*.wild.example.com', http: {{paths: [{path('/', 'Prefix')}]}}}}"
    rules = f"[{{host: paths.example.com, http: {{{http}}}}}, {wild}]"
    site.kubectl("apply", "-f", "-", input=ingress("paths", f"{{rules: {rules}}}"))
    root, host = f"http://{site.address}", "paths.example.com"
    eventually(lambda: site.status(f"{root}/exact", host) == 200, 20)
    wanted = {
        "/exact": 200, "/exact/": 404, "/exact/more": 404, "/prefix": 200, "/prefix/": 200, "/prefix/more": 200,
        "/prefixed": 404, "/as-you-like/more": 200, "/": 404,
    }  # fmt: skip
    assert {place: site.status(root + place, host) for place in wanted} == wanted
    assert site.status(root, "one.wild.example.com") == 200
    assert site.status(root, "wild.example.com") == 404
    assert site.status(root, "a.b.wild.example.com") == 404
    seen = json.loads(site.curl(f"{root}/prefix/x?y=1", host))
    assert seen["path"] == "/prefix/x?y=1" and seen["headers"]["host"] == host
    assert seen["headers"]["x-forwarded-host"] == host


def test_tls_from_a_secret(site: Site, tmp_path: Path) -> None:
    ca = pki.create_ca("shop-ca", time.time())
    key = pki.new_key()
    leaf = pki.issue(ca, key, pki.Subject("safe.example.com", sans=("safe.example.com",)), usage="server", now=time.time())
    for name, data in (("ca.pem", ca.certificate), ("tls.crt", leaf), ("tls.key", key)):
        (tmp_path / name).write_bytes(data)
    site.kubectl("create", "secret", "tls", "safe", "--cert", str(tmp_path / "tls.crt"), "--key", str(tmp_path / "tls.key"))
    rules = f"[{{host: safe.example.com, http: {{paths: [{path('/', 'Prefix')}]}}}}]"
    site.kubectl(
        "apply", "-f", "-", input=ingress("safe", f"{{tls: [{{hosts: [safe.example.com], secretName: safe}}], rules: {rules}}}")
    )
    flags = ("--cacert", str(tmp_path / "ca.pem"), "--resolve", f"safe.example.com:443:{site.address}")

    def asked() -> bool:
        return bool(json.loads(site.curl("https://safe.example.com/", "", *flags))["headers"]["x-forwarded-proto"] == "https")

    eventually(asked, 20, "the Secret's certificate, verified")
    # A new certificate of another CA is served without anybody restarting anything.
    other = pki.create_ca("other-ca", time.time())
    (tmp_path / "tls.crt").write_bytes(
        pki.issue(other, key, pki.Subject("safe.example.com", sans=("safe.example.com",)), usage="server", now=time.time())
    )
    (tmp_path / "ca.pem").write_bytes(other.certificate)
    secret = site.kubectl(
        "create", "secret", "tls", "safe", "--cert", str(tmp_path / "tls.crt"), "--key", str(tmp_path / "tls.key"),
        "--dry-run=client", "-o", "yaml",
    ).stdout  # fmt: skip
    site.kubectl("replace", "-f", "-", input=secret)
    eventually(asked, 20, "the new certificate")


def test_a_default_backend(site: Site) -> None:
    assert site.status(f"http://{site.address}/nobody", "nobody.example.com") == 404
    spec = "{defaultBackend: {service: {name: echo, port: {name: http}}}}"
    site.kubectl("apply", "-f", "-", input=ingress("rest", spec))
    try:
        eventually(lambda: site.status(f"http://{site.address}/nobody", "nobody.example.com") == 200, 20)
        assert site.curl(f"http://{site.address}/", "shop.example.com") == "welcome to the shop\n"
    finally:
        site.kubectl("delete", "ingress", "rest")
    eventually(lambda: site.status(f"http://{site.address}/nobody", "nobody.example.com") == 404, 20)


def test_websockets(site: Site) -> None:
    rules = f"[{{host: ws.example.com, http: {{paths: [{path('/', 'Prefix')}]}}}}]"
    site.kubectl("apply", "-f", "-", input=ingress("ws", f"{{rules: {rules}}}"))
    eventually(lambda: site.status(f"http://{site.address}/", "ws.example.com") == 200, 20)
    for scheme in ("http", "https"):
        url = f"{scheme}://{site.address}/chat"
        said = run(*site.outside(sys.executable, "-IS", WEB, "echo", url, "ws.example.com", "one", "two", "x" * 5000)).stdout
        assert said.splitlines() == ["one", "two", "x" * 5000]


def test_traefiks_own_kinds(site: Site) -> None:
    text = """
apiVersion: traefik.io/v1alpha1
kind: Middleware
metadata: {name: strip}
spec: {stripPrefix: {prefixes: [/strip]}}
---
apiVersion: traefik.io/v1alpha1
kind: IngressRoute
metadata: {name: own}
spec:
  entryPoints: [web]
  routes:
  - match: Host(`own.example.com`) && PathPrefix(`/strip`)
    kind: Rule
    middlewares: [{name: strip}]
    services: [{name: echo, port: 80}]
"""
    site.kubectl("apply", "-f", "-", input=text)
    eventually(lambda: site.status(f"http://{site.address}/strip/x", "own.example.com") == 200, 20)
    assert json.loads(site.curl(f"http://{site.address}/strip/x", "own.example.com"))["path"] == "/x"
    bad = site.kubectl("apply", "-f", "-", input=text.replace("kind: Rule", "kind: Rool"), check=False)
    assert bad.returncode != 0 and "spec.routes[0].kind" in bad.stderr


@pytest.mark.parametrize("target", ["shop", "traefik"])
def test_a_rolling_update_loses_no_request(site: Site, tmp_path: Path, target: str) -> None:
    stop = tmp_path / "stop"
    url = f"http://{site.address}/"
    command = site.outside(sys.executable, "-IS", WEB, "load", url, "shop.example.com", "90", stop)
    loads = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        time.sleep(1)
        where = ["-n", "kube-system"] if target == "traefik" else []
        site.kubectl(*where, "rollout", "restart", f"deploy/{target}")
        site.kubectl(*where, "rollout", "status", f"deploy/{target}", "--timeout=80s")
        # The old pods' last moments are part of it.
        time.sleep(6)
        stop.touch()
        answers = [json.loads(load.communicate(timeout=20)[0]) for load in loads]
    finally:
        for load in loads:
            load.kill()
            load.wait()
    assert sum(answer["good"] for answer in answers) > 50
    assert [answer["bad"] for answer in answers] == [[], []]


def test_traffic_goes_on_without_the_server(site: Site) -> None:
    """And Traefik, a client like any other, hears of what comes after."""
    os.kill(site.pid_of("server"), signal.SIGKILL)
    assert site.server is not None
    site.server.wait(10)
    for _ in range(20):
        assert site.status(f"http://{site.address}/", "shop.example.com") == 200
        time.sleep(0.2)
    site.start("--disable", "none")
    rules = f"[{{host: later.example.com, http: {{paths: [{path('/', 'Prefix')}]}}}}]"
    site.kubectl("apply", "-f", "-", input=ingress("later", f"{{rules: {rules}}}"))
    eventually(lambda: site.status(f"http://{site.address}/", "later.example.com") == 200, 60)
    pods = site.get("pods", "-n", "kube-system", "-l", "app.kubernetes.io/name=traefik")["items"]
    assert [pod["status"]["containerStatuses"][0]["restartCount"] for pod in pods] == [0]


def test_a_helm_chart_config_changes_it(site: Site) -> None:
    values = """
ports:
  web: {http: {redirections: {entryPoint: {to: websecure, scheme: https, permanent: true}}}}
  extra: {port: 7000, exposedPort: 7000, expose: {default: true}}
service: {annotations: {example.com/note: here}}
additionalArguments: ["--log.level=DEBUG"]
persistence: {enabled: true}
"""
    config = {
        "apiVersion": "helm.cattle.io/v1",
        "kind": "HelmChartConfig",
        "metadata": {"name": "traefik", "namespace": "kube-system"},
        "spec": {"valuesContent": values},
    }
    site.kubectl("apply", "-f", "-", input=json.dumps(config))
    try:
        asked = (f"http://{site.address}/", "shop.example.com", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}")
        # The old pod answers, too, until the new one has taken over.
        eventually(lambda: site.curl(*asked) == "301 https://shop.example.com/", 60)
        service = site.get("service", "traefik", "-n", "kube-system")
        assert service["metadata"]["annotations"]["example.com/note"] == "here"
        assert {p["name"]: p["port"] for p in service["spec"]["ports"]} == {"web": 80, "websecure": 443, "extra": 7000}
        told = site.kubectl("get", "events", "-n", "kube-system").stdout
        assert "not honoured by k1s' traefik: persistence.enabled" in told
    finally:
        site.kubectl("-n", "kube-system", "delete", "helmchartconfig", "traefik")
    eventually(lambda: site.status(f"http://{site.address}/", "shop.example.com") == 200, 60)


def test_it_can_be_disabled(site: Site) -> None:
    """The last test: Traefik is gone afterwards."""
    site.kubectl("delete", "middleware,ingressroute", "--all")
    site.stop()
    site.start("--disable", "traefik")
    eventually(lambda: "traefik" not in site.kubectl("get", "deploy,svc,sa,addon", "-n", "kube-system").stdout, 20)
    eventually(lambda: "traefik" not in site.kubectl("get", "ingressclass,clusterrole,clusterrolebinding").stdout, 20)
    eventually(lambda: "traefik.io" not in site.kubectl("get", "crd", "-o", "name").stdout, 20)
    assert "shop" in site.kubectl("get", "ingress").stdout, "what the user made stays"


def test_every_host_is_a_door(tools: Path) -> None:
    """Two hosts: Traefik runs where its image is, and is asked at both addresses."""

    def give_image(hosts: Hosts) -> None:
        directory = hosts.server.data / "agent" / "images"
        directory.mkdir(parents=True)
        shutil.copy(tools / "addons" / "traefik.tar", directory)

    with cluster_of(f"ig{os.getpid() % 10000}", ("a", "b"), "--disable", "none", before=give_image) as hosts:
        hosts.kubectl("-n", "kube-system", "wait", "--for=condition=Available", "deploy/traefik", "--timeout=90s")
        (pod,) = hosts.get("pods", "-n", "kube-system", "-l", "app.kubernetes.io/name=traefik")["items"]
        assert pod["spec"]["nodeName"] == "a"
        hosts.kubectl("apply", "-f", str(ROOT / "examples" / "ingress.yaml"))
        hosts.kubectl("wait", "--for=condition=Available", "deploy/shop", "deploy/cart", "--timeout=60s")
        addresses = {host.address for host in hosts.hosts.values()}

        def told() -> set[str]:
            status = hosts.get("ingress", "shop")["status"].get("loadBalancer", {}).get("ingress") or []
            return {entry["ip"] for entry in status}

        eventually(lambda: told() == addresses, 20, "both addresses in the Ingress's status")
        for address in sorted(addresses):
            command = ("curl", "-sS", "--max-time", "10", "-H", "Host: shop.example.com", f"http://{address}/")
            eventually(lambda command=command: hosts.outside(*command).stdout == "welcome to the shop\n", 20)
