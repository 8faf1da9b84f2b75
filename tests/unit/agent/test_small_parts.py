"""The agent's small pure parts: names of images, credentials, expansion, crash backoff, resources, patches, admission."""

from __future__ import annotations

import base64
import json
import tomllib
from typing import Any

import pytest

from k1s.agent.containerd_config import ContainerdSettings, render
from k1s.agent.containers.expand import expand, missing
from k1s.agent.containers.gc import superfluous
from k1s.agent.containers.pull_secrets import credentials
from k1s.agent.containers.references import InvalidImageName, default_pull_policy, registry_of, with_default_tag
from k1s.agent.pods.crash_backoff import CrashBackoff, go_duration
from k1s.agent.pods.model import Observed
from k1s.agent.pods.report import build_patch
from k1s.agent.resources import qos
from k1s.agent.resources.admission import refusal
from k1s.cri.runtime import ContainerStatus, Sandbox

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("image", "full"),
    [
        ("busybox", "busybox:latest"),
        ("busybox:1", "busybox:1"),
        ("a/b/c", "a/b/c:latest"),
        ("localhost:5000/x", "localhost:5000/x:latest"),
        (f"x@{DIGEST}", f"x@{DIGEST}"),
        (f"x:1@{DIGEST}", f"x:1@{DIGEST}"),
        ("[fd00::1]:5000/x", "[fd00::1]:5000/x:latest"),
    ],
)
def test_default_tag(image: str, full: str) -> None:
    assert with_default_tag(image) == full


@pytest.mark.parametrize("image", ["", "UPPER:1", "a b", "x:", "x:-tag", "/x", "x@sha256:short", "a//b", "x:1:2"])
def test_bad_image_names(image: str) -> None:
    with pytest.raises(InvalidImageName, match="couldn't parse image name"):
        with_default_tag(image)


def test_pull_policy_and_registry() -> None:
    assert [default_pull_policy(i) for i in ("x", "x:latest", "x:1", f"x@{DIGEST}")] == [
        "Always",
        "Always",
        *["IfNotPresent"] * 2,
    ]
    assert [registry_of(i) for i in ("x", "a/x", "r.io/x", "localhost/x")] == [*["index.docker.io"] * 2, "r.io", "localhost"]


def _secret(auths: dict[str, Any]) -> dict[str, Any]:
    return {"data": {".dockerconfigjson": base64.b64encode(json.dumps({"auths": auths}).encode()).decode()}}


def test_credentials_match_registry_and_path() -> None:
    pair = base64.b64encode(b"user:pa:ss").decode()
    secret = _secret({"r.io": {"auth": pair}, "r.io/team": {"username": "t", "password": "p"}, "*.x.io": {"username": "w"}})
    assert [(a.username, a.password) for a in credentials("r.io/team/app:1", [secret])] == [("t", "p"), ("user", "pa:ss")]
    assert [a.username for a in credentials("r.io/other:1", [secret])] == ["user"]
    assert [a.username for a in credentials("a.x.io/y", [secret])] == ["w"]
    assert credentials("a.b.x.io/y", [secret]) == [] and credentials("busybox", [secret]) == []
    hub = _secret({"https://index.docker.io/v1/": {"username": "h"}})
    assert [a.username for a in credentials("busybox", [hub])] == ["h"]
    assert "pa:ss" not in repr(credentials("r.io/other:1", [secret]))
    assert credentials("r.io/x", [{"data": {".dockerconfigjson": base64.b64encode(b"not json").decode()}}]) == []


@pytest.mark.parametrize(
    ("text", "out"),
    [
        ("$(A)", "1"), ("$(A)$(A)", "11"), ("$(X)", "$(X)"), ("$$(A)", "$(A)"), ("$$$(A)", "$1"), ("$A", "$A"),
        ("$", "$"), ("$(A", "$(A"), ("x$", "x$"), ("$$", "$"), ("$()", "$()"),
    ],
)  # fmt: skip
def test_expand(text: str, out: str) -> None:
    assert expand(text, {"A": "1"}) == out


def test_missing_names() -> None:
    assert missing("$(A)/$(B)/$$(C)", {"A": ""}) == ["B"]


def test_crash_backoff_doubles_caps_and_forgets() -> None:
    backoff = CrashBackoff()
    assert backoff.blocked_until("c", 0.0) is None
    now, delays = 0.0, []
    for _ in range(8):
        backoff.restarted("c", now, now)
        delays.append(backoff.delay("c"))
        now += delays[-1]
    assert delays == [10, 20, 40, 80, 160, 300, 300, 300]
    assert backoff.blocked_until("c", now) == now + 300
    assert backoff.blocked_until("c", now + 601) is None  # it ran for more than ten minutes
    backoff.restarted("c", now + 601, now + 601)
    assert backoff.delay("c") == 10
    backoff.adopt("d", 4, 1000.0)
    assert backoff.blocked_until("d", 1010.0) == 1090.0 and backoff.blocked_until("d", 1700.0) is None
    assert [go_duration(s) for s in (10, 60, 80, 300)] == ["10s", "1m0s", "1m20s", "5m0s"]


def _pod(*containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {"containers": list(containers), **spec}}


def _c(name: str = "c", *, requests: Any = None, limits: Any = None, **more: Any) -> dict[str, Any]:
    return {"name": name, "resources": {"requests": requests or {}, "limits": limits or {}}, **more}


