"""What the conformance suite asks of a cluster of several nodes: the network between all of them, host ports, proxying to
other nodes, DaemonSets, evictions, preemption, taints, and Nodes as objects."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from .api import JSON_PATCH, STRATEGIC, Api, Refused
from .conftest import eventually, run
from .hosts import Hosts
from .small_pods import BUSYBOX, Object, condition, create, get_pod, pod, process_in, ready

NAMESPACE = "many-conformance"
CORE = f"/api/v1/namespaces/{NAMESPACE}"
APPS = f"/apis/apps/v1/namespaces/{NAMESPACE}"
BATCH = f"/apis/batch/v1/namespaces/{NAMESPACE}"
BUDGETS = f"/apis/policy/v1/namespaces/{NAMESPACE}/poddisruptionbudgets"
NODES = ("a", "b", "c")

# Run in the networks of pods and hosts, since busybox has neither a UDP server nor one that takes every method.
SERVER = """
import http.server, socket, sys, threading
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = sys.argv[1] if self.path == "/hostname" else f"{self.command} {self.path}"
        body = b"" if self.command == "HEAD" else name.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(name)))
        self.end_headers()
        self.wfile.write(body)
    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_GET
    def log_message(self, *_): pass
web = http.server.ThreadingHTTPServer(("", 8083), Handler)
threading.Thread(target=web.serve_forever, daemon=True).start()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("", 8081))
print("up", flush=True)
while True:
    udp.sendto(sys.argv[1].encode(), udp.recvfrom(99)[1])
"""
# [[kind, address, port, times]...] -> who answered each
ASK = """
import json, socket, sys
from urllib.request import urlopen
def ask(kind, address, port):
    try:
        if kind == "tcp":
            with urlopen(f"http://{address}:{port}/hostname", timeout=2) as answer:
                return answer.read().decode()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(2)
            s.sendto(b"x", (address, port))
            return s.recv(99).decode()
    except OSError as error:
        return type(error).__name__
print(json.dumps([sorted({ask(*q[:3]) for _ in range(q[3])}) for q in json.loads(sys.argv[1])]))
"""


class Net:
    """Servers in pods' networks, and questions from pods and hosts."""

    def __init__(self, hosts: Hosts) -> None:
        self.hosts, self.pids, self.servers = hosts, dict[str, int](), list[subprocess.Popen[str]]()

    def where(self, source: str) -> list[str]:
        if source in self.hosts.hosts:
            return self.hosts[source].inside()
        if source not in self.pids:
            self.pids[source] = process_in(self.hosts.server, NAMESPACE, source)
        return ["nsenter", f"--net=/proc/{self.pids[source]}/ns/net"]

    def serve(self, name: str) -> None:
        command = [*self.where(name), sys.executable, "-ISc", SERVER, name]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.servers.append(process)
        assert process.stdout is not None and process.stdout.readline() == "up\n"

    def ask(self, source: str, *questions: tuple[str, str, int, int]) -> list[list[str]]:
        out = run(*self.where(source), sys.executable, "-ISc", ASK, json.dumps(questions)).stdout
        return list(json.loads(out))

    def close(self) -> None:
        for process in self.servers:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def api(hosts: Hosts) -> Iterator[Api]:
    hosts.kubectl("create", "namespace", NAMESPACE)
    eventually(lambda: hosts.get("sa", "default", "-n", NAMESPACE), 10)
    made = Api(hosts.server)
    yield made
    made.close()
    hosts.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.fixture(scope="module")
def net(hosts: Hosts, api: Api) -> Iterator[Net]:
    made = Net(hosts)
    web: Object = {"ports": [{"name": "http", "containerPort": 8083}, {"name": "udp", "containerPort": 8081, "protocol": "UDP"}]}
    labels = {"labels": {"selector-net": "true"}}
    names = [f"netserver-{node}" for node in NODES]
    create(hosts.server, NAMESPACE, *(pod(f"netserver-{n}", "sleep 100000", nodeName=n, main=web, meta=labels) for n in NODES))
    create(hosts.server, NAMESPACE, *(pod(f"client-{n}", "sleep 100000", nodeName=n) for n in NODES))
    ready(hosts.server, NAMESPACE, *names, *(f"client-{n}" for n in NODES))
    try:
        for name in names:
            made.serve(name)
        yield made
    finally:
        made.close()


