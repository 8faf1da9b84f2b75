"""The tour of the README: Deployments, Services by name, rollouts, logs, exec, port-forward, as kubectl users do them."""

from __future__ import annotations

import re
import subprocess
import time

import pytest

from .conftest import Cluster, eventually, run

BUSYBOX = "docker.io/library/busybox:1.36"


@pytest.fixture
def web(cluster: Cluster, namespace: str) -> str:
    """A Deployment `web` of three httpds behind a Service."""
    cluster.kubectl(
        "create", "deployment", "web", f"--image={BUSYBOX}", "--replicas=3", "--", "httpd", "-f", "-p", "8080", "-h", "/etc"
    )
    cluster.kubectl("rollout", "status", "deploy/web", "--timeout=60s")
    cluster.kubectl("expose", "deploy/web", "--port=80", "--target-port=8080")
    return namespace


def test_nodes_are_ready_with_real_facts(cluster: Cluster) -> None:
    wide = cluster.kubectl("get", "nodes", "-o", "wide").stdout
    assert re.search(r"node-1\s+Ready\s+control-plane\s", wide), wide
    assert "containerd://" in wide
    assert re.search(r"v1\.37\.\d+\+k1s1", wide)
    node = cluster.get("node", "node-1")
    assert int(node["status"]["capacity"]["pods"]) == 110
    assert node["status"]["capacity"]["memory"].endswith("Ki")
    assert node["spec"]["podCIDR"] == "10.42.0.0/24"


def test_service_answers_by_name_from_a_pod(cluster: Cluster, web: str) -> None:
    result = cluster.kubectl(
        "run",
        "-i",
        "--rm",
        "probe",
        f"--image={BUSYBOX}",
        "--restart=Never",
        "--",
        "wget",
        "-qO-",
        "http://web/hostname",
    )
    names = {pod["metadata"]["name"] for pod in cluster.get("pods", "-l", "app=web")["items"]}
    assert any(name in result.stdout for name in names), result.stdout
    assert cluster.kubectl("get", "pod", "probe", check=False).returncode != 0


def test_rollout_undo_and_history(cluster: Cluster, web: str) -> None:
    cluster.kubectl("set", "env", "deploy/web", "A=1")
    cluster.kubectl("rollout", "status", "deploy/web", "--timeout=60s")
    assert cluster.get("deploy", "web")["spec"]["template"]["spec"]["containers"][0]["env"] == [{"name": "A", "value": "1"}]
    cluster.kubectl("rollout", "undo", "deploy/web")
    cluster.kubectl("rollout", "status", "deploy/web", "--timeout=60s")
    assert "env" not in cluster.get("deploy", "web")["spec"]["template"]["spec"]["containers"][0]
    history = cluster.kubectl("rollout", "history", "deploy/web").stdout
    assert re.findall(r"^(\d+)\s", history, re.M) == ["2", "3"]


def test_scale_and_watch(cluster: Cluster, web: str) -> None:
    watcher = subprocess.Popen(
        cluster.inside("timeout", "60", str(cluster_kubectl()), "get", "pods", "-w", "-o", "name"),
        stdout=subprocess.PIPE, text=True, env=cluster.env,
    )  # fmt: skip
    try:
        cluster.kubectl("scale", "deploy/web", "--replicas=10")
        cluster.kubectl("rollout", "status", "deploy/web", "--timeout=90s")
        assert cluster.get("deploy", "web")["status"]["readyReplicas"] == 10
    finally:
        watcher.terminate()
    seen = set((watcher.communicate()[0] or "").split())
    assert len(seen) == 10


def cluster_kubectl() -> str:
    from .conftest import TOOLS

    return str(TOOLS / "bin" / "kubectl")


