"""Which function defaults which kind.

Owns: apply_defaults, the only entry of this package. Called by: the apiserver on each write, after decoding, and again after
anything that may have changed the object (patch, mutating admission): defaulting is idempotent.
Never does: refuse, or set what an allocator, a strategy or admission sets.
"""

from __future__ import annotations

from collections.abc import Callable

from k1s.api.catalog import Resource
from k1s.api.defaults import (
    apps,
    autoscaling,
    batch,
    core,
    devices,
    extension,
    flowcontrol,
    networking,
    pod,
    rbac,
    storage,
    volumes,
)
from k1s.api.meta import Object


def _status(obj: Object) -> None:
    obj.setdefault("status", {})


def _priority_class(obj: Object) -> None:
    if obj.get("preemptionPolicy") is None:
        obj["preemptionPolicy"] = "PreemptLowerPriority"


def _token_request(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    if spec.get("expirationSeconds") is None:
        spec["expirationSeconds"] = 3600


def _pod_certificate_request(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    if spec.get("maxExpirationSeconds") is None:
        spec["maxExpirationSeconds"] = 86400
    obj.setdefault("status", {})


_ADMISSION = "admissionregistration.k8s.io"
_FLOW = "flowcontrol.apiserver.k8s.io"

_TABLE: dict[tuple[str, str], Callable[[Object], None]] = {
    ("", "Endpoints"): core.endpoints,
    ("", "LimitRange"): core.limit_range,
    ("", "Namespace"): core.namespace,
    ("", "Node"): core.node,
    ("", "PersistentVolume"): volumes.persistent_volume,
    ("", "PersistentVolumeClaim"): volumes.claim,
    ("", "Pod"): pod.pod,
    ("", "PodTemplate"): pod.pod_template,
    ("", "ReplicationController"): core.replication_controller,
    ("", "ResourceQuota"): core.resource_quota,
    ("", "Secret"): core.secret,
    ("", "Service"): core.service,
    ("apps", "DaemonSet"): apps.daemon_set,
    ("apps", "Deployment"): apps.deployment,
    ("apps", "ReplicaSet"): apps.replica_set,
    ("apps", "StatefulSet"): apps.stateful_set,
    ("autoscaling", "HorizontalPodAutoscaler"): autoscaling.autoscaler,
    ("authentication.k8s.io", "TokenRequest"): _token_request,
    ("batch", "CronJob"): batch.cron_job,
    ("batch", "Job"): batch.job,
    ("certificates.k8s.io", "CertificateSigningRequest"): _status,
    ("certificates.k8s.io", "PodCertificateRequest"): _pod_certificate_request,
    ("discovery.k8s.io", "EndpointSlice"): networking.endpoint_slice,
    ("networking.k8s.io", "Ingress"): networking.ingress,
    ("networking.k8s.io", "IngressClass"): networking.ingress_class,
    ("networking.k8s.io", "NetworkPolicy"): networking.network_policy,
    ("networking.k8s.io", "ServiceCIDR"): _status,
    ("policy", "PodDisruptionBudget"): _status,
    (rbac.GROUP, "ClusterRoleBinding"): rbac.binding,
    (rbac.GROUP, "RoleBinding"): rbac.binding,
    ("scheduling.k8s.io", "PriorityClass"): _priority_class,
    ("storagemigration.k8s.io", "StorageVersionMigration"): _status,
    ("storage.k8s.io", "CSIDriver"): storage.csi_driver,
    ("storage.k8s.io", "CSIStorageCapacity"): storage.storage_capacity,
    ("storage.k8s.io", "StorageClass"): storage.storage_class,
    ("storage.k8s.io", "VolumeAttachment"): storage.volume_attachment,
    (_ADMISSION, "MutatingAdmissionPolicy"): extension.admission_policy,
    (_ADMISSION, "MutatingAdmissionPolicyBinding"): extension.admission_policy_binding,
    (_ADMISSION, "MutatingWebhookConfiguration"): extension.mutating_webhooks,
    (_ADMISSION, "ValidatingAdmissionPolicy"): extension.admission_policy,
    (_ADMISSION, "ValidatingAdmissionPolicyBinding"): extension.admission_policy_binding,
    (_ADMISSION, "ValidatingWebhookConfiguration"): extension.validating_webhooks,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): extension.custom_resource_definition,
    ("apiregistration.k8s.io", "APIService"): extension.api_service,
    (_FLOW, "FlowSchema"): flowcontrol.flow_schema,
    (_FLOW, "PriorityLevelConfiguration"): flowcontrol.priority_level,
    ("resource.k8s.io", "DeviceTaintRule"): _status,
    ("resource.k8s.io", "ResourceClaim"): devices.resource_claim,
    ("resource.k8s.io", "ResourceClaimTemplate"): devices.resource_claim_template,
}


def apply_defaults(resource: Resource, obj: Object) -> None:
    """Fill in `obj`, in place, what upstream v1.37 fills in for its kind."""
    default = _TABLE.get((resource.group, resource.kind))
    if default is not None and not resource.custom:
        default(obj)