def pods(api: Api, selector: str) -> list[Object]:
    found: list[Object] = api.get(f"{CORE}/pods", labelSelector=selector)["items"]
    return [p for p in found if not p["metadata"].get("deletionTimestamp")]


def gone(api: Api, name: str) -> bool:
    try:
        api.get(f"{CORE}/pods/{name}")
    except Refused as error:
        return error.code == 404
    return False


def running(api: Api, *names: str) -> None:
    eventually(lambda: all(api.get(f"{CORE}/pods/{n}")["status"].get("phase") == "Running" for n in names), 30, f"{names} run")


def template(script: str = "sleep 100000", **labels: str) -> Object:
    spec = {**pod("x", script)["spec"], "restartPolicy": "Always"}
    return {"metadata": {"labels": labels}, "spec": spec}


def only_on(node: str) -> Object:
    """As the suite pins pods past `nodeName`: through the scheduler."""
    fields = [{"key": "metadata.name", "operator": "In", "values": [node]}]
    required = {"nodeSelectorTerms": [{"matchFields": fields}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}


def test_granular_checks(net: Net) -> None:
    """Pod to pod and node to pod, http and udp, from every node to every node; then ClusterIP, NodePort, and each to itself."""
    addresses = {n: get_pod(net.hosts.server, NAMESPACE, f"netserver-{n}")["status"]["podIP"] for n in NODES}
    direct = [(kind, addresses[n], port, 1) for n in NODES for kind, port in (("tcp", 8083), ("udp", 8081))]
    for source in [*NODES, *(f"client-{n}" for n in NODES)]:
        assert net.ask(source, *direct) == [[f"netserver-{n}"] for n in NODES for _ in (1, 2)], source
    ports = [
        {"name": "http", "port": 80, "targetPort": 8083},
        {"name": "udp", "port": 80, "targetPort": 8081, "protocol": "UDP"},
    ]
    spec: Object = {"type": "NodePort", "selector": {"selector-net": "true"}, "ports": ports}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "nodes"}, "spec": spec}
    create(net.hosts.server, NAMESPACE, service)
    made = net.hosts.get("service", "nodes", "-n", NAMESPACE)["spec"]
    ways = [(made["clusterIP"], 80, 80), *((net.hosts[n].address, *(p["nodePort"] for p in made["ports"])) for n in NODES)]
    questions = [q for address, tcp, udp in ways for q in (("tcp", address, tcp, 25), ("udp", address, udp, 25))]
    everyone = [[f"netserver-{n}" for n in NODES]] * len(questions)
    for source in [*NODES, *(f"client-{n}" for n in NODES), *(f"netserver-{n}" for n in NODES)]:
        eventually(lambda s=source: net.ask(s, *questions) == everyone, 10, f"{source} reaches all")  # type: ignore[misc]


def test_host_ports_of_another_node(net: Net, api: Api) -> None:
    """The same port for 127.0.0.1, for the node's address, and for another protocol; free again at once after a forced end."""

    def holder(name: str, address: str, protocol: str, port: int, grace: int = 0, script: str = "sleep 100000") -> Object:
        number = 8083 if protocol == "TCP" else 8081
        ports: Object = {"ports": [{"containerPort": number, "hostPort": port, "hostIP": address, "protocol": protocol}]}
        return pod(name, script, main=ports, affinity=only_on("b"), terminationGracePeriodSeconds=grace)

    here = net.hosts["b"].address
    share = [("127.0.0.1", "TCP"), (here, "TCP"), (here, "UDP")]
    create(net.hosts.server, NAMESPACE, *(holder(f"port-{i}", *pair, 54323) for i, pair in enumerate(share)))
    ready(net.hosts.server, NAMESPACE, "port-0", "port-1", "port-2")
    for i in range(3):
        net.serve(f"port-{i}")
    assert net.ask("b", ("tcp", "127.0.0.1", 54323, 3)) == [["port-0"]]
    for source in ("a", "b", "client-a", "client-b"):
        assert net.ask(source, ("tcp", here, 54323, 3), ("udp", here, 54323, 3)) == [["port-1"], ["port-2"]], source
    stubborn = "trap '' TERM; while true; do sleep 1; done"
    create(net.hosts.server, NAMESPACE, holder("first", "0.0.0.0", "TCP", 54322, 30, stubborn))
    running(api, "first")
    create(net.hosts.server, NAMESPACE, holder("second", here, "TCP", 54322))
    refused = eventually(lambda: condition(api.get(f"{CORE}/pods/second"), "PodScheduled"), 10)
    assert (refused["status"], refused["reason"]) == ("False", "Unschedulable")
    assert "1 node(s) didn't have free ports for the requested pod ports" in refused["message"]
    net.hosts.kubectl("delete", "pod", "first", "-n", NAMESPACE, "--force", "--grace-period=0")
    running(api, "second")
    net.serve("second")
    assert net.ask("c", ("tcp", here, 54322, 1)) == [["second"]]


