"""A node whose host lets nobody in: everything the server wants of it goes through the tunnel that its agent opened."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from k1s.base import pki

from .conftest import eventually, run
from .hosts import Host, Hosts, cluster_of

BUSYBOX = "docker.io/library/busybox:1.36"
# Nothing new gets in; answers to what the host itself began do.
DROP_INBOUND = """
table inet nobody {
  chain input {
    type filter hook input priority -200; policy drop;
    iifname "lo" accept
    iifname "k1s0" accept
    ct state established,related accept
    meta l4proto icmpv6 accept
  }
}
"""
WEBHOOK = """
import http.server, json, ssl
class Hook(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = {"uid": review["request"]["uid"], "allowed": False, "status": {"message": "the hook on b says no"}}
        body = json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer}).encode()
        self.reply(body)
    def do_GET(self):
        resources = [{"name": "things", "singularName": "thing", "namespaced": False, "kind": "Thing", "verbs": ["list"]}]
        group = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "far.example/v1", "resources": resources}
        things = {"kind": "ThingList", "apiVersion": "far.example/v1", "metadata": {}, "items": []}
        self.reply(json.dumps(things if self.path.endswith("things") else group).encode())
    def reply(self, body):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
server = http.server.ThreadingHTTPServer(("0.0.0.0", 8443), Hook)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/hook/tls.crt", "/hook/tls.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


def shut(host: Host) -> None:
    run("ip", "netns", "exec", host.netns, "nft", "-f", "-", input=DROP_INBOUND)


def open_again(host: Host) -> None:
    run("ip", "netns", "exec", host.netns, "nft", "delete", "table", "inet", "nobody")


def pod(name: str, node: str, *command: str, **spec: Any) -> dict[str, Any]:
    container = {"name": name, "image": BUSYBOX, "command": list(command), **spec.pop("container", {})}
    meta = {"name": name, "labels": {"app": name}}
    spec = {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def apply(hosts: Hosts, *objects: dict[str, Any]) -> None:
    hosts.kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))


def web(node: str) -> dict[str, Any]:
    script = "mkdir /www; echo from-b > /www/index.html; echo up; exec httpd -f -p 8080 -h /www"
    return pod("web", node, "sh", "-c", script)


def hook(node: str) -> list[dict[str, Any]]:
    """A TLS server in a pod: the host's Python, borrowed by hostPath."""
    now = time.time()
    ca, key = pki.create_ca("hook-ca", now), pki.new_key()
    subject = pki.Subject("hook", sans=("hook.default.svc",))
    files = {"tls.crt": pki.issue(ca, key, subject, usage="server", now=now).decode(), "tls.key": key.decode()}
    python = str(Path("/usr/bin/python3").resolve())
    libraries = f"/usr/lib/{sysconfig.get_config_var('MULTIARCH') or 'x86_64-linux-gnu'}"
    borrowed = {"usr": ("/usr", "/usr"), "lib": (libraries, libraries.replace("/usr", "")), "lib64": ("/usr/lib64", "/lib64")}
    mounts = [{"name": name, "mountPath": inside, "readOnly": True} for name, (_, inside) in borrowed.items()]
    volumes: list[dict[str, Any]] = [{"name": name, "hostPath": {"path": path}} for name, (path, _) in borrowed.items()]
    server = pod(
        "hook", node, python, "-IS", "/hook/hook.py",
        volumes=[*volumes, {"name": "hook", "configMap": {"name": "hook"}}],
        container={
            "volumeMounts": [*mounts, {"name": "hook", "mountPath": "/hook"}],
            "readinessProbe": {"tcpSocket": {"port": 8443}, "periodSeconds": 1},
        },
    )  # fmt: skip
    bundle = base64.b64encode(ca.certificate).decode()
    ports = [{"port": 443, "targetPort": 8443}]
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "hook"}, "data": {**files, "hook.py": WEBHOOK}},
        server,
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "hook"},
            "spec": {"selector": {"app": "hook"}, "ports": ports},
        },
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "far"},
            "webhooks": [
                {
                    "name": "far.example.com",
                    "clientConfig": {"service": {"name": "hook", "namespace": "default"}, "caBundle": bundle},
                    "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["secrets"]}],
                    "objectSelector": {"matchLabels": {"far": "yes"}},
                    "sideEffects": "None",
                    "timeoutSeconds": 5,
                    "admissionReviewVersions": ["v1"],
                }
            ],
        },
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": "v1.far.example"},
            "spec": {
                "group": "far.example",
                "version": "v1",
                "groupPriorityMinimum": 100,
                "versionPriority": 10,
                "service": {"name": "hook", "namespace": "default"},
                "caBundle": bundle,
            },
        },
    ]


