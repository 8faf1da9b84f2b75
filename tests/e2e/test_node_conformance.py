"""What the conformance suite asks of a node: environment, identity, hosts files, exits, init containers, probes, hooks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from .conftest import Cluster, eventually
from .small_pods import Object, condition, container, create, finished, logs, pod, pods, state

NAMESPACE = "node-conformance"


@dataclass
class Case:
    """A pod that ends, and what it must have said and become."""

    name: str
    script: str | None
    said: list[str] = field(default_factory=list)
    phase: str = "Succeeded"
    main: Object = field(default_factory=dict)
    spec: Object = field(default_factory=dict)
    meta: Object = field(default_factory=dict)
    unsaid: list[str] = field(default_factory=list)

    def pod(self) -> Object:
        meta = {**self.meta, "labels": {**self.meta.get("labels", {}), "table": "output"}}
        return pod(self.name, self.script, main=self.main, meta=meta, **self.spec)


def env(**values: str) -> list[Object]:
    return [{"name": name, "value": value} for name, value in values.items()]


def field_env(**paths: str) -> list[Object]:
    return [{"name": n, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": p}}} for n, p in paths.items()]


def resource_env(**resources: str) -> list[Object]:
    return [{"name": n, "valueFrom": {"resourceFieldRef": {"resource": r}}} for n, r in resources.items()]


LIMITS = {"requests": {"cpu": "250m", "memory": "32Mi"}, "limits": {"cpu": "1250m", "memory": "64Mi"}}
OUTPUT = [
    Case("args-only", None, ["^from args$"], main={"args": ["echo", "from args"]}),
    Case("command-and-args", None, ["^a b$"], main={"command": ["echo"], "args": ["a", "b"]}),
    Case("image-defaults", None, main={}),
    Case(
        "expansion", None, [r"^test-value \$\(FOO\) \$\(UNKNOWN\) \$x$"],
        main={"command": ["echo"], "args": ["$(FOO)", "$$(FOO)", "$(UNKNOWN)", "$x"], "env": env(FOO="test-value")},
    ),
    Case("env-composed", "env", ["^FOOBAR=1;;2$"], main={"env": env(FOO="1", BAR="2", FOOBAR="$(FOO);;$(BAR)")}),
    Case(
        "downward-env", "env", [
            "^NAME=downward-env$", f"^SPACE={NAMESPACE}$", r"^IP=10\.42\.0\.\d+$", "^HOST=192.0.2.10$", "^HOSTS=192.0.2.10$",
            r"^UID_=[0-9a-f-]{36}$", "^SA=default$", "^NODE=node-1$", "^L=v1$", "^A=v2$",
        ],
        main={"env": field_env(
            NAME="metadata.name", SPACE="metadata.namespace", IP="status.podIP", HOST="status.hostIP", HOSTS="status.hostIPs",
            UID_="metadata.uid", SA="spec.serviceAccountName", NODE="spec.nodeName", L="metadata.labels['l']",
            A="metadata.annotations['a']",
        )},
        meta={"labels": {"l": "v1"}, "annotations": {"a": "v2"}},
    ),
    Case(
        "resources-env", "env; cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || true",
        ["^CL=2$", "^ML=67108864$", "^CR=1$", "^MR=33554432$", "^67108864$"],
        main={"resources": LIMITS, "env": resource_env(
            CL="limits.cpu", ML="limits.memory", CR="requests.cpu", MR="requests.memory")},
    ),
    Case(
        "allocatable-env", "env", [r"^CL=[1-9]\d*$", r"^ML=\d{9,}$"],
        main={"env": resource_env(CL="limits.cpu", ML="limits.memory")},
    ),
    Case(
        "env-from", "env", ["^p_one=1$", "^two=zwei$", "^KEY=1$", "^SECRET=zwei$"], unsaid=["^NONE="],
        main={
            "envFrom": [
                {"prefix": "p_", "configMapRef": {"name": "settings"}}, {"secretRef": {"name": "hidden"}},
                {"configMapRef": {"name": "absent", "optional": True}},
            ],
            "env": [
                {"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "one"}}},
                {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "hidden", "key": "two"}}},
                {"name": "NONE", "valueFrom": {"secretKeyRef": {"name": "absent", "key": "k", "optional": True}}},
            ],
        },
    ),
    Case(
        "service-env", "env", [
            r"^FOOSERVICE_SERVICE_HOST=10\.43\.", "^FOOSERVICE_SERVICE_PORT=8765$", r"^FOOSERVICE_PORT=tcp://10\.43\..*:8765$",
            "^FOOSERVICE_PORT_8765_TCP_PORT=8765$", "^FOOSERVICE_PORT_8765_TCP_PROTO=tcp$",
            "^FOOSERVICE_PORT_8765_TCP_ADDR=", "^FOOSERVICE_PORT_8765_TCP=tcp://", "^KUBERNETES_SERVICE_HOST=10.43.0.1$",
        ],
    ),
    Case("no-service-env", "env", ["^KUBERNETES_SERVICE_HOST="], unsaid=["FOOSERVICE"], spec={"enableServiceLinks": False}),
    Case(
        "hosts", "cat /etc/hosts", ["^# Kubernetes-managed hosts file.$", r"^123\.45\.67\.89\s+foo\s+bar$", r"\shosts$"],
        spec={"hostAliases": [{"ip": "123.45.67.89", "hostnames": ["foo", "bar"]}]},
    ),
    Case("host-hosts", "cat /etc/hosts", unsaid=["^# Kubernetes-managed hosts file.$"], spec={"hostNetwork": True}),
    Case(
        "own-hosts", "cat /etc/hosts", unsaid=["Kubernetes-managed"],
        main={"volumeMounts": [{"name": "e", "mountPath": "/etc/hosts", "subPath": "hosts"}]},
        spec={"volumes": [{"name": "e", "hostPath": {"path": "/etc", "type": "Directory"}}]},
    ),
    Case("read-only", "echo x > /f && echo written; true", unsaid=["written"],
         main={"securityContext": {"readOnlyRootFilesystem": True}}),
    Case("writable", "echo x > /f && echo written", ["written"], main={"securityContext": {"readOnlyRootFilesystem": False}}),
    Case("user", "id -u; id -g; id -G", ["^1001$", "^2002$", "3003"],
         spec={"securityContext": {"runAsUser": 1001, "runAsGroup": 2002, "supplementalGroups": [3003]}}),
    Case("user-of-container", "id -u", ["^65534$"], main={"securityContext": {"runAsUser": 65534}},
         spec={"securityContext": {"runAsUser": 1001}}),
    Case("unprivileged", "ip link add d0 type bridge || echo refused", ["refused"],
         main={"securityContext": {"privileged": False}}),
    Case("privileged", "ip link add d0 type bridge && echo made", ["made"], main={"securityContext": {"privileged": True}}),
    Case("no-escalation", "grep NoNewPrivs /proc/self/status", [r"NoNewPrivs:\s+1$"],
         main={"securityContext": {"allowPrivilegeEscalation": False, "runAsUser": 1000}}),
    Case("escalation", "grep NoNewPrivs /proc/self/status", [r"NoNewPrivs:\s+0$"],
         main={"securityContext": {"allowPrivilegeEscalation": True, "runAsUser": 1000}}),
    Case("capabilities", "grep CapEff /proc/self/status", [r"CapEff:\s+0000000000001000$"],
         main={"securityContext": {"capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}}}),
    Case("sysctl", "cat /proc/sys/kernel/shm_rmid_forced", ["^1$"],
         spec={"securityContext": {"sysctls": [{"name": "kernel.shm_rmid_forced", "value": "1"}]}}),
    Case("name-of-subdomain", "hostname; hostname -f", ["^h$", f"^h.sub.{NAMESPACE}.svc.cluster.local$"],
         spec={"hostname": "h", "subdomain": "sub"}),
    Case("fqdn", "hostname", [f"^h2.sub.{NAMESPACE}.svc.cluster.local$"],
         spec={"hostname": "h2", "subdomain": "sub", "setHostnameAsFQDN": True}),
    Case("own-resolver", "cat /etc/resolv.conf", ["^nameserver 1.1.1.1$", "^search resolv.conf.local$", "^options ndots:2"],
         spec={"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["resolv.conf.local"],
                                                  "options": [{"name": "ndots", "value": "2"}]}}),
    Case("default-resolver", "cat /etc/resolv.conf", ["^nameserver 192.0.2.53$"], spec={"dnsPolicy": "Default"}),
    Case("shared-pids", "ps", [r"\s/?pause"], spec={"shareProcessNamespace": True}),
    Case("working-dir", "pwd", ["^/tmp$"], main={"workingDir": "/tmp"}),
    Case("exit-3", "exit 3", phase="Failed"),
    Case(
        "init-in-order", "cat /w/order", ["^first$", "^second$"],
        main={"volumeMounts": [{"name": "w", "mountPath": "/w"}]},
        spec={"volumes": [{"name": "w", "emptyDir": {}}], "initContainers": [
            container(f"echo {n} >> /w/order", name=n, volumeMounts=[{"name": "w", "mountPath": "/w"}])
            for n in ("first", "second")
        ]},
    ),
    Case("init-fails", "echo main", phase="Failed",
         spec={"initContainers": [container("exit 1", name="bad"), container("true", name="good")]}),
    Case("too-long", "sleep 600", phase="Failed", spec={"activeDeadlineSeconds": 2}),
    Case("unsafe-sysctl", "true", phase="Failed",
         spec={"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "65536"}]}}),
]  # fmt: skip


def message_case(name: str, script: str, policy: str, expected: str, **main: Any) -> tuple[Object, str]:
    return pod(name, script, main={"terminationMessagePolicy": policy, **main}, meta={"labels": {"table": "message"}}), expected


MESSAGES = [
    message_case("m-file", "echo -n OK > /dev/termination-log", "File", "OK"),
    message_case("m-path", "echo -n DONE > /dev/my-log", "File", "DONE",
                 terminationMessagePath="/dev/my-log", securityContext={"runAsUser": 10001}),
    message_case("m-log", "echo -n LOGGED; exit 1", "FallbackToLogsOnError", "LOGGED"),
    message_case("m-log-file", "echo -n OK > /dev/termination-log; echo no; exit 1", "FallbackToLogsOnError", "OK"),
    message_case("m-log-good", "echo no", "FallbackToLogsOnError", ""),
]  # fmt: skip

COUNT = """
echo hello >> /c/f; n=$(wc -l < /c/f)
[ $n -eq 1 ] && exit 1
[ $n -eq 2 ] && exit 0
sleep 3600
"""
COUNTING: Object = {
    "main": {"volumeMounts": [{"name": "c", "mountPath": "/c"}]},
    "volumes": [{"name": "c", "emptyDir": {"medium": "Memory"}}],
}


def probe(kind: Object, **fields: int) -> Object:
    return {**kind, "periodSeconds": 1, "failureThreshold": 1, **fields}


def lasting() -> list[Object]:
    """Pods that go on, made together with the others so that their back-offs run side by side."""
    always: Object = {"restartPolicy": "Always"}
    touch = {"exec": {"command": ["cat", "/tmp/health"]}}
    web = {"httpGet": {"path": "/index.html", "port": 8080}}
    serve = "echo hi > /tmp/index.html; httpd -p 8080 -h /tmp; sleep 3; rm /tmp/index.html; sleep 600"
    return [
        pod("rpa", COUNT, **COUNTING, **always),
        pod("rpof", COUNT, **COUNTING, restartPolicy="OnFailure"),
        pod("init-retried", "sleep 3600", **always, initContainers=[container("exit 1", name="bad")]),
        pod("always-false", "false", **always),
        pod("alive-exec", "touch /tmp/health; sleep 2; rm /tmp/health; sleep 600", **always,
            main={"livenessProbe": probe(touch, initialDelaySeconds=1)}),
        pod("alive-http", serve, main={"livenessProbe": probe(web, initialDelaySeconds=1)}, **always),
        pod("alive-tcp", "httpd -f -p 8080", **always,
            main={"livenessProbe": probe({"tcpSocket": {"port": 8080}}, initialDelaySeconds=2)}),
        pod("started", "sleep 2; touch /tmp/health; sleep 600", **always, main={
            "startupProbe": probe(touch, failureThreshold=60), "livenessProbe": probe(touch)}),
        pod("never-ready", "sleep 600", **always, main={"readinessProbe": probe({"exec": {"command": ["false"]}})}),
        pod("becomes-ready", "sleep 2; touch /tmp/health; sleep 600", **always, main={"readinessProbe": probe(touch)}),
        pod("sidecar", "sleep 1", initContainers=[container("sleep 600", name="side", restartPolicy="Always")]),
        pod("non-root-refused", "id", main={"securityContext": {"runAsNonRoot": True}}),
        pod("bad-image", "id", main={"image": "invalid.example/none:1"}),
        pod("no-config", "id", main={"envFrom": [{"configMapRef": {"name": "absent"}}]}),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def table(cluster: Cluster) -> Iterator[str]:
    cluster.kubectl("create", "namespace", NAMESPACE)
    create(
        cluster, NAMESPACE,
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"one": "1"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hidden"}, "stringData": {"two": "zwei"}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "fooservice"},
         "spec": {"ports": [{"port": 8765, "targetPort": 8080}], "selector": {"app": "x"}}},
    )  # fmt: skip
    eventually(lambda: cluster.get("sa", "default", "-n", NAMESPACE), 10)
    create(cluster, NAMESPACE, *lasting(), *[c.pod() for c in OUTPUT], *[p for p, _ in MESSAGES])
    yield NAMESPACE
    cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.fixture(scope="module")
def ended(cluster: Cluster, table: str) -> tuple[dict[str, Object], dict[str, str]]:
    names = [c.name for c in OUTPUT] + [p["metadata"]["name"] for p, _ in MESSAGES]
    found = finished(cluster, table, names)
    return found, logs(cluster, table, "table=output")


@pytest.mark.parametrize("case", OUTPUT, ids=lambda c: c.name)
def test_output(case: Case, ended: tuple[dict[str, Object], dict[str, str]]) -> None:
    found, said = ended
    text = said.get(f"{case.name}/main", "")
    assert found[case.name]["status"]["phase"] == case.phase, (found[case.name]["status"], text)
    for pattern in case.said:
        assert re.search(pattern, text, re.M), (pattern, text)
    for pattern in case.unsaid:
        assert not re.search(pattern, text, re.M), (pattern, text)


@pytest.mark.parametrize(("made", "expected"), MESSAGES, ids=lambda v: v["metadata"]["name"] if isinstance(v, dict) else "")
def test_termination_message(made: Object, expected: str, ended: tuple[dict[str, Object], dict[str, str]]) -> None:
    status = state(ended[0][made["metadata"]["name"]])
    assert status["state"]["terminated"].get("message", "") == expected


def test_reasons_of_the_ended(ended: tuple[dict[str, Object], dict[str, str]]) -> None:
    found, _ = ended
    assert found["too-long"]["status"]["reason"] == "DeadlineExceeded"
    assert found["unsafe-sysctl"]["status"]["reason"] == "SysctlForbidden"
    assert state(found["exit-3"])["state"]["terminated"]["exitCode"] == 3
    assert state(found["exit-3"])["state"]["terminated"]["reason"] == "Error"
    failed = found["init-fails"]
    initialized = condition(failed, "Initialized")
    assert (initialized["status"], initialized["reason"]) == ("False", "ContainersNotInitialized")
    assert initialized["message"] == "containers with incomplete status: [bad good]"
    assert state(failed)["state"] == {"waiting": {"reason": "PodInitializing"}}
    assert condition(found["args-only"], "Initialized")["status"] == "True"
    assert condition(found["args-only"], "Initialized")["reason"] == "PodCompleted"
    assert condition(found["args-only"], "Ready")["reason"] == "PodCompleted"
    assert condition(found["exit-3"], "Ready")["reason"] == "PodFailed"


def test_exits_and_restart_policies(cluster: Cluster, table: str) -> None:
    def settled() -> bool:
        found = pods(cluster, table)
        always, on_failure = found["rpa"], found["rpof"]
        assert state(always)["restartCount"] == 2 and state(always)["ready"], state(always)
        assert always["status"]["phase"] == "Running" and condition(always, "Ready")["status"] == "True"
        assert on_failure["status"]["phase"] == "Succeeded" and state(on_failure)["restartCount"] == 1
        assert condition(on_failure, "Ready")["status"] == "False" and not state(on_failure)["ready"]
        return True

    eventually(settled, 60)


def test_probes_restart_and_hold_back(cluster: Cluster, table: str) -> None:
    def settled() -> bool:
        found = pods(cluster, table)
        for name in ("alive-exec", "alive-http"):
            assert state(found[name])["restartCount"] >= 1, (name, state(found[name]))
        for name in ("alive-tcp", "started", "never-ready", "becomes-ready"):
            assert state(found[name])["restartCount"] == 0, (name, state(found[name]))
        for name in ("alive-tcp", "started", "becomes-ready"):
            assert condition(found[name], "Ready")["status"] == "True", name
        never = found["never-ready"]
        assert never["status"]["phase"] == "Running" and condition(never, "Ready")["reason"] == "ContainersNotReady"
        assert condition(never, "ContainersReady")["message"] == "containers with unready status: [main]"
        for name in ("started", "becomes-ready"):
            begun, came = (
                state(found[name])["state"]["running"]["startedAt"],
                condition(found[name], "Ready")["lastTransitionTime"],
            )
            assert begun < came, (name, begun, came)
        return True

    eventually(settled, 60)


def test_what_waits_says_why(cluster: Cluster, table: str) -> None:
    def settled() -> bool:
        found = pods(cluster, table)
        waiting = {name: state(found[name]).get("state", {}).get("waiting", {}).get("reason") for name in found}
        assert waiting["non-root-refused"] == "CreateContainerConfigError", waiting
        assert waiting["no-config"] == "CreateContainerConfigError", waiting
        assert waiting["bad-image"] in ("ErrImagePull", "ImagePullBackOff"), waiting
        assert waiting["init-retried"] == "PodInitializing", waiting
        assert state(found["init-retried"], 0, "initContainerStatuses")["restartCount"] >= 2
        assert found["init-retried"]["status"]["phase"] == "Pending"
        ended = state(found["always-false"]).get("lastState", {}).get("terminated", {})
        assert (ended.get("reason"), ended.get("exitCode")) == ("Error", 1), ended
        assert waiting["always-false"] in ("CrashLoopBackOff", None), waiting
        assert found["sidecar"]["status"]["phase"] == "Succeeded"
        return True

    eventually(settled, 60)
    events = {e["reason"] for e in cluster.get("events", "-n", table)["items"]}
    assert {"Scheduled", "Pulled", "Created", "Started", "Killing", "Unhealthy", "BackOff", "Failed"} <= events, events