def test_a_proxied_pod_of_another_node_takes_every_method(net: Net, api: Api) -> None:
    """[Conformance] Proxy version v1: a set of valid responses are returned for both pod and service Proxy and ProxyWithPath."""
    spec = {"selector": {"only": "c"}, "ports": [{"name": "web", "port": 80, "targetPort": 8083}]}
    create(net.hosts.server, NAMESPACE, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "far"}, "spec": spec})
    api.patch(f"{CORE}/pods/netserver-c", {"metadata": {"labels": {"only": "c"}}})
    eventually(lambda: api.get(f"{CORE}/services/far:web/proxy/hostname") == "netserver-c", 10)
    for target in ("pods/netserver-c:8083", "pods/http:netserver-c:8083", "services/far:web", "services/http:far:80"):
        for method in ("DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT"):
            assert api.call(method, f"{CORE}/{target}/proxy/some/{method}")[1] == f"{method} /some/{method}"
            if method != "GET":
                assert api.call(method, f"{CORE}/{target}/proxy?method={method}")[1] == f"{method} /?method={method}"
        assert api.call("HEAD", f"{CORE}/{target}/proxy/some/HEAD")[1] == ""
        for method in ("GET", "HEAD"):
            headers = api.call(method, f"{CORE}/{target}/proxy?method={method}")[0]
            assert headers["Location"].endswith(f"/proxy/?method={method}")


def daemons(api: Api) -> dict[str, Object]:
    """Node -> its ready pod."""
    return {p["spec"]["nodeName"]: p for p in pods(api, "app=ds") if condition(p, "Ready").get("status") == "True"}