def test_logs_follow_tail_and_previous(cluster: Cluster, namespace: str) -> None:
    script = "for i in 1 2 3; do echo line $i; done; sleep 2; echo after; sleep 1; exit 3"
    cluster.kubectl("run", "talker", f"--image={BUSYBOX}", "--", "sh", "-c", script)
    cluster.kubectl("wait", "--for=condition=Ready", "pod/talker", "--timeout=30s")
    assert cluster.kubectl("logs", "talker", "--tail=1").stdout == "line 3\n"
    followed = cluster.kubectl("logs", "-f", "talker").stdout
    assert followed == "line 1\nline 2\nline 3\nafter\n"
    eventually(lambda: cluster.get("pod", "talker")["status"]["containerStatuses"][0]["restartCount"] >= 1, 30)
    previous = cluster.kubectl("logs", "--previous", "--timestamps", "talker").stdout.splitlines()
    assert len(previous) == 4 and re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z line 1$", previous[0])


def test_exec_with_stdin_returns(cluster: Cluster, web: str) -> None:
    began = time.monotonic()
    assert cluster.kubectl("exec", "-i", "deploy/web", "--", "cat", input="hello\n").stdout == "hello\n"
    assert time.monotonic() - began < 20
    failed = cluster.kubectl("exec", "deploy/web", "--", "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
    assert (failed.returncode, failed.stdout) == (7, "out\n")
    assert "err\n" in failed.stderr
    tty = run(
        "script",
        "-qec",
        " ".join(cluster.inside(cluster_kubectl(), "exec", "-it", "deploy/web", "--", "tty")),
        "/dev/null",
        env=cluster.env,
    )
    assert "/dev/pts/0" in tty.stdout


def test_big_stdin_passes_whole(cluster: Cluster, web: str) -> None:
    data = "0123456789abcdef" * 200_000
    assert cluster.kubectl("exec", "-i", "deploy/web", "--", "sh", "-c", "cat | wc -c", input=data).stdout.strip() == str(
        len(data)
    )


def test_port_forward(cluster: Cluster, web: str) -> None:
    forward = subprocess.Popen(
        cluster.inside(cluster_kubectl(), "port-forward", "deploy/web", "18080:8080"),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=cluster.env,
    )  # fmt: skip
    try:
        assert forward.stdout is not None
        assert "Forwarding from" in forward.stdout.readline()
        for _ in range(3):
            got = run(*cluster.inside("/bin/busybox", "wget", "-qO-", "http://127.0.0.1:18080/hostname"))
            assert got.stdout.startswith("web-")
    finally:
        forward.terminate()
        forward.wait(10)


def test_attach_and_interactive_run(cluster: Cluster, namespace: str) -> None:
    result = cluster.kubectl(
        "run", "-i", "--rm", "echoer", f"--image={BUSYBOX}", "--restart=Never", "--", "sh", "-c", "cat; echo bye", input="hi\n"
    )
    assert "hi\nbye" in result.stdout


def test_apply_diff_and_explain(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("apply", "-f", "examples/guestbook.yaml")
    assert cluster.kubectl("diff", "-f", "examples/guestbook.yaml").stdout == ""
    applied = cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "examples/guestbook.yaml").stdout
    assert applied.count("serverside-applied") == 3
    cluster.kubectl("rollout", "status", "deploy/guestbook", "--timeout=60s")
    # The server keeps kubectl's annotation in step, in words of its own; kubectl then writes its own once.
    spec = cluster.get("deploy", "guestbook")["spec"]
    cluster.kubectl("apply", "-f", "examples/guestbook.yaml")
    assert cluster.kubectl("apply", "-f", "examples/guestbook.yaml").stdout.count("unchanged") == 3
    assert cluster.get("deploy", "guestbook")["spec"] == spec
    explained = cluster.kubectl("explain", "deploy.spec.strategy").stdout
    assert "rollingUpdate" in explained and "FIELDS" in explained


def test_configmap_volume_is_updated_live(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("create", "configmap", "c", "--from-literal=a=1")
    manifest = f"""
apiVersion: v1
kind: Pod
metadata: {{name: reader}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: {BUSYBOX}
    command: [sleep, "3600"]
    volumeMounts: [{{name: c, mountPath: /c}}]
  volumes: [{{name: c, configMap: {{name: c}}}}]
"""
    cluster.kubectl("apply", "-f", "-", input=manifest)
    cluster.kubectl("wait", "--for=condition=Ready", "pod/reader", "--timeout=30s")
    assert cluster.kubectl("exec", "reader", "--", "cat", "/c/a").stdout == "1"
    cluster.kubectl("patch", "configmap", "c", "--type=merge", "-p", '{"data":{"a":"2"}}')
    eventually(lambda: cluster.kubectl("exec", "reader", "--", "cat", "/c/a").stdout == "2", 10)


def test_deleted_pods_come_back_and_a_deleted_deployment_takes_all_along(cluster: Cluster, web: str) -> None:
    before = {p["metadata"]["uid"] for p in cluster.get("pods", "-l", "app=web")["items"]}
    cluster.kubectl("delete", "pod", "-l", "app=web", "--wait=false", "--grace-period=1")

    def replaced() -> bool:
        pods = cluster.get("pods", "-l", "app=web")["items"]
        ready = [
            p for p in pods if any(c["type"] == "Ready" and c["status"] == "True" for c in p["status"].get("conditions", []))
        ]
        return len(ready) == 3 and not before & {p["metadata"]["uid"] for p in pods}

    eventually(replaced, 60)
    cluster.kubectl("delete", "deploy", "web")
    eventually(lambda: not cluster.get("rs,pods", "-l", "app=web")["items"], 60)


def test_node_port_answers_on_the_node(cluster: Cluster, web: str) -> None:
    cluster.kubectl("expose", "deploy/web", "--name=np", "--type=NodePort", "--port=80", "--target-port=8080")
    port = cluster.get("svc", "np")["spec"]["ports"][0]["nodePort"]
    assert 30000 <= port <= 32767
    eventually(
        lambda: run(*cluster.inside("/bin/busybox", "wget", "-qO-", f"http://192.0.2.10:{port}/hostname")).stdout.startswith(
            "web-"
        ),
        10,
    )


def test_helm_installs_upgrades_and_rolls_back(cluster: Cluster, namespace: str) -> None:
    cluster.helm("install", "greeter", "examples/chart", "-n", namespace, "--wait", "--timeout", "60s")
    cluster.helm(
        "upgrade", "greeter", "examples/chart", "-n", namespace, "--set", "greeting=bonjour", "--wait", "--timeout", "60s"
    )
    assert cluster.get("configmap", "greeter-hello")["data"]["greeting"] == "bonjour"
    cluster.helm("rollback", "greeter", "1", "-n", namespace, "--wait", "--timeout", "60s")
    assert cluster.get("configmap", "greeter-hello")["data"]["greeting"] == "hello"
    cluster.helm("uninstall", "greeter", "-n", namespace, "--wait")
    eventually(lambda: not cluster.get("deploy,configmap", "-l", "app.kubernetes.io/name=hello")["items"], 30)


def test_dns_of_the_cluster(cluster: Cluster, web: str) -> None:
    script = "nslookup web; nslookup kubernetes.default.svc.cluster.local; cat /etc/resolv.conf"
    out = cluster.kubectl("run", "-i", "--rm", "dns", f"--image={BUSYBOX}", "--restart=Never", "--", "sh", "-c", script).stdout
    assert cluster.get("svc", "web")["spec"]["clusterIP"] in out
    assert "10.43.0.1" in out
    assert f"search {web}.svc.cluster.local svc.cluster.local cluster.local" in out


def test_the_api_answers_from_a_pod_with_its_own_token(cluster: Cluster, namespace: str) -> None:
    script = (
        "t=$(cat /var/run/secrets/kubernetes.io/serviceaccount/token); "
        'wget -qO- --no-check-certificate --header "Authorization: Bearer $t" https://kubernetes.default.svc/api'
    )
    out = cluster.kubectl(
        "run", "-i", "--rm", "caller", f"--image={BUSYBOX}", "--restart=Never", "--", "sh", "-c", script, check=False
    )
    assert "APIVersions" in out.stdout or "TLS" in out.stderr + out.stdout, out


def test_socket_of_the_service_refuses_without_endpoints(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("create", "service", "clusterip", "empty", "--tcp=80:80")
    address = cluster.get("svc", "empty")["spec"]["clusterIP"]

    def refused() -> bool:
        result = run(*cluster.inside("/bin/busybox", "wget", "-qO-", f"http://{address}/"), check=False)
        return "refused" in result.stderr.lower()

    eventually(refused, 10)
