"""The Pod Security Standards: what each level refuses, and how namespaces choose."""

from __future__ import annotations

from typing import Any

import pytest

from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.server.apiserver.admission.pod_security import PodSecurity
from k1s.server.apiserver.admission.pod_security_checks import violations
from k1s.server.apiserver.attributes import AdmissionRequest, UserInfo

GOOD_CONTEXT = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def pod(context: dict[str, Any] | None = None, container: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    made = {"name": "c", "securityContext": {**GOOD_CONTEXT, **(context or {})}, **(container or {})}
    return {"metadata": {"name": "p", "namespace": "ns"}, "spec": {"containers": [made], **spec}}


def host_path() -> list[dict[str, Any]]:
    return [{"name": "v", "hostPath": {"path": "/"}}]


def test_a_hardened_pod_passes_every_level() -> None:
    for level in ("privileged", "baseline", "restricted"):
        assert violations(pod(), level) == []


BASELINE = [
    (pod(hostNetwork=True, hostPID=True), "host namespaces (hostNetwork=true, hostPID=true)"),
    (pod({"privileged": True}), 'privileged (container "c" must not set securityContext.privileged=true)'),
    (pod(container={"ports": [{"hostPort": 80}]}), 'hostPort (container "c" uses hostPort 80)'),
    (pod({"procMount": "Unmasked"}), 'procMount (container "c" must not set securityContext.procMount to "Unmasked")'),
    (pod({"seLinuxOptions": {"user": "u"}}), "seLinuxOptions"),
    (pod({"appArmorProfile": {"type": "Unconfined"}}), "forbidden AppArmor profiles"),
    (pod(securityContext={"sysctls": [{"name": "kernel.msgmax"}]}), "forbidden sysctls (kernel.msgmax)"),
    (pod({"windowsOptions": {"hostProcess": True}}), "hostProcess"),
    (pod(container={"livenessProbe": {"httpGet": {"host": "10.0.0.1"}}}), "probe or lifecycle host"),
]
BASELINE_ONLY = [
    (
        pod({"capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}}),
        'non-default capabilities (container "c" must not include "NET_ADMIN" in securityContext.capabilities.add)',
    ),
    (pod(volumes=host_path()), 'hostPath volumes (volume "v")'),
    (pod({"seccompProfile": {"type": "Unconfined"}}), "seccompProfile"),
]
RESTRICTED = [
    (
        pod({"allowPrivilegeEscalation": None}),
        'allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false)',
    ),
    (pod({"capabilities": {}}), 'unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"])'),
    (pod({"capabilities": {"drop": ["ALL"], "add": ["CHOWN"]}}), 'must not include "CHOWN"'),
    (
        pod({"runAsNonRoot": None}),
        'runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true)',
    ),
    (pod({"runAsNonRoot": False}), 'container "c" must not set securityContext.runAsNonRoot=false'),
    (pod({"runAsUser": 0}), 'runAsUser=0 (container "c" must not set runAsUser=0)'),
    (
        pod({"seccompProfile": None}),
        'seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")',
    ),
    (pod(volumes=[{"name": "n", "nfs": {}}]), 'restricted volume types (volume "n" uses restricted volume type "nfs")'),
]


@pytest.mark.parametrize(("made", "text"), BASELINE)
def test_baseline_and_restricted_refuse(made: dict[str, Any], text: str) -> None:
    assert any(text in found for found in violations(made, "baseline"))
    assert any(text in found for found in violations(made, "restricted"))
    assert violations(made, "privileged") == []


@pytest.mark.parametrize(("made", "text"), BASELINE_ONLY)
def test_baseline_refuses(made: dict[str, Any], text: str) -> None:
    assert len(violations(made, "baseline")) == 1
    assert text in violations(made, "baseline")[0]


@pytest.mark.parametrize(("made", "text"), RESTRICTED)
def test_restricted_refuses_what_baseline_allows(made: dict[str, Any], text: str) -> None:
    assert violations(made, "baseline") == []
    assert len(violations(made, "restricted")) == 1
    assert text in violations(made, "restricted")[0]


def test_a_path_of_the_host_is_told_once() -> None:
    told = 'restricted volume types (volume "v" uses restricted volume type "hostPath")'
    assert violations(pod(volumes=host_path()), "restricted") == [told]


@pytest.mark.parametrize(
    ("made", "level", "last_refused", "first_allowed"),
    [
        (pod(securityContext={"sysctls": [{"name": "net.ipv4.tcp_rmem"}]}), "baseline", "v1.31", "v1.32"),
        (pod(securityContext={"sysctls": [{"name": "net.ipv4.tcp_fin_timeout"}]}), "baseline", "v1.28", "v1.29"),
        (pod({"seLinuxOptions": {"type": "container_engine_t"}}), "baseline", "v1.30", "latest"),
        (pod({"runAsUser": 0}), "restricted", "v1.23", "v1.22"),
        (pod({"allowPrivilegeEscalation": None}), "restricted", "v1.8", "v1.7"),
        (pod({"capabilities": {}}), "restricted", "v1.22", "v1.21"),
        (pod({"allowPrivilegeEscalation": None}, os={"name": "windows"}), "restricted", "v1.24", "v1.25"),
        (pod(container={"livenessProbe": {"httpGet": {"host": "10.0.0.1"}}}), "baseline", "v1.34", "v1.33"),
    ],
)
def test_a_pinned_version_judges_as_that_version_did(
    made: dict[str, Any], level: str, last_refused: str, first_allowed: str
) -> None:
    assert violations(made, level, last_refused)
    assert not violations(made, level, first_allowed)


def test_what_the_pod_says_holds_for_containers_that_say_nothing() -> None:
    context = {"runAsNonRoot": True, "seccompProfile": {"type": "Localhost"}}
    assert violations(pod({"runAsNonRoot": None, "seccompProfile": None}, securityContext=context), "restricted") == []


def test_init_and_ephemeral_containers_count() -> None:
    made = pod(initContainers=[{"name": "i"}], ephemeralContainers=[{"name": "e"}])
    assert 'containers "i", "e" must set' in violations(made, "restricted")[0]


def request(kind: str, obj: dict[str, Any], old: dict[str, Any] | None = None) -> AdmissionRequest:
    namespace = obj["metadata"].get("namespace", "")
    operation = "CREATE" if old is None else "UPDATE"
    return AdmissionRequest(operation, builtin(kind), None, namespace, obj["metadata"]["name"], obj, old, UserInfo("u"))


def label(informers: Any, **modes: str) -> None:
    labels = {f"pod-security.kubernetes.io/{mode}": level for mode, level in modes.items()}
    informers.put("Namespace", "ns", metadata={"labels": labels})


async def test_enforce_refuses_warn_warns(informers: Any) -> None:
    step = PodSecurity(informers)
    bad = pod({"privileged": True})
    label(informers)
    await step.validate(request("Pod", bad))
    label(informers, warn="baseline", audit="baseline")
    warned = request("Pod", bad)
    await step.validate(warned)
    assert warned.warnings[0].startswith('would violate PodSecurity "baseline:latest": privileged')
    assert "pod-security.kubernetes.io/audit-violations" in warned.annotations
    label(informers, enforce="baseline")
    with pytest.raises(ApiError) as caught:
        await step.validate(request("Pod", bad))
    assert caught.value.message.startswith('pods "p" is forbidden: violates PodSecurity "baseline:latest": privileged (')
    await step.validate(request("Pod", pod()))


async def test_pod_templates_are_warned_of_and_never_refused(informers: Any) -> None:
    label(informers, enforce="restricted", warn="restricted")
    template = {"metadata": {}, "spec": {"containers": [{"name": "c"}]}}
    deployment = {"metadata": {"name": "d", "namespace": "ns"}, "spec": {"template": template}}
    asked = request("Deployment", deployment)
    await PodSecurity(informers).validate(asked)
    assert len(asked.warnings) == 1


async def test_an_update_of_metadata_is_let_through(informers: Any) -> None:
    label(informers, enforce="restricted")
    old = pod({"privileged": True})
    new = {**old, "metadata": {**old["metadata"], "labels": {"a": "b"}}}
    await PodSecurity(informers).validate(request("Pod", new, old))
    worse = pod({"privileged": True}, hostNetwork=True)
    with pytest.raises(ApiError):
        await PodSecurity(informers).validate(request("Pod", worse, old))


async def test_labels_of_a_namespace(informers: Any) -> None:
    step = PodSecurity(informers)
    key = "pod-security.kubernetes.io/enforce"
    wrong = {"metadata": {"name": "ns", "labels": {key: "strict", f"{key}-version": "1.20"}}}
    with pytest.raises(ApiError) as caught:
        await step.validate(request("Namespace", wrong))
    assert (caught.value.code, caught.value.reason) == (422, "Invalid")
    assert caught.value.message == (
        f'Namespace "ns" is invalid: [metadata.labels[{key}]: Invalid value: "strict": must be one of privileged, baseline, '
        f'restricted, metadata.labels[{key}-version]: Invalid value: "1.20": must be "latest" or "v1.x"]'
    )
    # Labels that were wrong before do not stand in the way of other changes.
    await step.validate(request("Namespace", wrong, wrong))
    for name in ("a", "b"):
        informers.put("Pod", name, "ns", spec=pod({"privileged": True})["spec"])
    asked = request("Namespace", {"metadata": {"name": "ns", "labels": {key: "baseline"}}}, {"metadata": {"name": "ns"}})
    await step.validate(asked)
    assert asked.warnings == [
        'existing pods in namespace "ns" violate the new PodSecurity enforce level "baseline:latest"',
        "a (and 1 other pod): privileged",
    ]
