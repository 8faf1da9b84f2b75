"""What the conformance suite asks of volumes: modes, owners, mappings, updates, sub-paths, projections, expansion."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from .conftest import Cluster, eventually
from .small_pods import Object, container, create, finished, logs, pod, pods, ready, shell, state

NAMESPACE = "volume-conformance"
CONFIG: Object = {"configMap": {"name": "files"}}
SECRET: Object = {"secret": {"secretName": "files"}}
USER: Object = {"securityContext": {"runAsUser": 1000, "fsGroup": 1001}}


def projected(*sources: Object, **fields: int) -> Object:
    return {"projected": {"sources": list(sources), **fields}}


def item(path: str, **fields: int) -> Object:
    return {"key": "data-1", "path": path, **fields}


def downward(path: str, resource: str = "", field_path: str = "", **fields: object) -> Object:
    made: Object = {"path": path, **fields}
    if resource:
        made["resourceFieldRef"] = {"containerName": "main", "resource": resource}
    else:
        made["fieldRef"] = {"apiVersion": "v1", "fieldPath": field_path}
    return made


LIST = "cd /v; ls -lL . | awk 'NR>1{print $1, $NF}'; for f in $(find -L . -type f ! -path '*/..*'); do echo $f=$(cat $f); done"


@dataclass
class Case:
    """A pod with one volume at /v that lists it and ends."""

    name: str
    volume: Object
    said: list[str]
    script: str = LIST
    spec: Object = field(default_factory=dict)
    main: Object = field(default_factory=dict)
    mount: Object = field(default_factory=dict)

    def pod(self) -> Object:
        mounts = [{"name": "v", "mountPath": "/v", **self.mount}]
        main = {"volumeMounts": mounts, **self.main}
        meta = {"labels": {"table": "output"}, "annotations": {"builder": "bar"}}
        return pod(self.name, self.script, main=main, meta=meta, volumes=[{"name": "v", **self.volume}], **self.spec)


def with_items(source: Object, *items: Object, **fields: int) -> Object:
    kind, body = next(iter(source.items()))
    return {kind: {**body, "items": list(items), **fields}}


def both(name: str, said: list[str], *items: Object, spec: Object | None = None, **fields: int) -> list[Case]:
    """The same of a ConfigMap, a Secret and a projected volume of each."""
    cases = []
    for kind, source in (("c", CONFIG), ("s", SECRET)):
        body = {**next(iter(source.values()))}
        if items:
            body["items"] = list(items)
        key = next(iter(source))
        cases.append(Case(f"{name}-{kind}", {key: {**body, **fields}}, said, spec=spec or {}))
        inner = {"name": "files", **({"items": list(items)} if items else {})}
        cases.append(
            Case(f"{name}-p{kind}", projected({"configMap" if kind == "c" else "secret": inner}, **fields), said, spec=spec or {})
        )
    return cases  # fmt: skip


DIRECTORY = "stat -c '%A %u %g' /v; mount | grep ' /v '; echo hi > /v/f && cat /v/f; stat -c %A /v/f"
LIMITS: Object = {"resources": {"requests": {"cpu": "250m", "memory": "32Mi"}, "limits": {"cpu": "1250m", "memory": "64Mi"}}}
OUTPUT = [
    *both("plain", ["^-rw-r--r-- data-1$", "^./data-1=value-1$", "^./data-2=value-2$"]),
    *both("mode", ["^-r-------- data-1$"], defaultMode=0o400),
    *both("user", ["^-rw-r--r-- data-1$", "=value-1$"], spec={"securityContext": {"runAsUser": 1000}}),
    *both("group", ["^-r--r----- data-1$", "=value-1$"], defaultMode=0o440, spec=USER),
    *both("mapped", [r"^./path/to/data-2=value-1$"], item("path/to/data-2")),
    *both("item-mode", ["^-r-------- there$", "^./there=value-1$"], item("there", mode=0o400)),
    Case("binary", {"configMap": {"name": "binary"}}, ["^ff 00 fe$", "^text$"],
         "od -An -tx1 /v/bin | sed 's/^ *//'; cat /v/text"),
    Case("absent-optional", {"configMap": {"name": "absent", "optional": True}}, ["^end$"], "ls /v; echo end"),
    Case("absent-secret", {"secret": {"secretName": "absent", "optional": True}}, ["^end$"], "ls /v; echo end"),
    Case("two-mounts", SECRET, ["^value-1$"], "cat /w/data-1", main={"volumeMounts": [
        {"name": "v", "mountPath": "/v"}, {"name": "v", "mountPath": "/w", "readOnly": True}]}),
    Case("read-only-files", CONFIG, ["refused"], "echo x > /v/data-1 || echo refused"),
    Case("downward", {"downwardAPI": {"items": [
            downward("podname", field_path="metadata.name"), downward("labels", field_path="metadata.labels"),
            downward("annotations", field_path="metadata.annotations"), downward("uid", field_path="metadata.uid"),
            downward("cpu_limit", "limits.cpu"), downward("memory_limit", "limits.memory"),
            downward("cpu_request", "requests.cpu", mode=0o400), downward("memory_request", "requests.memory"),
        ], "defaultMode": 0o444}},
        ["^./podname=downward$", '^./labels=table="output"$', '^./annotations=builder="bar"', "^./cpu_limit=2$",
         "^./memory_limit=67108864$", "^./cpu_request=1$", "^./memory_request=33554432$", "^-r-------- cpu_request$",
         "^-r--r--r-- podname$", "^./uid=[0-9a-f-]{36}$"], main=LIMITS),
    Case("downward-allocatable", {"downwardAPI": {"items": [downward("c", "limits.cpu"), downward("m", "limits.memory")]}},
         [r"^./c=\d+$", r"^./m=\d{9,}$"]),
    Case("combined", projected(
            {"configMap": {"name": "files", "items": [item("config")]}}, {"secret": {"name": "files", "items": [item("secret")]}},
            {"downwardAPI": {"items": [downward("podname", field_path="metadata.name")]}},
            {"serviceAccountToken": {"path": "token", "audience": "me", "expirationSeconds": 600}}),
         ["^./config=value-1$", "^./secret=value-1$", "^./podname=combined$", "^./token=ey", "^-rw-r--r-- token$"]),
    Case("token-of-user", projected({"serviceAccountToken": {"path": "token"}}), ["^-rw------- token$", "^./token=ey"],
         spec={"securityContext": {"runAsUser": 1000}}),
    Case("token-of-group", projected({"serviceAccountToken": {"path": "token"}}), ["^-rw-r----- token$", "^./token=ey"],
         spec=USER),
    Case("account", CONFIG, ["^token$", "^ca.crt$", f"^{NAMESPACE}$", "BEGIN CERT"],
         "cd /var/run/secrets/kubernetes.io/serviceaccount; ls; cat namespace; echo; cat ca.crt"),
    Case("no-account", CONFIG, ["^none$"], "ls /var/run/secrets/kubernetes.io || echo none",
         spec={"automountServiceAccountToken": False}),
    Case("no-account-2", CONFIG, ["^none$"], "ls /var/run/secrets/kubernetes.io || echo none",
         spec={"serviceAccountName": "no-mount"}),
    Case("empty", {"emptyDir": {}}, ["^drwxrwxrwx 0 0$", "^hi$", "^-rw-r--r--$"], DIRECTORY),
    Case("empty-memory", {"emptyDir": {"medium": "Memory"}}, ["^drwxrwxrwx 0 0$", "^tmpfs on /v ", "^hi$"], DIRECTORY),
    Case("empty-user", {"emptyDir": {}}, ["^drwxrwxrwx 0 0$", "^hi$"], DIRECTORY, spec={"securityContext": {"runAsUser": 1001}}),
    Case("empty-group", {"emptyDir": {"medium": "Memory"}}, ["^drwxrwsrwx 0 123$", "^hi$"], DIRECTORY,
         spec={"securityContext": {"runAsUser": 1001, "fsGroup": 123}}),
    Case("empty-0666", {"emptyDir": {}}, ["^-rw-rw-rw- 1001$"], "umask 0; echo > /v/f; chmod 666 /v/f; stat -c '%A %u' /v/f",
         spec={"securityContext": {"runAsUser": 1001}}),
    Case("size-limit", {"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}, ["size=1024k", "full"],
         "mount | grep ' /v '; dd if=/dev/zero of=/v/f bs=1M count=2 2>/dev/null || echo full"),
    Case("host-path", {"hostPath": {"path": "/tmp", "type": "Directory"}}, ["^drwxrwxrwt 0 0$"], "stat -c '%A %u %g' /v"),
    Case("shared", {"emptyDir": {}}, ["^from the neighbour$"], "until [ -s /v/f ]; do sleep 0.1; done; cat /v/f",
         spec={"initContainers": [container("echo from the neighbour > /v/f; sleep 600", name="n", restartPolicy="Always",
                                            volumeMounts=[{"name": "v", "mountPath": "/v"}])]}),
    Case("sub-config", CONFIG, ["^value-1$"], "cat /v", mount={"subPath": "data-1"}),
    Case("sub-secret", SECRET, ["^value-1$"], "cat /v", mount={"subPath": "data-1"}),
    Case("sub-projected", projected({"configMap": {"name": "files", "items": [item("path/to/x")]}}), ["^value-1$"], "cat /v/x",
         mount={"subPath": "path/to"}),
    Case("sub-downward", {"downwardAPI": {"items": [downward("podname", field_path="metadata.name")]}}, ["^sub-downward$"],
         "cat /v", mount={"subPath": "podname"}),
    Case("sub-made", {"emptyDir": {}}, ["^d"], "stat -c %A /v", mount={"subPath": "a/b"}),
    Case("sub-read-only", {"emptyDir": {}}, ["refused"], "echo > /v/f || echo refused", mount={"subPath": "a", "readOnly": True}),
    Case("sub-expanded", {"emptyDir": {}}, ["^yes$"], "echo > /v/f; ls /all/sub-expanded/f && echo yes",
         main={"env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
               "volumeMounts": [{"name": "v", "mountPath": "/v", "subPathExpr": "$(POD_NAME)"},
                                {"name": "v", "mountPath": "/all"}]}),
]  # fmt: skip

VOLUME: Object = {"volumes": [{"name": "v", "emptyDir": {}}]}
ANNOTATED = [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['mysubpath']"}}}]


def waiting() -> list[Object]:
    """Pods whose container cannot be made, and why."""

    def one(name: str, mount: Object, **main: object) -> Object:
        return pod(name, "sleep 600", main={"volumeMounts": [{"name": "v", "mountPath": "/v", **mount}], **main}, **VOLUME)

    return [
        one("expr-absolute", {"subPathExpr": "$(A)"}, env=[{"name": "A", "value": "/tmp"}]),
        one("expr-backsteps", {"subPathExpr": "$(A)"}, env=[{"name": "A", "value": "../x"}]),
        one("expr-unknown", {"subPathExpr": "$(NONE)"}),
        one("expr-later", {"subPathExpr": "$(A)/x"}, env=ANNOTATED),
        pod("no-volume", "true", main={"volumeMounts": [{"name": "v", "mountPath": "/v"}]},
            volumes=[{"name": "v", "configMap": {"name": "absent"}}]),
    ]  # fmt: skip


LIVE = [
    {"name": "c", "configMap": {"name": "live"}}, {"name": "s", "secret": {"secretName": "live"}},
    {"name": "later", "configMap": {"name": "later", "optional": True}},
    {"name": "gone", "secret": {"secretName": "gone", "optional": True}},
    {"name": "d", "downwardAPI": {"items": [downward("labels", field_path="metadata.labels"),
                                            downward("annotations", field_path="metadata.annotations")]}},
    {"name": "p", "projected": {"sources": [{"configMap": {"name": "live"}}, {"secret": {"name": "gone", "optional": True}},
                                            {"configMap": {"name": "later", "optional": True}}]}},
]  # fmt: skip


@pytest.fixture(scope="module")
def table(cluster: Cluster) -> Iterator[str]:
    cluster.kubectl("create", "namespace", NAMESPACE)
    data = {"data-1": "value-1", "data-2": "value-2"}
    binary = {"binaryData": {"bin": base64.b64encode(b"\xff\0\xfe").decode()}}
    config: Object = {"apiVersion": "v1", "kind": "ConfigMap"}
    secret: Object = {"apiVersion": "v1", "kind": "Secret"}
    create(
        cluster, NAMESPACE,
        {**config, "metadata": {"name": "files"}, "data": data},
        {**config, "metadata": {"name": "binary"}, "data": {"text": "text"}, **binary},
        {**secret, "metadata": {"name": "files"}, "stringData": data},
        {**config, "metadata": {"name": "live"}, "data": data}, {**secret, "metadata": {"name": "live"}, "stringData": data},
        {**secret, "metadata": {"name": "gone"}, "stringData": {"gone": "1"}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "no-mount"}, "automountServiceAccountToken": False},
    )  # fmt: skip
    eventually(lambda: cluster.get("sa", "default", "-n", NAMESPACE), 10)
    mounts = [{"name": v["name"], "mountPath": f"/{v['name']}"} for v in LIVE]
    live = pod("live", "sleep 3600", main={"volumeMounts": mounts}, meta={"labels": {"l": "1"}}, volumes=LIVE)
    create(cluster, NAMESPACE, live, *waiting(), *[c.pod() for c in OUTPUT])
    yield NAMESPACE
    cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.fixture(scope="module")
def ended(cluster: Cluster, table: str) -> tuple[dict[str, Object], dict[str, str]]:
    found = finished(cluster, table, [c.name for c in OUTPUT], 90)
    return found, logs(cluster, table, "table=output")


@pytest.mark.parametrize("case", OUTPUT, ids=lambda c: c.name)
def test_output(case: Case, ended: tuple[dict[str, Object], dict[str, str]]) -> None:
    found, said = ended
    text = said.get(f"{case.name}/main", "")
    assert found[case.name]["status"]["phase"] == "Succeeded", (text, state(found[case.name]))
    for pattern in case.said:
        assert re.search(pattern, text, re.M), (pattern, text)


def test_live_volumes_follow(cluster: Cluster, table: str) -> None:
    ready(cluster, table, "live")
    assert shell(cluster, table, "live", "cat /c/data-1 /s/data-1 /gone/gone /p/gone; ls /later").split() == ["value-1value-111"]
    config: Object = {"apiVersion": "v1", "kind": "ConfigMap"}
    create(cluster, table, {**config, "metadata": {"name": "later"}, "data": {"later": "here"}})
    cluster.kubectl("delete", "secret", "gone", "-n", table)
    patch = json.dumps({"data": {"data-1": "changed", "data-3": "new", "data-2": None}})
    cluster.kubectl("patch", "configmap", "live", "-n", table, "--type=merge", "-p", patch)
    patch = json.dumps({"stringData": {"data-1": "changed"}})
    cluster.kubectl("patch", "secret", "live", "-n", table, "--type=merge", "-p", patch)
    cluster.kubectl("label", "pod", "live", "-n", table, "l2=2")
    cluster.kubectl("annotate", "pod", "live", "-n", table, "a=3")
    script = "cat /c/data-1 /s/data-1 /later/later /p/later /p/data-1 /c/data-3; ls /gone /c /p; cat /d/labels /d/annotations"

    def followed() -> bool:
        text = shell(cluster, table, "live", script, check=False)
        assert text.startswith("changedchangedherehere" + "changednew"), text
        assert "gone\n" not in text.replace("/gone", "") and "data-2" not in text and 'l2="2"' in text and 'a="3"' in text, text
        return True

    eventually(followed, 20)


def test_what_cannot_be_made_says_why(cluster: Cluster, table: str) -> None:
    def settled() -> bool:
        found = pods(cluster, table)
        for name in ("expr-absolute", "expr-backsteps", "expr-unknown", "expr-later"):
            waits = state(found[name]).get("state", {}).get("waiting", {})
            assert waits.get("reason") == "CreateContainerConfigError", (name, state(found[name]))
        assert state(found["no-volume"])["state"]["waiting"]["reason"] == "ContainerCreating"
        return True

    eventually(settled, 20)
    events = [e for e in cluster.get("events", "-n", table)["items"] if e["involvedObject"]["name"] == "no-volume"]
    assert any(e["reason"] == "FailedMount" and '"absent" not found' in e["message"] for e in events), events
    cluster.kubectl("annotate", "pod", "expr-later", "-n", table, "mysubpath=mypath")
    ready(cluster, table, "expr-later", seconds=60)


def test_the_api_refuses_steps_out_of_a_volume(cluster: Cluster, table: str) -> None:
    for sub in ("../x", "/etc"):
        made = pod("bad", "true", main={"volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": sub}]}, **VOLUME)
        result = cluster.kubectl("create", "-n", table, "-f", "-", input=json.dumps(made), check=False)
        assert result.returncode != 0 and "subPath: Invalid value" in result.stderr, result.stderr


def test_immutable_objects_stay(cluster: Cluster, table: str) -> None:
    for kind, data in (("ConfigMap", "data"), ("Secret", "stringData")):
        create(
            cluster, table, {"apiVersion": "v1", "kind": kind, "metadata": {"name": "fixed"}, data: {"a": "1"}, "immutable": True}
        )
        for patch in ({data: {"a": "2"}}, {"immutable": False}):
            result = cluster.kubectl("patch", kind, "fixed", "-n", table, "--type=merge", "-p", json.dumps(patch), check=False)
            assert result.returncode != 0 and "field is immutable when `immutable` is set" in result.stderr, result
        cluster.kubectl("label", kind, "fixed", "-n", table, "x=y")


def test_deleted_pods_are_gone_quickly(cluster: Cluster, table: str) -> None:
    cluster.kubectl("delete", "pods", "--all", "-n", table, "--wait=false")
    eventually(lambda: not pods(cluster, table), 30, "all pods deleted")
