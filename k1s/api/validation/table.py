"""Which function validates which kind.

validate_create | validate_update | validate_status_update | validate_subresource_update -> FieldErrors, empty if all is well
Owns: the dispatch, and that ObjectMeta is always checked. Called by: the apiserver, after defaulting and mutating admission;
type errors and unknown fields were refused before (decode, prune). Never does: look at other objects (admission does).
Kinds without a file of their own get ObjectMeta and the fields their schema requires.
"""

from __future__ import annotations

from collections.abc import Callable

from k1s.api.catalog import Resource
from k1s.api.errors import FieldError
from k1s.api.meta import Object
from k1s.api.validation import (
    admission_policies,
    apps,
    autoscaling,
    batch,
    certificates,
    claims,
    cluster,
    config,
    csi,
    definitions,
    device_slices,
    devices,
    endpoint_slices,
    events,
    extension,
    flowcontrol,
    ingresses,
    job_status,
    jobs,
    migrations,
    networking,
    nodes,
    object_meta,
    persistent_volumes,
    pod,
    pod_certificates,
    pod_resize,
    pod_status,
    pod_update,
    quotas,
    rbac,
    required_fields,
    service,
)
from k1s.api.validation.rules import Errors

Create = Callable[[Errors, Object], None]
Update = Callable[[Errors, Object, Object], None]

_ADMISSION = "admissionregistration.k8s.io"
_RBAC = rbac.GROUP
_STORAGE = "storage.k8s.io"
_CERTIFICATES = "certificates.k8s.io"
_MIGRATION = "storagemigration.k8s.io"
_DEVICES = "resource.k8s.io"
_EVENTS = "events.k8s.io"
_FLOW = "flowcontrol.apiserver.k8s.io"
_NETWORK = "networking.k8s.io"


def _nothing(errs: Errors, obj: Object) -> None:
    """ObjectMeta is all there is to check."""


