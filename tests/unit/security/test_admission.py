"""The admission steps, each on its own, and the chain's order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from k1s.api.catalog import Resource, builtin
from k1s.api.errors import ApiError, not_found
from k1s.base.clock import VirtualClock
from k1s.server.apiserver.admission import chain
from k1s.server.apiserver.admission.certificates import CertificateApproval, CertificateSubjectRestriction
from k1s.server.apiserver.admission.default_ingress_class import DefaultIngressClass
from k1s.server.apiserver.admission.default_storage_class import DefaultStorageClass
from k1s.server.apiserver.admission.default_toleration_seconds import DefaultTolerationSeconds
from k1s.server.apiserver.admission.limit_ranger import LimitRanger
from k1s.server.apiserver.admission.namespace_lifecycle import NamespaceLifecycle
from k1s.server.apiserver.admission.priority import Priority
from k1s.server.apiserver.admission.rbac_escalation import RbacEscalation
from k1s.server.apiserver.admission.resource_quota import ResourceQuota
from k1s.server.apiserver.admission.runtime_class import RuntimeClass
from k1s.server.apiserver.admission.service_account import MOUNT_PATH, ServiceAccount
from k1s.server.apiserver.admission.step import Step
from k1s.server.apiserver.admission.storage_in_use import StorageObjectInUseProtection
from k1s.server.apiserver.admission.taint_nodes import TaintNodesByCondition
from k1s.server.apiserver.admission.volume_resize import PersistentVolumeClaimResize
from k1s.server.apiserver.attributes import AdmissionRequest, UserInfo
from k1s.server.apiserver.authz.app import Authorizer
from k1s.server.apiserver.authz.node import NodeAuthorizer
from k1s.server.apiserver.authz.rbac import RbacAuthorizer

USER = UserInfo("u", ("system:authenticated",))


class Absent:
    """A client that finds nothing."""

    async def get(self, resource: Resource, name: str, namespace: str = "") -> Any:
        raise not_found(resource.plural, resource.group, name)


def write(
    kind: str, obj: Any, *, operation: str = "CREATE", old: Any = None, sub: str = "", user: UserInfo = USER
) -> AdmissionRequest:
    resource = builtin(kind)
    meta = (old if obj is None else obj).setdefault("metadata", {})
    meta.setdefault("name", "x")
    namespace = meta.setdefault("namespace", "ns") if resource.namespaced else ""
    subresource = resource.subresource(sub) if sub else None
    return AdmissionRequest(operation, resource, subresource, namespace, meta["name"], obj, old, user)


def pod(**spec: Any) -> dict[str, Any]:
    return {"metadata": {}, "spec": {"containers": [{"name": "c"}], **spec}}


async def refused(step: Step, request: AdmissionRequest) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await step.mutate(request)
        await step.validate(request)
    return caught.value


async def admit(step: Step, request: AdmissionRequest) -> Any:
    await step.mutate(request)
    await step.validate(request)
    return request.obj


def authorizer(informers: Any) -> Authorizer:
    return Authorizer(RbacAuthorizer(informers), NodeAuthorizer(informers, ()))


# Namespaces


async def test_nothing_is_created_in_a_namespace_that_goes(informers: Any) -> None:
    step = NamespaceLifecycle(Absent(), informers)  # type: ignore[arg-type]
    error = await refused(step, write("Pod", pod()))
    assert (error.code, error.message) == (404, 'namespaces "ns" not found')
    informers.put("Namespace", "ns", status={"phase": "Active"})
    await admit(step, write("Pod", pod()))
    informers.put("Namespace", "ns", metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}, status={"phase": "Terminating"})
    error = await refused(step, write("Pod", pod()))
    text = 'pods "x" is forbidden: unable to create new content in namespace ns because it is being terminated'
    assert (error.code, error.message) == (403, text)
    assert error.details is not None
    assert error.details["causes"][0]["reason"] == "NamespaceTerminating"
    await admit(step, write("LocalSubjectAccessReview", {"spec": {}}))
    await step.validate(write("Pod", None, operation="DELETE", old=pod()))


@pytest.mark.parametrize("name", ["default", "kube-system", "kube-public"])
async def test_immortal_namespaces(informers: Any, name: str) -> None:
    step = NamespaceLifecycle(Absent(), informers)  # type: ignore[arg-type]
    request = write("Namespace", None, operation="DELETE", old={"metadata": {"name": name}})
    with pytest.raises(ApiError, match=f'namespaces "{name}" is forbidden: this namespace may not be deleted'):
        await step.validate(request)
    await step.validate(write("Namespace", None, operation="DELETE", old={"metadata": {"name": "mine"}}))


# Service accounts


@pytest.fixture
def accounts(informers: Any) -> ServiceAccount:
    informers.put("ServiceAccount", "default", "ns", imagePullSecrets=[{"name": "pull"}])
    informers.put("ServiceAccount", "quiet", "ns", automountServiceAccountToken=False)
    return ServiceAccount(Absent(), informers)  # type: ignore[arg-type]


async def test_a_pod_gets_the_default_account_and_its_token(accounts: ServiceAccount) -> None:
    made = await admit(accounts, write("Pod", pod(initContainers=[{"name": "i"}])))
    spec = made["spec"]
    assert (spec["serviceAccountName"], spec["serviceAccount"]) == ("default", "default")
    assert spec["imagePullSecrets"] == [{"name": "pull"}]
    (volume,) = spec["volumes"]
    assert volume["name"].startswith("kube-api-access-")
    assert [next(iter(s)) for s in volume["projected"]["sources"]] == ["serviceAccountToken", "configMap", "downwardAPI"]
    for container in (spec["containers"][0], spec["initContainers"][0]):
        assert container["volumeMounts"] == [{"name": volume["name"], "readOnly": True, "mountPath": MOUNT_PATH}]


@pytest.mark.parametrize(
    ("spec", "mounted"),
    [
        ({"automountServiceAccountToken": False}, False),
        ({"serviceAccountName": "quiet"}, False),
        ({"serviceAccountName": "quiet", "automountServiceAccountToken": True}, True),
    ],
)
async def test_automount_is_the_pods_word_before_the_accounts(
    accounts: ServiceAccount, spec: dict[str, Any], mounted: bool
) -> None:
    made = await admit(accounts, write("Pod", pod(**spec)))
    assert bool(made["spec"].get("volumes")) is mounted


async def test_a_container_with_a_mount_of_its_own_is_left_alone(accounts: ServiceAccount) -> None:
    own = {"name": "c", "volumeMounts": [{"name": "v", "mountPath": MOUNT_PATH}]}
    made = await admit(accounts, write("Pod", pod(containers=[own])))
    assert "volumes" not in made["spec"]


async def test_an_absent_account(accounts: ServiceAccount) -> None:
    error = await refused(accounts, write("Pod", pod(serviceAccountName="nobody")))
    text = 'pods "x" is forbidden: error looking up service account ns/nobody: serviceaccount "nobody" not found'
    assert (error.code, error.message) == (403, text)


async def test_a_pod_right_behind_its_namespace_waits_for_the_account(informers: Any) -> None:
    class Late(Absent):
        async def get(self, resource: Resource, name: str, namespace: str = "") -> Any:
            found = informers.informer(resource).get(name, namespace)
            return found if found is not None else await super().get(resource, name, namespace)

    step = ServiceAccount(Late(), informers)  # type: ignore[arg-type]
    waiting = asyncio.create_task(admit(step, write("Pod", pod())))
    await asyncio.sleep(0)
    informers.put("ServiceAccount", "default", "ns")
    made = await waiting
    assert made["spec"]["serviceAccountName"] == "default"


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"volumes": [{"name": "v", "secret": {"secretName": "other"}}]}, 'volume with secret.secretName="other" is not allowed'),
        (
            {"containers": [{"name": "c", "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "other"}}}]}]},
            'container c with envVar E referencing secret.secretName="other" is not allowed because service account strict '
            "does not reference that secret",
        ),
        ({"imagePullSecrets": [{"name": "other"}]}, 'imagePullSecrets[0].name="other" is not allowed'),
        ({"volumes": [{"name": "v", "secret": {"secretName": "mine"}}]}, ""),
    ],
)
async def test_an_account_may_say_which_secrets_its_pods_use(informers: Any, spec: Any, text: str) -> None:
    notes = {"kubernetes.io/enforce-mountable-secrets": "true"}
    informers.put("ServiceAccount", "strict", "ns", metadata={"annotations": notes}, secrets=[{"name": "mine"}])
    request = write("Pod", pod(serviceAccountName="strict", **spec))
    step = ServiceAccount(Absent(), informers)  # type: ignore[arg-type]
    if text:
        assert text in (await refused(step, request)).message
    else:
        await admit(step, request)


async def test_mirror_pods_depend_on_nothing(accounts: ServiceAccount) -> None:
    mirror = {"annotations": {"kubernetes.io/config.mirror": "x"}}
    made = await admit(accounts, write("Pod", {**pod(), "metadata": dict(mirror)}))
    assert "serviceAccountName" not in made["spec"]
    secret = pod(volumes=[{"name": "s", "secret": {"secretName": "s"}}])
    error = await refused(accounts, write("Pod", {**secret, "metadata": dict(mirror)}))
    assert "may not reference secrets" in error.message


# Priority


async def test_priority(informers: Any) -> None:
    step = Priority(informers)
    informers.put("PriorityClass", "high", value=1000, preemptionPolicy="Never")
    made = await admit(step, write("Pod", pod(priorityClassName="high")))
    assert (made["spec"]["priority"], made["spec"]["preemptionPolicy"]) == (1000, "Never")
    assert (await admit(step, write("Pod", pod())))["spec"]["priority"] == 0
    error = await refused(step, write("Pod", pod(priorityClassName="none")))
    assert error.message == 'pods "x" is forbidden: no PriorityClass with name none was found'
    error = await refused(step, write("Pod", pod(priority=5)))
    assert "the integer value of priority (5) must not be provided in pod spec" in error.message
    informers.put("PriorityClass", "usual", value=7, globalDefault=True)
    made = await admit(step, write("Pod", pod()))
    assert (made["spec"]["priority"], made["spec"]["priorityClassName"]) == (7, "usual")
    error = await refused(step, write("PriorityClass", {"globalDefault": True, "value": 1}))
    assert "PriorityClass usual is already marked as default" in error.message


# Small mutations


async def test_tolerations() -> None:
    made = await admit(DefaultTolerationSeconds(), write("Pod", pod()))
    assert [(t["key"], t["tolerationSeconds"]) for t in made["spec"]["tolerations"]] == [
        ("node.kubernetes.io/not-ready", 300),
        ("node.kubernetes.io/unreachable", 300),
    ]
    every = [{"operator": "Exists"}]
    assert (await admit(DefaultTolerationSeconds(), write("Pod", pod(tolerations=every))))["spec"]["tolerations"] == every


async def test_a_new_node_is_tainted_once() -> None:
    taint = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
    request = write("Node", {})
    for _ in range(2):
        assert (await admit(TaintNodesByCondition(), request))["spec"]["taints"] == [taint]


@pytest.mark.parametrize(("kind", "name"), [("PersistentVolumeClaim", "pvc"), ("PersistentVolume", "pv")])
async def test_protection_finalizers(kind: str, name: str) -> None:
    request = write(kind, {"spec": {}})
    for _ in range(2):
        made = await admit(StorageObjectInUseProtection(), request)
        assert made["metadata"]["finalizers"] == [f"kubernetes.io/{name}-protection"]


async def test_default_storage_class(informers: Any) -> None:
    step = DefaultStorageClass(informers)
    assert "storageClassName" not in (await admit(step, write("PersistentVolumeClaim", {"spec": {}})))["spec"]
    mark = {"storageclass.kubernetes.io/is-default-class": "true"}
    informers.put("StorageClass", "old", metadata={"annotations": mark, "creationTimestamp": "2020-01-01T00:00:00Z"})
    informers.put("StorageClass", "new", metadata={"annotations": mark, "creationTimestamp": "2021-01-01T00:00:00Z"})
    informers.put("StorageClass", "newest", metadata={"creationTimestamp": "2022-01-01T00:00:00Z"})
    assert (await admit(step, write("PersistentVolumeClaim", {"spec": {}})))["spec"]["storageClassName"] == "new"
    none = {"spec": {"storageClassName": ""}}
    assert (await admit(step, write("PersistentVolumeClaim", none)))["spec"]["storageClassName"] == ""


async def test_default_ingress_class(informers: Any) -> None:
    mark = {"ingressclass.kubernetes.io/is-default-class": "true"}
    informers.put("IngressClass", "main", metadata={"annotations": mark})
    assert (await admit(DefaultIngressClass(informers), write("Ingress", {"spec": {}})))["spec"]["ingressClassName"] == "main"
    old = {"metadata": {"annotations": {"kubernetes.io/ingress.class": "nginx"}}, "spec": {}}
    assert "ingressClassName" not in (await admit(DefaultIngressClass(informers), write("Ingress", old)))["spec"]


async def test_runtime_class(informers: Any) -> None:
    step = RuntimeClass(informers)
    scheduling = {"nodeSelector": {"vm": "yes"}, "tolerations": [{"key": "vm"}]}
    informers.put("RuntimeClass", "vm", handler="kata", overhead={"podFixed": {"memory": "64Mi"}}, scheduling=scheduling)
    spec = (await admit(step, write("Pod", pod(runtimeClassName="vm"))))["spec"]
    assert (spec["overhead"], spec["nodeSelector"], spec["tolerations"]) == ({"memory": "64Mi"}, {"vm": "yes"}, [{"key": "vm"}])
    for bad, text in (
        (pod(runtimeClassName="none"), 'RuntimeClass "none" not found'),
        (pod(runtimeClassName="vm", overhead={"memory": "1Mi"}), "Pod's Overhead doesn't match"),
        (pod(overhead={"memory": "1Mi"}), "Overhead set without corresponding RuntimeClass"),
        (pod(runtimeClassName="vm", nodeSelector={"vm": "no"}), "conflict"),
    ):
        assert text in (await refused(step, write("Pod", bad))).message


async def test_growing_a_claim_needs_a_class_that_allows_it(informers: Any) -> None:
    step = PersistentVolumeClaimResize(informers)
    informers.put("StorageClass", "fixed")
    informers.put("StorageClass", "elastic", allowVolumeExpansion=True)

    def claim(size: str, storage_class: str) -> dict[str, Any]:
        spec = {"resources": {"requests": {"storage": size}}, "storageClassName": storage_class}
        return {"metadata": {}, "spec": spec, "status": {"phase": "Bound"}}

    def grow(storage_class: str, size: str = "2Gi") -> AdmissionRequest:
        new, old = claim(size, storage_class), claim("1Gi", storage_class)
        return write("PersistentVolumeClaim", new, operation="UPDATE", old=old)

    await admit(step, grow("elastic"))
    await admit(step, grow("fixed", "1Gi"))
    assert "only dynamically provisioned pvc can be resized" in (await refused(step, grow("fixed"))).message


# Limits


def resources(requests: Any = None, limits: Any = None) -> dict[str, Any]:
    given = {key: value for key, value in (("requests", requests), ("limits", limits)) if value}
    return {"name": "c", "resources": given}


async def test_limit_range_defaults_and_bounds(informers: Any) -> None:
    step = LimitRanger(informers)
    item = {
        "type": "Container",
        "default": {"cpu": "1"},
        "defaultRequest": {"cpu": "100m"},
        "min": {"cpu": "50m"},
        "max": {"cpu": "2"},
        "maxLimitRequestRatio": {"cpu": "10"},
    }
    informers.put("LimitRange", "r", "ns", spec={"limits": [item, {"type": "Pod", "max": {"memory": "1Gi"}}]})
    memory = {"memory": "512Mi"}
    made = await admit(step, write("Pod", pod(containers=[resources(None, memory)])))
    assert made["spec"]["containers"][0]["resources"] == {"requests": {"cpu": "100m"}, "limits": {"cpu": "1", **memory}}
    note = made["metadata"]["annotations"]["kubernetes.io/limit-ranger"]
    assert note == "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
    for bad, text in (
        ([resources({"cpu": "10m"}, memory)], "minimum cpu usage per Container is 50m, but request is 10m"),
        ([resources({"cpu": "1"}, {"cpu": "3", **memory})], "maximum cpu usage per Container is 2, but limit is 3"),
        ([resources({"cpu": "50m"}, memory)], "cpu max limit to request ratio per Container is 10, but provided ratio is 20"),
        ([resources(None, {"memory": "600Mi"})] * 2, "maximum memory usage per Pod is 1Gi, but limit is 1200Mi"),
        ([resources()], "maximum memory usage per Pod is 1Gi.  No limit is specified"),
    ):
        assert text in (await refused(step, write("Pod", pod(containers=bad)))).message


async def test_limit_ranges_of_claims(informers: Any) -> None:
    limits = [{"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}}]
    informers.put("LimitRange", "r", "ns", spec={"limits": limits})
    for size, text in (("500Mi", "minimum storage usage"), ("3Gi", "maximum storage usage")):
        claim = {"spec": {"resources": {"requests": {"storage": size}}}}
        assert text in (await refused(LimitRanger(informers), write("PersistentVolumeClaim", claim))).message


# Quota


async def test_quota_counts_what_is_there_and_what_is_under_way(informers: Any) -> None:
    clock = VirtualClock()
    step = ResourceQuota(informers, clock)
    informers.put("ResourceQuota", "q", "ns", spec={"hard": {"pods": "2"}})
    informers.put("Pod", "a", "ns", spec={"containers": []})
    informers.put("Pod", "done", "ns", spec={"containers": []}, status={"phase": "Succeeded"})
    first = write("Pod", {**pod(), "metadata": {"uid": "1", "name": "b"}})
    await step.validate(first)
    second = write("Pod", {**pod(), "metadata": {"uid": "2", "name": "c"}})
    error = await refused(step, second)
    assert error.message == 'pods "c" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2'
    # The first write failed after admission: its place is free again.
    await clock.advance(11)
    await step.validate(second)
    # It is stored now: it must not count twice.
    informers.drop("Pod", "a", "ns")
    informers.put("Pod", "c", "ns", spec={"containers": []}, metadata={"uid": "2"})
    await step.validate(first)


async def test_quota_does_not_overshoot_when_many_come_at_once(informers: Any) -> None:
    informers.put("ResourceQuota", "q", "ns", spec={"hard": {"pods": "10"}})
    step = ResourceQuota(informers, VirtualClock())

    async def create(index: int) -> bool:
        made = pod()
        made["metadata"] = {"name": f"p{index}", "uid": f"u{index}"}
        try:
            await step.validate(write("Pod", made))
        except ApiError:
            return False
        await asyncio.sleep(0)  # its commit, while others are judged
        informers.put("Pod", f"p{index}", "ns", metadata={"uid": f"u{index}"}, spec=made["spec"])
        return True

    assert sum(await asyncio.gather(*(create(index) for index in range(64)))) == 10


async def test_quota_on_compute_must_be_specified(informers: Any) -> None:
    informers.put("ResourceQuota", "q", "ns", spec={"hard": {"requests.cpu": "1", "limits.memory": "1Gi"}})
    step = ResourceQuota(informers, VirtualClock())
    error = await refused(step, write("Pod", pod()))
    assert "failed quota: q: must specify limits.memory for: c; requests.cpu for: c" in error.message
    error = await refused(step, write("Pod", pod(containers=[resources({"cpu": "1500m"}, {"memory": "1Mi"})])))
    assert "exceeded quota: q, requested: requests.cpu=1500m, used: requests.cpu=0, limited: requests.cpu=1" in error.message
    error = await refused(step, write("Pod", pod(containers=[resources({"cpu": "1"}, {"memory": "1536Mi"})])))
    assert (
        "exceeded quota: q, requested: limits.memory=1536Mi, used: limits.memory=0, limited: limits.memory=1Gi" in error.message
    )


async def test_quota_scopes_and_other_kinds(informers: Any) -> None:
    informers.put("ResourceQuota", "best", "ns", spec={"hard": {"pods": "0"}, "scopes": ["BestEffort"]})
    hard = {"count/deployments.apps": "0", "services.nodeports": "1", "gold.storageclass.storage.k8s.io/requests.storage": "1Gi"}
    informers.put("ResourceQuota", "counts", "ns", spec={"hard": hard})
    step = ResourceQuota(informers, VirtualClock())
    await admit(step, write("Pod", pod(containers=[resources({"cpu": "1"})])))
    assert "exceeded quota: best" in (await refused(step, write("Pod", pod()))).message
    assert "count/deployments.apps=1" in (await refused(step, write("Deployment", {"spec": {}}))).message
    service = {"spec": {"type": "NodePort", "ports": [{}, {}]}}
    assert "services.nodeports=2" in (await refused(step, write("Service", service))).message
    claim = {"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "2Gi"}}}}
    assert "exceeded quota: counts" in (await refused(step, write("PersistentVolumeClaim", claim))).message


async def test_an_update_is_charged_for_what_it_adds_only(informers: Any) -> None:
    informers.put("ResourceQuota", "q", "ns", spec={"hard": {"services.nodeports": "1"}})
    old = {"metadata": {}, "spec": {"type": "NodePort", "ports": [{}]}}
    informers.put("Service", "x", "ns", spec=old["spec"])
    step = ResourceQuota(informers, VirtualClock())
    same = {"metadata": {}, "spec": {"type": "NodePort", "ports": [{"name": "n"}]}}
    await admit(step, write("Service", same, operation="UPDATE", old=old))
    more = {"metadata": {}, "spec": {"type": "NodePort", "ports": [{}, {}]}}
    assert "exceeded" in (await refused(step, write("Service", more, operation="UPDATE", old=old))).message


# Certificates


def csr(organizations: tuple[str, ...], signer: str = "kubernetes.io/kube-apiserver-client") -> dict[str, Any]:
    import base64

    from k1s.base import pki

    pem = pki.make_csr(pki.new_key(), pki.Subject("u", organizations))
    return {"metadata": {}, "spec": {"signerName": signer, "request": base64.b64encode(pem).decode()}, "status": {}}


async def test_nobody_asks_for_a_masters_certificate() -> None:
    step = CertificateSubjectRestriction()
    await admit(step, write("CertificateSigningRequest", csr(("dev",))))
    error = await refused(step, write("CertificateSigningRequest", csr(("system:masters",))))
    assert "system:masters group is not allowed" in error.message


async def test_approving_and_signing_need_the_verb_on_the_signer(informers: Any) -> None:
    step = CertificateApproval(authorizer(informers))
    old = csr(())
    approved = write("CertificateSigningRequest", {**old}, operation="UPDATE", old=old, sub="approval")
    assert (
        'not permitted to approve requests with signerName "kubernetes.io/kube-apiserver-client"'
        in (await refused(step, approved)).message
    )
    issued = write(
        "CertificateSigningRequest", {**old, "status": {"certificate": "x"}}, operation="UPDATE", old=old, sub="status"
    )
    assert "not permitted to sign" in (await refused(step, issued)).message
    rule = {"apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "verbs": ["approve"]}
    grant(informers, "approver", {**rule, "resourceNames": ["kubernetes.io/*"]})
    await admit(step, approved)
    assert "not permitted to sign" in (await refused(step, issued)).message


# Escalation


def grant(informers: Any, name: str, *rules: dict[str, Any], user: str = "u") -> None:
    informers.put("ClusterRole", name, rules=list(rules))
    informers.put(
        "ClusterRoleBinding",
        name,
        roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        subjects=[{"kind": "User", "name": user}],
    )


PODS = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}
SECRETS = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}


def role(*rules: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {}, "rules": list(rules)}


def binding(name: str) -> dict[str, Any]:
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
    return {"metadata": {}, "roleRef": reference, "subjects": [{"kind": "User", "name": "friend"}]}


async def test_a_role_of_a_milliard_rights_is_not_taken_apart(informers: Any) -> None:
    step = RbacEscalation(authorizer(informers))
    grant(informers, "mine", PODS)
    words = [f"w{number}" for number in range(2000)]
    huge = {"apiGroups": words, "resources": words, "resourceNames": words, "verbs": words}
    assert "16000000000000 single rights" in (await refused(step, write("Role", role(huge)))).message
    assert "single rights" in (await refused(step, write("Role", role({"nonResourceURLs": words, "verbs": words})))).message
    await admit(step, write("Role", role({**PODS, "resourceNames": words})))


async def test_nobody_grants_what_they_do_not_have(informers: Any) -> None:
    step = RbacEscalation(authorizer(informers))
    grant(informers, "mine", PODS)
    grant(informers, "secrets", SECRETS, user="other")
    await admit(step, write("Role", role({**PODS, "verbs": ["get"]})))
    await admit(step, write("RoleBinding", binding("mine")))
    error = await refused(step, write("Role", role(PODS, SECRETS)))
    assert "is attempting to grant RBAC permissions not currently held:" in error.message
    assert '{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}' in error.message
    assert "pods" not in error.message.split("held:")[1]
    assert "not currently held" in (await refused(step, write("RoleBinding", binding("secrets")))).message
    with pytest.raises(ApiError) as caught:
        await admit(step, write("RoleBinding", binding("none")))
    assert (caught.value.code, caught.value.message) == (404, 'clusterroles.rbac.authorization.k8s.io "none" not found')
    several = role({"apiGroups": [""], "resources": ["secrets", "pods"], "verbs": ["get", "delete"]})
    rights = (await refused(step, write("Role", several))).message.split("held:\n")[1]
    secrets = '{APIGroups:[""], Resources:["secrets"], Verbs:["get" "delete"]}'
    assert rights == f'{{APIGroups:[""], Resources:["pods"], Verbs:["delete"]}}\n{secrets}'


async def test_escalate_bind_and_masters_may(informers: Any) -> None:
    step = RbacEscalation(authorizer(informers))
    informers.put("ClusterRole", "secrets", rules=[SECRETS])
    root = UserInfo("root", ("system:masters",))
    await admit(step, write("ClusterRole", role(SECRETS), user=root))
    group = {"apiGroups": ["rbac.authorization.k8s.io"]}
    grant(informers, "power", {**group, "resources": ["clusterroles"], "verbs": ["escalate"]})
    await admit(step, write("ClusterRole", role(SECRETS)))
    assert "not currently held" in (await refused(step, write("RoleBinding", binding("secrets")))).message
    grant(informers, "binder", {**group, "resources": ["clusterroles"], "verbs": ["bind"], "resourceNames": ["secrets"]})
    await admit(step, write("RoleBinding", binding("secrets")))


async def test_an_aggregated_role_needs_everything(informers: Any) -> None:
    step = RbacEscalation(authorizer(informers))
    grant(informers, "mine", PODS)
    selector = {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}
    words = "must have cluster-admin privileges to use the aggregationRule"
    aggregated = {"metadata": {}, "aggregationRule": selector}
    assert words in (await refused(step, write("ClusterRole", aggregated))).message
    assert words in (await refused(step, write("ClusterRole", role(PODS), operation="UPDATE", old=aggregated))).message


async def test_a_label_makes_a_role_part_of_others(informers: Any) -> None:
    """Who could give cluster-admin the label of the aggregated role `view` would have everything."""
    step = RbacEscalation(authorizer(informers))
    new = {"metadata": {"labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}}, "rules": [SECRETS]}
    error = await refused(step, write("ClusterRole", new, operation="UPDATE", old=role(SECRETS)))
    assert "not currently held" in error.message
    await admit(step, write("ClusterRole", {**new, "rules": []}, operation="UPDATE", old=role()))


async def test_the_end_of_a_role_needs_no_rights_of_it(informers: Any) -> None:
    step = RbacEscalation(authorizer(informers))
    request = write("ClusterRole", role(SECRETS), operation="UPDATE", old=role(SECRETS))
    assert request.obj is not None
    request.old = {**request.obj, "metadata": {**request.obj["metadata"], "resourceVersion": "1"}}
    gone = {"finalizers": ["a"], "ownerReferences": [{"name": "o"}], "resourceVersion": "2"}
    request.obj = {**request.obj, "metadata": {**request.obj["metadata"], **gone}}
    await admit(step, request)
    request.obj["metadata"]["annotations"] = {"a": "b"}
    assert "not currently held" in (await refused(step, request)).message


# The chain


async def test_the_whole_chain_admits_a_plain_pod(informers: Any) -> None:
    informers.put("Namespace", "ns")
    informers.put("ServiceAccount", "default", "ns")
    steps = chain.build(Absent(), informers, authorizer(informers))  # type: ignore[arg-type]
    request = write("Pod", pod())
    await steps.mutate(request)
    await steps.validate(request)
    assert request.obj is not None
    assert {"serviceAccountName", "priority", "tolerations", "volumes"} <= set(request.obj["spec"])


async def test_the_chain_asks_each_step_only_what_it_wants() -> None:
    asked: list[str] = []

    class Pods(Step):
        resources = frozenset({"pods"})
        operations = frozenset({"CREATE"})

        async def mutate(self, request: AdmissionRequest) -> None:
            asked.append(f"{request.operation} {request.resource.plural}")

    steps = chain.AdmissionChain([Pods()])
    for kind in ("Pod", "ConfigMap"):
        await steps.mutate(write(kind, pod()))
    await steps.mutate(write("Pod", pod(), operation="UPDATE", old=pod()))
    await steps.validate(write("Pod", pod()))
    assert asked == ["CREATE pods"]
