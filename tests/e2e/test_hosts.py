"""Three hosts, one server: the demos of the README's section on several hosts, as written there."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import eventually, run
from .hosts import Hosts, processes

BUSYBOX = "docker.io/library/busybox:1.36"
NAMESPACE = "many"

WEB = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web"},
    "spec": {
        "replicas": 6,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "tolerations": [
                    {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}
                    for key in ("unreachable", "not-ready")
                ],
                "topologySpreadConstraints": [
                    {
                        "maxSkew": 1,
                        "topologyKey": "kubernetes.io/hostname",
                        "whenUnsatisfiable": "ScheduleAnyway",
                        "labelSelector": {"matchLabels": {"app": "web"}},
                    }
                ],
                "containers": [
                    {
                        "name": "web",
                        "image": BUSYBOX,
                        "command": [
                            "sh",
                            "-c",
                            "mkdir /www; hostname > /www/index.html; dd if=/dev/urandom of=/www/big bs=1M count=20 2>/dev/null;"
                            "md5sum < /www/big > /www/sum; exec httpd -f -p 8080 -h /www",
                        ],
                        "readinessProbe": {"httpGet": {"path": "/sum", "port": 8080}, "periodSeconds": 1},
                    }
                ],
            },
        },
    },
}


@pytest.fixture(scope="module")
def web(hosts: Hosts) -> Iterator[Hosts]:
    hosts.kubectl("create", "namespace", NAMESPACE)
    hosts.kubectl("apply", "-n", NAMESPACE, "-f", "-", input=json.dumps(WEB))
    hosts.kubectl("rollout", "status", "deploy/web", "-n", NAMESPACE, "--timeout=90s")
    hosts.kubectl("expose", "deploy", "web", "-n", NAMESPACE, "--port=80", "--target-port=8080")
    yield hosts
    hosts.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def pods(hosts: Hosts, *, running: bool = True) -> list[dict]:
    found = hosts.get("pods", "-n", NAMESPACE, "-l", "app=web")["items"]
    return [p for p in found if not running or (p["status"]["phase"] == "Running" and "deletionTimestamp" not in p["metadata"])]


def by_node(hosts: Hosts) -> dict[str, list[dict]]:
    out: dict[str, list[dict]] = {name: [] for name in hosts.hosts}
    for pod in pods(hosts):
        out[pod["spec"]["nodeName"]].append(pod)
    return out


def name_of(pod: dict) -> str:
    return str(pod["metadata"]["name"])


def shell(hosts: Hosts, pod: dict, script: str) -> str:
    return hosts.exec(name_of(pod), "sh", "-c", script, namespace=NAMESPACE)


def everyone_reaches_everyone(hosts: Hosts) -> None:
    all_pods = pods(hosts)
    addresses = [pod["status"]["podIP"] for pod in all_pods]
    script = "; ".join(f"wget -q -O - http://{address}:8080/ || echo none {address}" for address in addresses)
    for pod in all_pods:
        assert shell(hosts, pod, script).split("\n")[:-1] == [name_of(p) for p in all_pods], pod["spec"]["nodeName"]


def containers(hosts: Hosts) -> dict[str, tuple[str, int]]:
    out = {}
    for pod in pods(hosts):
        status = pod["status"]["containerStatuses"][0]
        out[name_of(pod)] = (status["containerID"], status["restartCount"])
    return out


def test_three_nodes(hosts: Hosts) -> None:
    nodes = hosts.get("nodes")["items"]
    addresses = {n["metadata"]["name"]: n["status"]["addresses"][0]["address"] for n in nodes}
    assert addresses == {"a": "192.0.2.11", "b": "192.0.2.12", "c": "192.0.2.13"}
    assert len({n["spec"]["podCIDR"] for n in nodes}) == 3


def test_every_pod_reaches_every_pod(web: Hosts) -> None:
    assert all(len(found) == 2 for found in by_node(web).values())
    everyone_reaches_everyone(web)


def test_by_service_and_name(web: Hosts) -> None:
    address = web.get("service", "web", "-n", NAMESPACE)["spec"]["clusterIP"]
    everyone = {name_of(pod) for pod in pods(web)}
    for found in by_node(web).values():
        for target in (address, "web", f"web.{NAMESPACE}.svc.cluster.local"):
            script = f"for i in 1 2 3 4 5 6 7 8; do wget -q -O - http://{target}/; done"
            answers = shell(web, found[0], script).split()
            assert len(answers) == 8
            assert set(answers) <= everyone


def test_twenty_megabytes_each_way(web: Hosts) -> None:
    placed = by_node(web)
    for here, there in (("b", "c"), ("c", "b"), ("a", "b"), ("b", "a")):
        target = placed[there][0]
        url = f"http://{target['status']['podIP']}:8080"
        got = shell(web, placed[here][0], f"wget -q -O - {url}/big | md5sum; wget -q -O - {url}/sum")
        sums = got.split("\n")
        assert sums[0] == sums[1] != ""


def test_over_a_bad_line(web: Hosts) -> None:
    placed = by_node(web)
    with web["c"].slow_link(delay_ms=3, reorder=5, loss=0.1):
        url = f"http://{placed['c'][0]['status']['podIP']}:8080"
        sums = shell(web, placed["b"][0], f"wget -q -O - {url}/big | md5sum; wget -q -O - {url}/sum").split("\n")
    assert sums[0] == sums[1] != ""


def test_logs_and_exec_of_every_host(web: Hosts) -> None:
    for node, found in by_node(web).items():
        assert shell(web, found[0], "echo $((6*7))") == "42\n", node
        web.kubectl("logs", "-n", NAMESPACE, name_of(found[0]))


LOCAL = """
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: late}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: on-b}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  storageClassName: late
  local: {path: PATH}
  nodeAffinity:
    required:
      nodeSelectorTerms:
      - matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [b]}]
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec:
  accessModes: [ReadWriteOnce]
  storageClassName: late
  resources: {requests: {storage: 1Gi}}