def secret(hosts: Hosts) -> str:
    """What comes of an object that only the hook may allow."""
    obj = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "guarded", "labels": {"far": "yes"}}}
    return hosts.kubectl("create", "-f", "-", input=json.dumps(obj), check=False).stderr


@contextmanager
def forwarded(hosts: Hosts, target: str, port: int) -> Iterator[int]:
    """kubectl port-forward on the server's host; yields the local port."""
    kubectl = Path(hosts.server.kubectl.__globals__["TOOLS"]) / "bin" / "kubectl"
    command = hosts.server.inside(kubectl, "port-forward", target, f":{port}")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=hosts.server.env)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"127\.0\.0\.1:(\d+)", line)
        assert found, line
        yield int(found[1])
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture(scope="module")
def hosts(tools: Path) -> Iterator[Hosts]:
    with cluster_of(f"t{os.getpid() % 100000}", ("a", "b")) as made:
        shut(made["b"])
        apply(made, web("b"), *hook("b"))
        made.kubectl("expose", "pod", "web", "--port=80", "--target-port=8080")
        made.kubectl("wait", "--for=condition=Ready", "pod/web", "pod/hook", "--timeout=60s")
        yield made


def test_the_host_is_shut(hosts: Hosts) -> None:
    url = f"https://{hosts['b'].address}:10250/healthz"
    result = run(*hosts.server.inside("curl", "-sk", "--max-time", "1", url), check=False)
    assert result.returncode == 28  # timed out


def test_logs_exec_and_attach(hosts: Hosts) -> None:
    assert hosts.exec("web", "cat", "/www/index.html") == "from-b\n"
    echoed = hosts.kubectl("exec", "-i", "web", "--", "cat", input="through")
    assert echoed.stdout == "through"
    assert hosts.kubectl("logs", "web").stdout == "up\n"


