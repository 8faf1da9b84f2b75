"""Which strategy each kind has.

Owns: strategy_for and the table behind it. Called by: writes, deletion, handlers. Never does: hold rules of its own.
Source: upstream's pkg/registry/<group>/<kind>/strategy.go.
"""

from __future__ import annotations

from functools import cache

from k1s.api.catalog import Resource, builtin_catalog
from k1s.server.apiserver.strategies.base import Strategy
from k1s.server.apiserver.strategies.batch import CronJob, Job
from k1s.server.apiserver.strategies.certificates import CertificateSigningRequest, PodCertificateRequest
from k1s.server.apiserver.strategies.cluster import Namespace, Node, PriorityClass, Secret
from k1s.server.apiserver.strategies.devices import DeviceTaintRule, ResourceSlice
from k1s.server.apiserver.strategies.extension import CustomResource, CustomResourceDefinition
from k1s.server.apiserver.strategies.pod import Pod
from k1s.server.apiserver.strategies.service import Service
from k1s.server.apiserver.strategies.volumes import PersistentVolume, PersistentVolumeClaim
from k1s.server.apiserver.strategies.workloads import DaemonSet, Deployment, ReplicationController

_SPEC = ("spec",)


def _strategy(
    *,
    generation: tuple[str, ...] = (),
    create_on_update: bool = False,
    unconditional: bool = True,
    returns_deleted: bool = False,
    keeps_metadata: bool = False,
) -> Strategy:
    strategy = Strategy()
    strategy.generation_fields = generation
    strategy.create_on_update = create_on_update
    strategy.unconditional_update = unconditional
    strategy.returns_deleted = returns_deleted
    strategy.status_keeps_metadata = keeps_metadata
    return strategy


_RBAC = "rbac.authorization.k8s.io"
_FLOW = "flowcontrol.apiserver.k8s.io"
_ADMISSION = "admissionregistration.k8s.io"