def image(name: str) -> Object:
    return {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": name}]}}}}


def test_daemon_set_on_every_node(hosts: Hosts, api: Api) -> None:
    """Runs everywhere, follows labels, and a rollback restarts only what had been updated."""
    path = f"{APPS}/daemonsets/ds"
    spec: Object = {"selector": {"matchLabels": {"app": "ds"}}, "template": template(app="ds")}
    api.post(f"{APPS}/daemonsets", {"metadata": {"name": "ds"}, "spec": spec})
    eventually(lambda: set(daemons(api)) == set(NODES), 30)
    before = {p["metadata"]["uid"] for p in daemons(api).values()}
    api.patch(path, image("foo:non-existent"), STRATEGIC)

    def updated() -> list[Object]:
        return [p for p in pods(api, "app=ds") if p["spec"]["containers"][0]["image"] != BUSYBOX]

    eventually(updated, 20)
    assert len(updated()) == 1 and len(daemons(api)) == 2
    api.patch(path, image(BUSYBOX), STRATEGIC)
    eventually(lambda: set(daemons(api)) == set(NODES) and not updated(), 30)
    assert len(before & {p["metadata"]["uid"] for p in daemons(api).values()}) == 2
    failed = daemons(api)["c"]["metadata"]["name"]

    def replaced(found: dict[str, Object]) -> bool:
        return set(found) == set(NODES) and found["c"]["metadata"]["name"] != failed

    api.patch(f"{CORE}/pods/{failed}/status", {"status": {"phase": "Failed"}})
    eventually(lambda: replaced(daemons(api)), 30)
    api.patch(path, {"spec": {"template": {"spec": {"nodeSelector": {"colour": "blue"}}}}}, STRATEGIC)
    eventually(lambda: not pods(api, "app=ds"), 20)
    hosts.kubectl("label", "node", "b", "colour=blue")
    try:
        eventually(lambda: set(daemons(api)) == {"b"}, 20)
    finally:
        hosts.kubectl("label", "node", "b", "colour-")
    eventually(lambda: not pods(api, "app=ds"), 20)
    api.delete(path)


def test_an_evicted_pod_of_a_job_does_not_count(api: Api) -> None:
    """[Conformance] Job should allow to use a pod failure policy to ignore failure matching on DisruptionTarget condition."""
    rules = [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]
    made = {**template("sleep 100000 || exit 1", job="j")}
    made["spec"] |= {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1}
    api.post(f"{BATCH}/jobs", {"metadata": {"name": "j"}, "spec": {
        "backoffLimit": 0, "podFailurePolicy": {"rules": rules}, "template": made}})  # fmt: skip

    def alive() -> list[Object]:
        return [p for p in pods(api, "job=j") if p["status"]["phase"] == "Running"]

    first = eventually(alive, 20)[0]["metadata"]
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": first["name"]}}
    api.post(f"{CORE}/pods/{first['name']}/eviction", body)
    eventually(lambda: [p for p in alive() if p["metadata"]["uid"] != first["uid"]], 20, "another pod in its place")
    assert not api.get(f"{BATCH}/jobs/j")["status"].get("failed")
    api.delete(f"{BATCH}/jobs/j", propagationPolicy="Background")


def test_drain_asks_budgets(hosts: Hosts, api: Api) -> None:
    spread = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
    made = template(app="kept")
    made["spec"]["topologySpreadConstraints"] = [{**spread, "labelSelector": {"matchLabels": {"app": "kept"}}}]
    selector = {"matchLabels": {"app": "kept"}}
    api.post(f"{APPS}/deployments", {"metadata": {"name": "kept"}, "spec": {
        "replicas": 3, "selector": selector, "template": made}})  # fmt: skip
    api.post(BUDGETS, {"metadata": {"name": "kept"}, "spec": {"minAvailable": 3, "selector": selector}})
    eventually(lambda: api.get(f"{APPS}/deployments/kept")["status"].get("readyReplicas") == 3, 30)
    eventually(lambda: api.get(f"{BUDGETS}/kept").get("status", {}).get("currentHealthy") == 3, 10)
    assert {p["spec"]["nodeName"] for p in pods(api, "app=kept")} == set(NODES)
    drain = ("drain", "c", "--ignore-daemonsets", "--delete-emptydir-data", "--pod-selector=app=kept")
    try:
        refused = hosts.kubectl(*drain, "--timeout=1s", check=False)
        assert refused.returncode != 0 and "would violate the pod's disruption budget" in refused.stderr
        api.patch(f"{BUDGETS}/kept", {"spec": {"minAvailable": 2}})
        hosts.kubectl(*drain, "--timeout=30s")
        assert "c" not in {p["spec"].get("nodeName") for p in pods(api, "app=kept")}
    finally:
        hosts.kubectl("uncordon", "c")
    api.delete(f"{APPS}/deployments/kept")


def test_preemption_takes_the_least_and_keeps_no_promise_for_ever(hosts: Hosts, api: Api) -> None:
    classes, resource = "/apis/scheduling.k8s.io/v1/priorityclasses", "scheduling.k8s.io/foo"
    values = {"many-low": 1, "many-medium": 100, "many-high": 1000}

    def patch_nodes(operation: Object) -> None:
        path = "/status/capacity/" + resource.replace("/", "~1")
        for node in NODES:
            api.patch(f"/api/v1/nodes/{node}/status", [{"path": path, **operation}], JSON_PATCH)

    def offered(node: str) -> Any:
        return api.get(f"/api/v1/nodes/{node}")["status"]["allocatable"].get(resource)

    def wants(name: str, importance: str, **spec: Any) -> Object:
        amount: Object = {resource: "4"}
        main: Object = {"resources": {"requests": amount, "limits": amount}}
        return pod(name, "sleep 100000", main=main, priorityClassName=f"many-{importance}", **spec)

    for name, value in values.items():
        api.post(classes, {"metadata": {"name": name}, "value": value})
    patch_nodes({"op": "add", "value": "5"})
    try:
        for node in NODES:
            eventually(lambda n=node: offered(n) == "5", 15)  # type: ignore[misc]
            importance = "low" if node == "b" else "medium"
            create(hosts.server, NAMESPACE, wants(f"victim-{node}", importance, affinity=only_on(node)))
        running(api, *(f"victim-{n}" for n in NODES))
        api.patch(f"{CORE}/pods/victim-b", {"metadata": {"finalizers": ["example.com/held"]}})
        create(hosts.server, NAMESPACE, wants("preemptor", "high"))
        eventually(lambda: api.get(f"{CORE}/pods/victim-b")["metadata"].get("deletionTimestamp"), 20)
        assert condition(api.get(f"{CORE}/pods/victim-b"), "DisruptionTarget")["reason"] == "PreemptionByScheduler"
        eventually(lambda: api.get(f"{CORE}/pods/preemptor")["status"].get("nominatedNodeName") == "b", 5)
        api.patch(f"{CORE}/pods/victim-b", {"metadata": {"finalizers": None}})
        running(api, "preemptor")
        found = api.get(f"{CORE}/pods/preemptor")
        assert (found["spec"]["nodeName"], found["status"].get("nominatedNodeName")) == ("b", None)
        assert not gone(api, "victim-a") and not gone(api, "victim-c")
    finally:
        patch_nodes({"op": "remove"})
        for name in values:
            api.delete(f"{classes}/{name}")
    api.delete(f"{CORE}/pods/preemptor")


def test_taints_of_one_node_evict_nobody_elsewhere(hosts: Hosts, api: Api) -> None:
    """[Conformance] NoExecuteTaintManager: removing a taint cancels evictions; minTolerationSeconds; the others stay."""
    taint = {"key": "many/evict", "operator": "Equal", "value": "x", "effect": "NoExecute"}
    cases: dict[str, tuple[str, list[Object]]] = {
        "at-once": ("c", []),
        "soon": ("c", [{**taint, "tolerationSeconds": 2}]),
        "always": ("c", [taint]),
        "cancelled": ("b", [{**taint, "tolerationSeconds": 5}]),
        "elsewhere": ("a", []),
    }
    made = [pod(n, "sleep 100000", affinity=only_on(node), tolerations=t) for n, (node, t) in cases.items()]
    create(hosts.server, NAMESPACE, *made)
    running(api, *cases)
    began = time.monotonic()
    try:
        hosts.kubectl("taint", "node", "b", "c", "many/evict=x:NoExecute")
        eventually(lambda: gone(api, "at-once"), 10)
        assert not gone(api, "soon")
        eventually(lambda: gone(api, "soon"), 10)
        assert time.monotonic() - began > 2
    finally:
        hosts.kubectl("taint", "node", "b", "c", "many/evict-")
    time.sleep(max(0.0, began + 6 - time.monotonic()))
    assert not any(gone(api, name) for name in ("always", "cancelled", "elsewhere"))


def test_the_life_of_a_node_object(api: Api) -> None:
    """[Conformance] Nodes: should run through the lifecycle of a node."""
    path = "/api/v1/nodes/e2e-fake"
    status = {"capacity": {"cpu": "5", "pods": "10"}, "conditions": [{"type": "Ready", "status": "True"}]}
    api.post("/api/v1/nodes", {"metadata": {"name": "e2e-fake"}, "status": status})
    assert api.patch(path, {"metadata": {"labels": {"e2e-fake": "patched"}}}, STRATEGIC)["metadata"]["labels"]

    def update() -> Object:
        found: Object = api.get(path)
        found["metadata"]["labels"]["e2e-fake"] = "updated"
        return dict(api.put(path, found))

    def update_status() -> Object:
        found: Object = api.get(path)
        found["status"]["conditions"].append({"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "m"})
        return dict(api.put(f"{path}/status", found))

    # Controllers write the Node, too: a conflict is met with the newer one, as clients do.
    assert eventually(update, 5)["metadata"]["labels"]["e2e-fake"] == "updated"
    condition = {"type": "StatusPatched", "status": "True"}
    patched = api.patch(f"{path}/status", {"status": {"conditions": [condition]}}, STRATEGIC)
    assert "StatusPatched" in {c["type"] for c in patched["status"]["conditions"]}
    assert {"StatusPatched", "StatusUpdate"} <= {c["type"] for c in eventually(update_status, 5)["status"]["conditions"]}
    assert len(api.get("/api/v1/nodes", labelSelector="e2e-fake=updated")["items"]) == 1
    api.delete("/api/v1/nodes", labelSelector="e2e-fake=updated")
    eventually(lambda: not api.get("/api/v1/nodes", labelSelector="e2e-fake=updated")["items"], 10)