_CREATE: dict[tuple[str, str], Create] = {
    ("", "ConfigMap"): config.config_map,
    ("", "Endpoints"): service.endpoints,
    ("", "Event"): events.event,
    ("", "LimitRange"): quotas.limit_range,
    ("", "Namespace"): nodes.namespace,
    ("", "Node"): nodes.node,
    ("", "PersistentVolume"): persistent_volumes.create,
    ("", "PersistentVolumeClaim"): claims.create,
    ("", "Pod"): pod.create,
    ("", "PodTemplate"): pod.pod_template,
    ("", "ReplicationController"): apps.replication_controller,
    ("", "ResourceQuota"): quotas.resource_quota,
    ("", "Secret"): config.secret,
    ("", "Service"): service.service,
    ("", "ServiceAccount"): _nothing,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): definitions.custom_resource_definition,
    ("apiregistration.k8s.io", "APIService"): extension.api_service,
    ("apps", "ControllerRevision"): apps.controller_revision,
    ("apps", "DaemonSet"): apps.daemon_set,
    ("apps", "Deployment"): apps.deployment,
    ("apps", "ReplicaSet"): apps.replica_set,
    ("apps", "StatefulSet"): apps.stateful_set,
    ("autoscaling", "HorizontalPodAutoscaler"): autoscaling.autoscaler,
    ("batch", "CronJob"): batch.cron_job,
    ("batch", "Job"): jobs.job,
    (_CERTIFICATES, "CertificateSigningRequest"): certificates.signing_request,
    (_CERTIFICATES, "ClusterTrustBundle"): certificates.trust_bundle,
    (_CERTIFICATES, "PodCertificateRequest"): pod_certificates.request,
    ("coordination.k8s.io", "Lease"): cluster.lease,
    ("discovery.k8s.io", "EndpointSlice"): endpoint_slices.endpoint_slice,
    ("node.k8s.io", "RuntimeClass"): cluster.runtime_class,
    ("policy", "PodDisruptionBudget"): cluster.disruption_budget,
    ("scheduling.k8s.io", "PriorityClass"): cluster.priority_class,
    (_ADMISSION, "MutatingAdmissionPolicy"): admission_policies.policy,
    (_ADMISSION, "MutatingAdmissionPolicyBinding"): admission_policies.binding,
    (_ADMISSION, "MutatingWebhookConfiguration"): extension.webhooks,
    (_ADMISSION, "ValidatingAdmissionPolicy"): admission_policies.policy,
    (_ADMISSION, "ValidatingAdmissionPolicyBinding"): admission_policies.binding,
    (_ADMISSION, "ValidatingWebhookConfiguration"): extension.webhooks,
    (_NETWORK, "IPAddress"): networking.ip_address,
    (_NETWORK, "Ingress"): ingresses.ingress,
    (_NETWORK, "IngressClass"): ingresses.ingress_class,
    (_NETWORK, "NetworkPolicy"): networking.network_policy,
    (_NETWORK, "ServiceCIDR"): networking.service_cidr,
    (_RBAC, "ClusterRole"): rbac.cluster_role,
    (_RBAC, "ClusterRoleBinding"): rbac.cluster_role_binding,
    (_RBAC, "Role"): rbac.role,
    (_RBAC, "RoleBinding"): rbac.role_binding,
    (_DEVICES, "DeviceClass"): devices.device_class,
    (_DEVICES, "DeviceTaintRule"): devices.taint_rule,
    (_DEVICES, "ResourceClaim"): devices.claim,
    (_DEVICES, "ResourceClaimTemplate"): devices.claim_template,
    (_DEVICES, "ResourceSlice"): device_slices.resource_slice,
    (_MIGRATION, "StorageVersionMigration"): migrations.migration,
    (_STORAGE, "CSIDriver"): csi.csi_driver,
    (_STORAGE, "CSINode"): csi.csi_node,
    (_STORAGE, "CSIStorageCapacity"): csi.storage_capacity,
    (_STORAGE, "StorageClass"): csi.storage_class,
    (_STORAGE, "VolumeAttachment"): csi.volume_attachment,
    (_STORAGE, "VolumeAttributesClass"): csi.attributes_class,
    (_FLOW, "FlowSchema"): flowcontrol.flow_schema,
    (_FLOW, "PriorityLevelConfiguration"): flowcontrol.priority_level,
}
# Kinds not here are validated anew on update, nothing in them is fixed.
_UPDATE: dict[tuple[str, str], Update] = {
    ("", "ConfigMap"): config.config_map_update,
    ("", "Namespace"): nodes.namespace_update,
    ("", "Node"): nodes.node_update,
    ("", "PersistentVolume"): persistent_volumes.update,
    ("", "PersistentVolumeClaim"): claims.update,
    ("", "Pod"): pod_update.update,
    ("", "ResourceQuota"): quotas.resource_quota_update,
    ("", "Secret"): config.secret_update,
    ("", "Service"): service.service_update,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): definitions.custom_resource_definition_update,
    ("apps", "ControllerRevision"): apps.controller_revision_update,
    ("apps", "DaemonSet"): apps.daemon_set_update,
    ("apps", "Deployment"): apps.deployment_update,
    ("apps", "ReplicaSet"): apps.replica_set_update,
    ("apps", "StatefulSet"): apps.stateful_set_update,
    ("batch", "CronJob"): batch.cron_job_update,
    ("batch", "Job"): jobs.job_update,
    (_CERTIFICATES, "CertificateSigningRequest"): certificates.signing_request_update,
    (_CERTIFICATES, "ClusterTrustBundle"): certificates.trust_bundle_update,
    (_CERTIFICATES, "PodCertificateRequest"): pod_certificates.request_update,
    ("discovery.k8s.io", "EndpointSlice"): endpoint_slices.endpoint_slice_update,
    ("node.k8s.io", "RuntimeClass"): cluster.runtime_class_update,
    (_DEVICES, "ResourceClaim"): devices.fixed_spec,
    (_DEVICES, "ResourceClaimTemplate"): devices.fixed_spec,
    (_DEVICES, "ResourceSlice"): device_slices.resource_slice_update,
    ("scheduling.k8s.io", "PriorityClass"): cluster.priority_class_update,
    (_NETWORK, "IPAddress"): networking.ip_address_update,
    (_NETWORK, "Ingress"): ingresses.ingress_update,
    (_NETWORK, "IngressClass"): ingresses.ingress_class_update,
    (_NETWORK, "NetworkPolicy"): networking.network_policy_update,
    (_NETWORK, "ServiceCIDR"): networking.service_cidr_update,
    (_RBAC, "ClusterRoleBinding"): rbac.cluster_role_binding_update,
    (_RBAC, "RoleBinding"): rbac.role_binding_update,
    (_MIGRATION, "StorageVersionMigration"): migrations.migration_update,
    (_STORAGE, "CSIDriver"): csi.csi_driver_update,
    (_STORAGE, "CSINode"): csi.csi_node_update,
    (_STORAGE, "CSIStorageCapacity"): csi.storage_capacity_update,
    (_STORAGE, "StorageClass"): csi.storage_class_update,
    (_STORAGE, "VolumeAttachment"): csi.volume_attachment_update,
    (_STORAGE, "VolumeAttributesClass"): csi.attributes_class_update,
}
_STATUS: dict[tuple[str, str], Update] = {
    ("", "Namespace"): nodes.namespace_status,
    ("", "Node"): nodes.node_update,
    ("", "PersistentVolumeClaim"): claims.status,
    ("", "Pod"): pod_status.status,
    ("", "ReplicationController"): apps.replicas_status,
    ("", "ResourceQuota"): quotas.resource_quota_status,
    ("", "Service"): service.service_status,
    ("apps", "DaemonSet"): apps.daemon_set_status,
    ("apps", "Deployment"): apps.replicas_status,
    ("apps", "ReplicaSet"): apps.replicas_status,
    ("apps", "StatefulSet"): apps.replicas_status,
    ("autoscaling", "HorizontalPodAutoscaler"): autoscaling.autoscaler_status,
    ("batch", "Job"): job_status.job_status,
    (_CERTIFICATES, "CertificateSigningRequest"): certificates.signing_request_status,
    (_CERTIFICATES, "PodCertificateRequest"): pod_certificates.request_status,
    ("policy", "PodDisruptionBudget"): cluster.disruption_budget_status,
    (_NETWORK, "Ingress"): ingresses.ingress_status,
    (_DEVICES, "DeviceTaintRule"): devices.taint_rule_status,
    (_DEVICES, "ResourceClaim"): devices.claim_status,
    (_MIGRATION, "StorageVersionMigration"): migrations.migration_status,
    (_STORAGE, "VolumeAttachment"): csi.volume_attachment_status,
    (_ADMISSION, "ValidatingAdmissionPolicy"): admission_policies.policy_status,
    ("apiregistration.k8s.io", "APIService"): extension.api_service_status,
    (_FLOW, "FlowSchema"): flowcontrol.status,
    (_FLOW, "PriorityLevelConfiguration"): flowcontrol.status,
}
_SUBRESOURCE: dict[tuple[str, str, str], Update] = {
    ("", "Pod", "ephemeralcontainers"): pod_update.ephemeral_containers,
    ("", "Pod", "resize"): pod_resize.resize,
    ("", "Namespace", "finalize"): nodes.namespace_finalize,
    (_CERTIFICATES, "CertificateSigningRequest", "approval"): certificates.signing_request_approval,
}