# (storage group, kind) -> strategy; every other kind has the plain one.
_TABLE: dict[tuple[str, str], Strategy] = {
    ("", "Namespace"): Namespace(),
    ("", "Node"): Node(),
    ("", "Secret"): Secret(),
    ("", "Pod"): Pod(),
    ("", "Service"): Service(),
    ("", "PersistentVolume"): PersistentVolume(),
    ("", "PersistentVolumeClaim"): PersistentVolumeClaim(),
    ("", "ReplicationController"): ReplicationController(),
    ("", "Endpoints"): _strategy(create_on_update=True),
    ("", "Event"): _strategy(create_on_update=True),
    ("", "LimitRange"): _strategy(create_on_update=True),
    ("", "PodTemplate"): _strategy(create_on_update=True, returns_deleted=True, generation=("template",)),
    ("", "ResourceQuota"): _strategy(create_on_update=True, returns_deleted=True),
    ("", "ServiceAccount"): _strategy(returns_deleted=True),
    ("apps", "DaemonSet"): DaemonSet(),
    ("apps", "Deployment"): Deployment(),
    ("apps", "ReplicaSet"): _strategy(generation=_SPEC),
    ("apps", "StatefulSet"): _strategy(generation=_SPEC),
    ("batch", "Job"): Job(),
    ("batch", "CronJob"): CronJob(),
    ("certificates.k8s.io", "CertificateSigningRequest"): CertificateSigningRequest(),
    ("certificates.k8s.io", "ClusterTrustBundle"): _strategy(unconditional=False),
    ("certificates.k8s.io", "PodCertificateRequest"): PodCertificateRequest(),
    ("apiextensions.k8s.io", "CustomResourceDefinition"): CustomResourceDefinition(),
    ("apiregistration.k8s.io", "APIService"): _strategy(unconditional=False, keeps_metadata=True),
    ("coordination.k8s.io", "Lease"): _strategy(create_on_update=True, unconditional=False),
    ("discovery.k8s.io", "EndpointSlice"): _strategy(generation=("endpoints", "ports", "addressType")),
    ("networking.k8s.io", "Ingress"): _strategy(generation=_SPEC),
    ("networking.k8s.io", "IngressClass"): _strategy(generation=_SPEC),
    ("networking.k8s.io", "NetworkPolicy"): _strategy(generation=_SPEC),
    ("networking.k8s.io", "ServiceCIDR"): _strategy(keeps_metadata=True),
    ("policy", "PodDisruptionBudget"): _strategy(generation=_SPEC, unconditional=False),
    (_RBAC, "Role"): _strategy(create_on_update=True),
    (_RBAC, "RoleBinding"): _strategy(create_on_update=True),
    (_RBAC, "ClusterRole"): _strategy(create_on_update=True),
    (_RBAC, "ClusterRoleBinding"): _strategy(create_on_update=True),
    ("storage.k8s.io", "StorageClass"): _strategy(returns_deleted=True),
    ("storage.k8s.io", "CSIStorageCapacity"): _strategy(unconditional=False),
    ("storage.k8s.io", "CSINode"): _strategy(returns_deleted=True, unconditional=False),
    ("storage.k8s.io", "CSIDriver"): _strategy(returns_deleted=True, unconditional=False, generation=_SPEC),
    ("storage.k8s.io", "VolumeAttachment"): _strategy(returns_deleted=True, unconditional=False, keeps_metadata=True),
    ("storage.k8s.io", "VolumeAttributesClass"): _strategy(returns_deleted=True),
    ("storagemigration.k8s.io", "StorageVersionMigration"): _strategy(unconditional=False, keeps_metadata=True),
    ("node.k8s.io", "RuntimeClass"): _strategy(unconditional=False),
    ("scheduling.k8s.io", "PriorityClass"): PriorityClass(),
    ("resource.k8s.io", "DeviceClass"): _strategy(generation=_SPEC),
    ("resource.k8s.io", "DeviceTaintRule"): DeviceTaintRule(),
    ("resource.k8s.io", "ResourceClaim"): _strategy(keeps_metadata=True),
    ("resource.k8s.io", "ResourceSlice"): ResourceSlice(),
    (_ADMISSION, "ValidatingWebhookConfiguration"): _strategy(generation=("webhooks",), unconditional=False),
    (_ADMISSION, "MutatingWebhookConfiguration"): _strategy(generation=("webhooks",), unconditional=False),
    (_ADMISSION, "ValidatingAdmissionPolicy"): _strategy(generation=_SPEC, unconditional=False, keeps_metadata=True),
    (_ADMISSION, "ValidatingAdmissionPolicyBinding"): _strategy(generation=_SPEC, unconditional=False),
    (_ADMISSION, "MutatingAdmissionPolicy"): _strategy(generation=_SPEC, unconditional=False),
    (_ADMISSION, "MutatingAdmissionPolicyBinding"): _strategy(generation=_SPEC, unconditional=False),
    (_FLOW, "FlowSchema"): _strategy(generation=_SPEC, unconditional=False, keeps_metadata=True),
    (_FLOW, "PriorityLevelConfiguration"): _strategy(generation=_SPEC, unconditional=False, keeps_metadata=True),
}

_PLAIN = Strategy()
_PLAIN_STATUS = Strategy()
_PLAIN_STATUS.has_status = True
_CUSTOM = CustomResource()
_CUSTOM_STATUS = CustomResource()
_CUSTOM_STATUS.has_status = True


def strategy_for(resource: Resource) -> Strategy:
    """The strategy of a resource in its storage version."""
    if resource.custom:
        return _CUSTOM_STATUS if resource.subresource("status") else _CUSTOM
    found = _with_status().get((resource.stored_group, resource.kind))
    if found is None:
        return _PLAIN_STATUS if resource.subresource("status") else _PLAIN
    return found


@cache
def _with_status() -> dict[tuple[str, str], Strategy]:
    """The table, once it is noted which kinds have a status subresource: there only that may write the status."""
    for resource in builtin_catalog():
        strategy = _TABLE.get((resource.group, resource.kind))
        if strategy is not None and resource.subresource("status") is not None:
            strategy.has_status = True
    return _TABLE