---
apiVersion: v1
kind: Pod
metadata: {name: keeper}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: docker.io/library/busybox:1.36
    command: [sh, -c, "hostname >> /data/names; sleep 1000"]
    volumeMounts: [{name: data, mountPath: /data}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
"""


def test_a_pod_goes_where_its_local_volume_is(web: Hosts) -> None:
    path = web["b"].home / "volume"
    path.mkdir()
    web.kubectl("apply", "-n", NAMESPACE, "-f", "-", input=LOCAL.replace("PATH", str(path)))
    try:
        web.kubectl("wait", "--for=condition=Ready", "pod/keeper", "-n", NAMESPACE, "--timeout=30s")
        assert web.get("pod", "keeper", "-n", NAMESPACE)["spec"]["nodeName"] == "b"
        assert (path / "names").read_text() == "keeper\n"
    finally:
        web.kubectl("delete", "-n", NAMESPACE, "--wait=false", "pod/keeper", "pvc/data", check=False)
        web.kubectl("delete", "--wait=false", "pv/on-b", "storageclass/late", check=False)


def test_a_new_address(web: Hosts) -> None:
    """DHCP gives host c another address: Ready again, pods reachable again, no restart of any pod."""
    before = containers(web)
    web["c"].move_to("192.0.2.113")

    def moved() -> bool:
        node = web.get("node", "c")
        return node["status"]["addresses"][0]["address"] == "192.0.2.113" and web.readiness()["c"] == "True"

    try:
        eventually(moved, 20, "node c at its new address")
        eventually(lambda: everyone_reaches_everyone(web) or True, 20, "pods reach each other")
        assert shell(web, by_node(web)["c"][0], "echo hello") == "hello\n"
        assert containers(web) == before
    finally:
        web["c"].move_to("192.0.2.13")
        eventually(lambda: web.get("node", "c")["status"]["addresses"][0]["address"] == "192.0.2.13", 20)
    eventually(lambda: everyone_reaches_everyone(web) or True, 20, "pods reach each other")


def test_server_away(web: Hosts) -> None:
    """kill -9 of server (and its agent) for 30 s: traffic, DNS and restarts of containers go on; then it catches up."""
    placed = by_node(web)
    one, other = placed["b"][0], placed["c"][0]
    web["a"].kill()
    try:
        # Asked past the API: there is none.
        began = time.monotonic()
        asking = (
            f"wget -q -O - http://{other['status']['podIP']}:8080/; nslookup web.{NAMESPACE}.svc.cluster.local >&2 && echo named"
        )
        answer = inside(one, asking)
        assert answer.split() == [name_of(other), "named"]
        os.kill(process_of(one), signal.SIGKILL)
        eventually(lambda: inside(one, "cat /www/index.html 2>/dev/null").split() == [name_of(one)], 30, "restarted container")
        time.sleep(max(0.0, 30 - (time.monotonic() - began)))
    finally:
        web["a"].start()
        web.wait_ready()
    eventually(lambda: containers(web)[name_of(one)][1] == 1, 30, "the restart is told")
    assert len(pods(web)) == 6
    everyone_reaches_everyone(web)


def inside(pod: dict, script: str) -> str:
    """Run in the pod's container without the API: in its namespaces, by the pid of its first process."""
    return run("nsenter", f"--target={process_of(pod)}", "--all", "sh", "-c", script, check=False).stdout


def process_of(pod: dict) -> int:
    uid = pod["metadata"]["uid"]
    for pid, words in processes():
        if words.startswith(("httpd ", "sh -c mkdir")) and uid in Path(f"/proc/{pid}/cgroup").read_text():
            return pid
    raise AssertionError(f"no process of pod {name_of(pod)}")


def test_a_cut_host(web: Hosts) -> None:
    """Host b is cut off for 60 s: NotReady, endpoints leave, pods are rescheduled, and nothing runs twice afterwards."""
    lost = {pod["status"]["podIP"] for pod in by_node(web)["b"]}
    web["b"].cut()
    try:
        began = time.monotonic()
        eventually(lambda: web.readiness()["b"] == "Unknown", 60, "b NotReady")
        eventually(lambda: not lost & ready_addresses(web), 5, "endpoints of b gone")
        eventually(lambda: six_beside(web, "b"), 40, "rescheduled")
        time.sleep(max(0.0, 60 - (time.monotonic() - began)))
    finally:
        web["b"].mend()
    web.wait_ready()
    eventually(lambda: len(pods(web, running=False)) == 6, 60, "what was replaced is gone")
    assert not [pod for pod in pods(web) if pod["spec"]["nodeName"] == "b"]
    eventually(lambda: not lost & served_on(web, "b"), 30, "no container of the old pods on b")


def six_beside(hosts: Hosts, node: str) -> bool:
    there = [pod for pod in pods(hosts) if pod["spec"]["nodeName"] != node]
    assert len(there) == 6, hosts.kubectl("get", "pods", "-n", NAMESPACE, "-o", "wide").stdout
    return True


def ready_addresses(hosts: Hosts) -> set[str]:
    slices = hosts.get("endpointslices", "-n", NAMESPACE, "-l", "kubernetes.io/service-name=web")["items"]
    return {
        address
        for piece in slices
        for endpoint in piece["endpoints"] or ()
        if endpoint["conditions"]["ready"]
        for address in endpoint["addresses"]
    }


def served_on(hosts: Hosts, node: str) -> set[str]:
    """Addresses of pods with a link on that host."""
    records = (hosts[node].data / "agent" / "network" / "addresses").glob("*.json")
    return {json.loads(path.read_text())["address"] for path in records}


def test_drain_and_delete(web: Hosts) -> None:
    web.kubectl("drain", "b", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=60s")
    assert not by_node(web)["b"]
    web.kubectl("uncordon", "b")
    web.kubectl("delete", "node", "c")
    # Its agent does not come back by itself.
    time.sleep(5)
    assert set(web.readiness()) == {"a", "b"}
    web.kubectl("rollout", "status", "deploy/web", "-n", NAMESPACE, "--timeout=60s")
    web["c"].stop()
    web["c"].join(web.url, web.token)
    web.wait_ready()