def validate_create(resource: Resource, obj: Object, asked: Resource | None = None) -> list[FieldError]:
    """What is wrong with a new object. `asked`: the resource of the request, where that may have rules of its own."""
    errs: Errors = []
    if resource.persisted:
        object_meta.validate(errs, resource, obj)
    if asked is not None and asked.group == _EVENTS and not resource.custom:
        events.new_event(errs, obj)
    else:
        _content(errs, resource, obj)
    return errs


def validate_update(resource: Resource, obj: Object, old: Object, asked: Resource | None = None) -> list[FieldError]:
    """What is wrong with `obj` as the successor of `old`."""
    errs: Errors = []
    object_meta.validate_update(errs, resource, obj, old)
    update = _UPDATE.get((resource.group, resource.kind))
    if asked is not None and asked.group == _EVENTS:
        update = events.new_event_update
    if update is None or resource.custom:
        _content(errs, resource, obj)
    else:
        update(errs, obj, old)
    return errs


def validate_status_update(resource: Resource, obj: Object, old: Object) -> list[FieldError]:
    """What is wrong with a write through the status subresource; the spec is the old one and not looked at."""
    errs: Errors = []
    object_meta.validate_update(errs, resource, obj, old)
    check = None if resource.custom else _STATUS.get((resource.group, resource.kind))
    if check is not None:
        check(errs, obj, old)
    return errs


def validate_subresource_update(resource: Resource, subresource: str, obj: Object, old: Object) -> list[FieldError]:
    """What is wrong with a write through a subresource: pods/ephemeralcontainers and pods/resize have rules of their own,
    and so has approval; any other counts as the object itself."""
    if subresource == "status":
        return validate_status_update(resource, obj, old)
    check = _SUBRESOURCE.get((resource.group, resource.kind, subresource))
    if check is None:
        return validate_update(resource, obj, old)
    errs: Errors = []
    object_meta.validate_update(errs, resource, obj, old)
    check(errs, obj, old)
    return errs


def _content(errs: Errors, resource: Resource, obj: Object) -> None:
    if resource.custom:
        return
    check = _CREATE.get((resource.group, resource.kind))
    if check is not None:
        check(errs, obj)
    else:
        required_fields.check(errs, resource, obj)