def test_copies_of_20_megabytes(hosts: Hosts, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(os.urandom(20 * 1024 * 1024))
    hosts.kubectl("cp", str(big), "web:/tmp/big")
    hosts.kubectl("cp", "web:/tmp/big", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == big.read_bytes()


def test_port_forward(hosts: Hosts) -> None:
    with forwarded(hosts, "pod/web", 8080) as port:
        got = run(*hosts.server.inside("curl", "-s", "--max-time", "5", f"http://127.0.0.1:{port}/"))
    assert got.stdout == "from-b\n"


def test_what_the_server_proxies(hosts: Hosts) -> None:
    raw = "/api/v1/nodes/b/proxy"
    assert hosts.kubectl("get", "--raw", f"{raw}/healthz").stdout == "ok"
    assert "node_cpu_usage_seconds_total" in hosts.kubectl("get", "--raw", f"{raw}/metrics/resource").stdout
    assert hosts.kubectl("get", "--raw", "/api/v1/namespaces/default/pods/web:8080/proxy/").stdout == "from-b\n"
    assert hosts.kubectl("get", "--raw", "/api/v1/namespaces/default/services/web:80/proxy/").stdout == "from-b\n"


def test_webhooks_and_aggregated_apis(hosts: Hosts) -> None:
    eventually(lambda: "the hook on b says no" in secret(hosts), 15, "the webhook to be called")
    hosts.kubectl("wait", "--for=condition=Available", "apiservice/v1.far.example", "--timeout=20s")
    assert "ThingList" in hosts.kubectl("get", "--raw", "/apis/far.example/v1/things").stdout


def test_a_tunnel_is_for_nodes_only(hosts: Hosts) -> None:
    """Also the administrator's certificate opens none."""
    config = hosts.server.home
    admin = json.loads(hosts.kubectl("config", "view", "--raw", "-o", "json").stdout)["users"][0]["user"]
    for name in ("certificate", "key"):
        (config / f"admin.{name}").write_bytes(base64.b64decode(admin[f"client-{name}-data"]))
    upgrade = ["-H", "Connection: Upgrade", "-H", "Upgrade: k1s-tunnel", "https://127.0.0.1:6443/v1-k1s/connect"]
    curl = ["curl", "-sk", "--max-time", "5", "-o", "/dev/null", "-w", "%{http_code}"]
    identity = ["--cert", str(config / "admin.certificate"), "--key", str(config / "admin.key")]
    assert run(*hosts.server.inside(*curl, *identity, *upgrade), check=False).stdout == "403"
    assert run(*hosts.server.inside(*curl, *upgrade), check=False).stdout == "401"


def test_a_cut_link_is_noticed_and_mended(hosts: Hosts) -> None:
    log = hosts.server.log
    began = time.monotonic()
    before = log.read_text().count("node b: tunnel lost")
    hosts["b"].cut()
    try:
        refused = hosts.kubectl("logs", "web", check=False)
        assert refused.returncode != 0 and "error trying to reach service" in refused.stderr
        assert time.monotonic() - began < 15
        eventually(
            lambda: log.read_text().count("node b: tunnel lost") > before, 20 - (time.monotonic() - began), "the server to notice"
        )
    finally:
        hosts["b"].mend()
    began = time.monotonic()
    eventually(lambda: hosts.kubectl("logs", "web", check=False).returncode == 0, 20, "the tunnel to be back")
    assert time.monotonic() - began < 10


def stamps(hosts: Hosts) -> list[float]:
    return [float(line) for line in hosts.exec("restless", "cat", "/data/starts", check=False).split() if line]


def test_the_server_away_for_half_a_minute(hosts: Hosts) -> None:
    """kill -9: containers are started again meanwhile, Services answer, agents are calm, and then everything catches up."""
    b = hosts["b"]
    restless = pod("restless", "b", "sleep", "100000", volumes=[{"name": "data", "emptyDir": {}}])
    mounts = [{"name": "data", "mountPath": "/data"}]
    restless["spec"]["containers"][0]["volumeMounts"] = mounts
    ends = {"name": "ends", "image": BUSYBOX, "volumeMounts": mounts}
    restless["spec"]["containers"].append({**ends, "command": ["sh", "-c", "date +%s >> /data/starts; sleep 4"]})
    apply(hosts, restless)
    eventually(lambda: stamps(hosts), 20, "the container's first start")
    address = hosts.get("service", "web")["spec"]["clusterIP"]
    before, process = len(b.log.read_text().splitlines()), hosts.server.server
    assert process is not None
    process.kill()
    process.wait(10)
    killed, served = time.time(), 0
    while time.time() < killed + 30:
        answer = run(*b.inside("curl", "-s", "--max-time", "2", f"http://{address}/"), check=False)
        served += answer.stdout == "from-b\n"
        time.sleep(2)
    hosts.server.start(wait=False)
    back = time.time()
    eventually(lambda: hosts.kubectl("get", "--raw", "/readyz", check=False).returncode == 0, 20, "the server")
    eventually(lambda: hosts.kubectl("logs", "web", check=False).stdout == "up\n", 10, "the tunnel to be back")
    restored = time.time() - back
    assert served >= 12, "the Service answered all the time"
    assert any(killed < start < back for start in stamps(hosts)), "the container was started again meanwhile"
    lines = [line for line in b.log.read_text().splitlines()[before:] if "k1s.agent.containerd" not in line]
    assert 2 <= len(lines) <= 4, "\n".join(lines)

    def restarts() -> int:
        return max(status["restartCount"] for status in hosts.get("pod", "restless")["status"]["containerStatuses"])

    eventually(lambda: restarts() >= 1, 10, "the restart to be told")
    assert restored < 10
    assert set(hosts.readiness().values()) == {"True"}


@pytest.fixture
def apart(tools: Path) -> Iterator[Hosts]:
    """A server on a host that is no node: `--disable-agent`."""
    made = Hosts(f"s{os.getpid() % 100000}", ("a", "b"))
    try:
        made.create_network()
        made.server.start("--disable-agent", wait=False)
        eventually(lambda: made.kubectl("get", "--raw", "/readyz", check=False).returncode == 0, 30, "the server")
        made["b"].join(made.url, made.token)
        made.wait_ready("b")
        yield made
    finally:
        made.remove()


def test_a_server_that_is_no_node_reaches_pods_and_services(apart: Hosts) -> None:
    shut(apart["b"])
    apply(apart, web("b"), *hook("b"))
    apart.kubectl("expose", "pod", "web", "--port=80", "--target-port=8080")
    apart.kubectl("wait", "--for=condition=Ready", "pod/web", "pod/hook", "--timeout=60s")
    assert apart.kubectl("get", "--raw", "/api/v1/namespaces/default/pods/web:8080/proxy/").stdout == "from-b\n"
    assert apart.kubectl("get", "--raw", "/api/v1/namespaces/default/services/web:80/proxy/").stdout == "from-b\n"
    assert apart.exec("web", "cat", "/www/index.html") == "from-b\n"
    eventually(lambda: "the hook on b says no" in secret(apart), 15, "the webhook to be called")
    apart.kubectl("wait", "--for=condition=Available", "apiservice/v1.far.example", "--timeout=20s")
    # A webhook by the Service's address: only nodes know the way there.
    address = apart.get("service", "hook")["spec"]["clusterIP"]
    config = apart.get("validatingwebhookconfiguration", "far")
    client = config["webhooks"][0]["clientConfig"]
    # The certificate names the Service, not its address: that the server says so shows that it got there.
    config["webhooks"][0]["clientConfig"] = {"url": f"https://{address}/", "caBundle": client["caBundle"]}
    apart.kubectl("replace", "-f", "-", input=json.dumps(config))
    eventually(lambda: "x509" in secret(apart), 15, secret(apart))