def test_qos_classes() -> None:
    full = {"cpu": "1", "memory": "1Gi"}
    assert qos.qos_class(_pod(_c())) == "BestEffort"
    assert qos.qos_class(_pod(_c(requests={"cpu": "1"}))) == "Burstable"
    assert qos.qos_class(_pod(_c(limits=full))) == "Guaranteed"
    assert qos.qos_class(_pod(_c(limits=full, requests={"cpu": "1000m"}))) == "Guaranteed"
    assert qos.qos_class(_pod(_c(limits=full, requests={"cpu": "500m"}))) == "Burstable"
    assert qos.qos_class(_pod(_c(limits=full), _c("d"))) == "Burstable"


def test_pod_requests_take_the_greediest_moment() -> None:
    pod = _pod(
        _c(requests={"cpu": "100m"}),
        _c("d", limits={"cpu": "200m"}),
        initContainers=[_c("side", requests={"cpu": "50m"}, restartPolicy="Always"), _c("init", requests={"cpu": "400m"})],
        overhead={"cpu": "10m"},
    )
    assert qos.pod_requests(pod)["cpu"] == 460
    assert qos.pod_limits(_pod(_c(limits={"memory": "1Mi"}), _c("d"))).memory is None
    assert qos.pod_limits(_pod(_c(limits={"memory": "1Mi"}), _c("d", limits={"memory": "2Mi"}))).memory == 3 << 20


def test_refusals() -> None:
    room = {"pods": 2, "cpu": 1000, "memory": 1 << 30}
    small, big = _pod(_c(requests={"cpu": "400m"})), _pod(_c(requests={"cpu": "700m"}))
    assert refusal(small, [small], room, {}) is None
    assert (refusal(small, [small, small], room, {}) or big).reason == "OutOfpods"  # type: ignore[union-attr]
    refused = refusal(big, [small], room, {})
    assert refused is not None and refused.reason == "OutOfcpu"
    assert refused.message.endswith("resource: cpu, requested: 700, used: 400, capacity: 1000")
    unsafe = refusal(_pod(_c(), securityContext={"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}), [], room, {})
    assert unsafe is not None and unsafe.reason == "SysctlForbidden"
    port = _pod({**_c(), "ports": [{"containerPort": 1, "hostPort": 1}]})
    taken = refusal(port, [port], room, {})
    assert taken is not None and taken.reason == "NodePorts"
    here, there = (
        _pod({**_c(), "ports": [{"containerPort": 1, "hostPort": 1, "hostIP": ip}]}) for ip in ("127.0.0.1", "192.0.2.1")
    )
    assert refusal(here, [there], room, {}) is None
    assert refusal(here, [port], room, {}) is not None
    assert refusal(_pod(_c(), nodeSelector={"a": "b"}), [], room, {"a": "c"}) is not None


def test_patch_holds_only_what_changed() -> None:
    old = {
        "phase": "Pending",
        "message": "m",
        "podIPs": [{"ip": "1"}],
        "conditions": [
            {"type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": "x"},
            {"type": "PodScheduled", "status": "True"},
            {"type": "Foreign", "status": "True"},
        ],
    }
    new = {
        "phase": "Running",
        "podIPs": [{"ip": "2"}],
        "conditions": [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}],
    }
    assert build_patch(old, new) == {
        "phase": "Running",
        "message": None,
        "podIPs": [{"ip": "2"}, {"$patch": "replace"}],
        "conditions": [{"type": "Ready", "status": "True", "reason": None, "message": None}],
    }
    assert build_patch(new, new) == {}


def test_collection_keeps_the_last_two() -> None:
    def container(number: int, state: Any = "exited") -> ContainerStatus:
        return ContainerStatus(f"c{number}", "c", number, state, float(number))

    def box(number: int, *, ready: bool = False) -> Sandbox:
        return Sandbox(f"s{number}", "p", "n", "u", number, ready, float(number))

    containers = (container(9, "running"), container(8), container(7), container(1))
    observed = Observed((box(6, ready=True), box(5), box(0)), containers)
    dead, boxes = superfluous(observed)
    assert [c.id for c in dead] == ["c7", "c1"] and boxes == ["s5", "s0"]
    # A dead sandbox whose container is still shown as the last state stays.
    kept = Observed((box(6, ready=True), box(0)), (container(9, "running"), container(1)))
    assert superfluous(kept) == ([], [])


@pytest.mark.parametrize(("major", "version"), [(1, 2), (2, 3)])
def test_containerd_config_is_toml(major: int, version: int) -> None:
    settings = ContainerdSettings(
        root='/r "quoted"', state="/s", socket="/s/c.sock", cni_conf_dir="/conf", cni_bin_dir="/bin",
        pause_image="k1s.io/pause:1",
        snapshotter="overlayfs", registry_config_dir="/certs", restrict_oom_score_adj=True, runtime_binary="/usr/sbin/runc",
    )  # fmt: skip
    config = tomllib.loads(render(settings, major=major))
    assert config["version"] == version and config["root"] == '/r "quoted"' and config["grpc"]["address"] == "/s/c.sock"
    plugins = config["plugins"]
    cri = plugins["io.containerd.grpc.v1.cri"] if major == 1 else plugins["io.containerd.cri.v1.runtime"]
    assert cri["restrict_oom_score_adj"] is True and cri["cni"] == {"bin_dir": "/bin", "conf_dir": "/conf"}
    assert cri["containerd"]["runtimes"]["runc"]["options"] == {"SystemdCgroup": False, "BinaryName": "/usr/sbin/runc"}
    pause = cri["sandbox_image"] if major == 1 else plugins["io.containerd.cri.v1.images"]["pinned_images"]["sandbox"]
    assert pause == "k1s.io/pause:1"
