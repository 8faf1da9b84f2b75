"""What the conformance suite asks of single pods: hooks, deletion, exec and logs over WebSocket, patches, tokens, classes."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator

import pytest

from .conftest import Cluster, eventually, run
from .small_pods import Object, condition, container, create, get_pod, pod, pods, ready, shell, state

NAMESPACE = "pod-conformance"
STAY = "trap 'exit 0' TERM; while true; do sleep 0.2; done"
# Logs what it is asked for.
CATCHER = "httpd -f -vv -p 8080 -h /etc"

WEBSOCKET = """
import asyncio, ssl, sys, aiohttp
async def main(url, protocol, cert, key):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(cert, key)
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(url, ssl=context, protocols=[protocol] if protocol else []) as ws:
            async for message in ws:
                print(repr(message.data))
asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), 20))
"""


def hooked(name: str, hook: str, handler: Object, **spec: object) -> Object:
    return pod(name, STAY, main={"lifecycle": {hook: handler}}, terminationGracePeriodSeconds=15, **spec)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def table(cluster: Cluster) -> Iterator[str]:
    cluster.kubectl("create", "namespace", NAMESPACE)
    eventually(lambda: cluster.get("sa", "default", "-n", NAMESPACE), 10)
    create(
        cluster, NAMESPACE, pod("catcher", CATCHER),
        pod("one", STAY, main={"resources": {
                "requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}}},
            meta={"labels": {"name": "foo"}}, terminationGracePeriodSeconds=30),
        pod("speaker", "echo container is alive; sleep 3600"),
    )  # fmt: skip
    ready(cluster, NAMESPACE, "catcher", "one", "speaker")
    yield NAMESPACE
    cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def test_hooks(cluster: Cluster, table: str) -> None:
    host = get_pod(cluster, table, "catcher")["status"]["podIP"]

    def get(path: str) -> Object:
        return {"httpGet": {"host": host, "port": 8080, "path": f"/{path}"}}

    def command(path: str) -> Object:
        return {"exec": {"command": ["sh", "-c", f"wget -qO- http://{host}:8080/{path} || true"]}}

    create(
        cluster, table, hooked("post-exec", "postStart", command("post-exec")),
        hooked("post-http", "postStart", get("post-http")),
        hooked("pre-exec", "preStop", command("pre-exec")), hooked("pre-http", "preStop", get("pre-http")),
        hooked("pre-sleep", "preStop", {"sleep": {"seconds": 2}}),
        hooked("post-fails", "postStart", {"exec": {"command": ["false"]}}),
    )  # fmt: skip
    ready(cluster, table, "post-exec", "post-http", "pre-exec", "pre-http", "pre-sleep")
    asked = cluster.kubectl("logs", "catcher", "-n", table).stdout
    assert "/post-exec" in asked and "post-http" in asked and "pre-" not in asked, asked
    begun = time.monotonic()
    cluster.kubectl("delete", "pod", "pre-exec", "pre-http", "pre-sleep", "-n", table)
    took = time.monotonic() - begun
    assert 2 <= took < 10, f"a pod that ends on SIGTERM, after its hooks: {took} s"
    asked = cluster.kubectl("logs", "catcher", "-n", table).stdout
    assert "/pre-exec" in asked and "pre-http" in asked, asked

    def post_failed() -> bool:
        events = [e for e in cluster.get("events", "-n", table)["items"] if e["involvedObject"]["name"] == "post-fails"]
        return "FailedPostStartHook" in {e["reason"] for e in events}

    eventually(post_failed, 10)
    cluster.kubectl("delete", "pod", "post-exec", "post-http", "post-fails", "-n", table, "--grace-period=1", "--wait=false")


def websocket(cluster: Cluster, path: str, protocol: str = "") -> str:
    config = json.loads(cluster.kubectl("config", "view", "--raw", "-o", "json").stdout)
    import base64

    files = []
    for field in ("client-certificate-data", "client-key-data"):
        files.append(cluster.home / field)
        files[-1].write_bytes(base64.b64decode(config["users"][0]["user"][field]))
    url = config["clusters"][0]["cluster"]["server"] + path
    return run(*cluster.inside(sys.executable, "-c", WEBSOCKET, url, protocol, *files)).stdout


def test_exec_and_logs_over_websocket(cluster: Cluster, table: str) -> None:
    base = f"/api/v1/namespaces/{table}/pods/speaker"
    query = "container=main&stdout=1&stderr=1&command=echo&command=remote+execution+test"
    said = websocket(cluster, f"{base}/exec?{query}", "v4.channel.k8s.io")
    assert "\\x01remote execution test\\n" in said.replace("b'\\x01'", ""), said
    assert '"status":"Success"' in said.replace(" ", ""), said
    assert "container is alive\\n" in websocket(cluster, f"{base}/log?container=main")
    assert "container is alive\\n" in websocket(cluster, f"{base}/log?container=main", "binary.k8s.io")


def test_labels_status_and_generation(cluster: Cluster, table: str) -> None:
    cluster.kubectl("label", "pod", "one", "-n", table, "time=now")
    assert [p["metadata"]["name"] for p in cluster.get("pods", "-n", table, "-l", "time=now")["items"]] == ["one"]
    made = get_pod(cluster, table, "one")
    assert made["metadata"]["generation"] == 1 and made["status"]["observedGeneration"] == 1
    cluster.kubectl("patch", "pod", "one", "-n", table, "--subresource=status", "--type=merge", "-p",
                    json.dumps({"status": {"message": "Patched by a test", "reason": "E2E"}}))  # fmt: skip
    patch = [{"op": "add", "path": "/spec/tolerations/-", "value": {"key": "foo", "operator": "Exists"}}]
    cluster.kubectl("patch", "pod", "one", "-n", table, "--type=json", "-p", json.dumps(patch))

    def observed() -> bool:
        found = get_pod(cluster, table, "one")
        assert found["metadata"]["generation"] == 2
        return bool(found["status"]["observedGeneration"] == 2)

    eventually(observed, 10)


def test_resize_in_place(cluster: Cluster, table: str) -> None:
    resources = {"requests": {"cpu": "150m", "memory": "32Mi"}, "limits": {"cpu": "300m", "memory": "64Mi"}}
    patch = {"spec": {"containers": [{"name": "main", "resources": resources}]}}
    cluster.kubectl("patch", "pod", "one", "-n", table, "--subresource=resize", "-p", json.dumps(patch))

    def resized() -> bool:
        found = get_pod(cluster, table, "one")
        assert state(found)["resources"] == resources and state(found)["allocatedResources"]["cpu"] == "150m", state(found)
        assert condition(found, "PodResizeInProgress").get("status") != "True"
        return bool(found["metadata"]["generation"] == found["status"]["observedGeneration"])

    eventually(resized, 20)
    quota = shell(cluster, table, "one", "cat /sys/fs/cgroup/cpu.max 2>/dev/null || cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us")
    assert quota.split()[0] == "30000"
    assert state(get_pod(cluster, table, "one"))["restartCount"] == 0


def test_ephemeral_containers(cluster: Cluster, table: str) -> None:
    made = {"spec": {"ephemeralContainers": [{**container("echo polo; sleep 600", name="debugger"), "stdin": True, "tty": True}]}}
    cluster.kubectl("patch", "pod", "one", "-n", table, "--subresource=ephemeralcontainers", "-p", json.dumps(made))
    eventually(lambda: "running" in state(get_pod(cluster, table, "one"), 0, "ephemeralContainerStatuses").get("state", {}), 15)
    eventually(lambda: "polo" in cluster.kubectl("logs", "one", "-c", "debugger", "-n", table).stdout, 10)


def test_runtime_classes(cluster: Cluster, table: str) -> None:
    kind = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass"}
    create(
        cluster, table, {**kind, "metadata": {"name": "plain"}, "handler": "runc", "overhead": {"podFixed": {"cpu": "5m"}}},
        {**kind, "metadata": {"name": "odd"}, "handler": "none-such"},
    )  # fmt: skip
    try:
        absent = pod("absent-class", "true", runtimeClassName="absent")
        refused = cluster.kubectl("create", "-n", table, "-f", "-", input=json.dumps(absent), check=False)
        assert 'pod rejected: RuntimeClass "absent" not found' in refused.stderr, refused
        create(
            cluster, table, pod("plain-class", "true", runtimeClassName="plain"), pod("odd-class", "true", runtimeClassName="odd")
        )
        eventually(lambda: get_pod(cluster, table, "plain-class")["status"]["phase"] == "Succeeded", 15)
        assert get_pod(cluster, table, "plain-class")["spec"]["overhead"] == {"cpu": "5m"}

        def failed() -> bool:
            events = [e for e in cluster.get("events", "-n", table)["items"] if e["involvedObject"]["name"] == "odd-class"]
            return any(e["reason"] == "FailedCreatePodSandBox" and "none-such" in e["message"] for e in events)

        eventually(failed, 10)
    finally:
        cluster.kubectl("delete", "runtimeclass", "plain", "odd")


def test_collections_of_pods_are_deleted_quickly(cluster: Cluster, table: str) -> None:
    create(
        cluster,
        table,
        *[pod(f"many-{n}", STAY, meta={"labels": {"type": "many"}}, terminationGracePeriodSeconds=5) for n in range(5)],
    )
    names = [f"many-{n}" for n in range(5)]
    ready(cluster, table, *names)
    begun = time.monotonic()
    cluster.kubectl("delete", "pods", "-l", "type=many", "-n", table)
    assert time.monotonic() - begun < 8
    assert not [n for n in pods(cluster, table) if n.startswith("many-")]


def test_a_pod_that_ignores_sigterm_is_killed_after_its_grace(cluster: Cluster, table: str) -> None:
    create(cluster, table, pod("deaf", "sleep 3600", terminationGracePeriodSeconds=600))
    ready(cluster, table, "deaf")
    begun = time.monotonic()
    cluster.kubectl("delete", "pod", "deaf", "-n", table, "--grace-period=2")
    assert 1.5 < time.monotonic() - begun < 8


def test_service_account_tokens(cluster: Cluster, table: str) -> None:
    import base64

    token = cluster.kubectl("create", "token", "default", "-n", table, "--audience=aud", "--duration=10m").stdout.strip()
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert claims["aud"] == ["aud"] and claims["sub"] == f"system:serviceaccount:{table}:default" and claims["exp"] > time.time()
    config = json.loads(cluster.kubectl("get", "--raw", "/.well-known/openid-configuration").stdout)
    assert config["issuer"] == claims["iss"] and config["jwks_uri"].endswith("/openid/v1/jwks")
    assert json.loads(cluster.kubectl("get", "--raw", "/openid/v1/jwks").stdout)["keys"][0]["kid"]
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token, "audiences": ["aud"]}}
    answer = json.loads(cluster.kubectl("create", "-o", "json", "-f", "-", input=json.dumps(review)).stdout)
    assert answer["status"]["authenticated"] and answer["status"]["user"]["username"] == claims["sub"]
    mounted = shell(cluster, table, "one", "cat /var/run/secrets/kubernetes.io/serviceaccount/token").strip()
    bound = json.loads(base64.urlsafe_b64decode(mounted.split(".")[1] + "=="))["kubernetes.io"]
    assert bound["pod"]["name"] == "one" and bound["node"]["name"] == "node-1"


def test_the_root_certificate_is_published_again(cluster: Cluster, table: str) -> None:
    before = cluster.get("configmap", "kube-root-ca.crt", "-n", table)["data"]
    cluster.kubectl("delete", "configmap", "kube-root-ca.crt", "-n", table)
    eventually(lambda: cluster.get("configmap", "kube-root-ca.crt", "-n", table)["data"] == before, 10)
    cluster.kubectl("patch", "configmap", "kube-root-ca.crt", "-n", table, "--type=json", "-p",
                    '[{"op": "replace", "path": "/data", "value": {"ca.crt": ""}}]')  # fmt: skip
    eventually(lambda: cluster.get("configmap", "kube-root-ca.crt", "-n", table)["data"] == before, 10)
    cluster.kubectl("delete", "serviceaccount", "default", "-n", table)
    eventually(lambda: cluster.get("serviceaccount", "default", "-n", table), 10)


def test_the_node_renews_its_lease(cluster: Cluster) -> None:
    lease = cluster.get("lease", "node-1", "-n", "kube-node-lease")
    assert lease["spec"]["holderIdentity"] == "node-1" and lease["spec"]["leaseDurationSeconds"] == 40
    assert lease["metadata"]["ownerReferences"][0]["kind"] == "Node"

    def renewed() -> bool:
        return bool(cluster.get("lease", "node-1", "-n", "kube-node-lease")["spec"]["renewTime"] > lease["spec"]["renewTime"])

    eventually(renewed, 20)


def test_pods_that_cannot_be_refuse_in_words(cluster: Cluster, table: str) -> None:
    cases = [
        (
            pod("bad", "true", securityContext={"sysctls": [{"name": "foo-", "value": "bar"}]}),
            r"sysctls\[0\].name: Invalid value",
        ),
        (pod("bad", "true", activeDeadlineSeconds=0), "activeDeadlineSeconds"),
        (pod("bad_name", "true"), "metadata.name: Invalid value"),
    ]
    for made, pattern in cases:
        refused = cluster.kubectl("create", "-n", table, "-f", "-", input=json.dumps(made), check=False)
        assert refused.returncode != 0 and re.search(pattern, refused.stderr), refused
