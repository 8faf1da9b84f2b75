"""Which function warns about which kind: what is written is valid, but deprecated, ambiguous or without effect.

on_create | on_update | on_status_update -> the texts of Warning headers (299), in upstream's words.
Owns: the dispatch. Called by: the apiserver's write pipeline, after validation found nothing. Never does: refuse.
Source: WarningsOnCreate and WarningsOnUpdate of upstream's pkg/registry/<group>/<kind>/strategy.go.
"""

from __future__ import annotations

from collections.abc import Callable

from k1s.api.catalog import Resource
from k1s.api.meta import Object
from k1s.api.warnings import config, networking, nodes, pods, services, topology, volumes, workloads

# (new, old); old is None on creation.
Warner = Callable[[Object, Object | None], list[str]]

_TABLE: dict[tuple[str, str], Warner] = {
    ("", "Endpoints"): services.endpoints,
    ("", "Node"): nodes.node,
    ("", "PersistentVolume"): volumes.persistent_volume,
    ("", "PersistentVolumeClaim"): volumes.persistent_volume_claim,
    ("", "Pod"): pods.pod,
    ("", "PodTemplate"): workloads.pod_template,
    ("", "ReplicationController"): workloads.replication_controller,
    ("", "Secret"): config.secret,
    ("", "Service"): services.service,
    ("", "ServiceAccount"): config.service_account,
    ("apps", "DaemonSet"): workloads.daemon_set,
    ("apps", "Deployment"): workloads.deployment,
    ("apps", "ReplicaSet"): workloads.deployment,
    ("apps", "StatefulSet"): workloads.stateful_set,
    ("batch", "CronJob"): workloads.cron_job,
    ("batch", "Job"): workloads.job,
    ("discovery.k8s.io", "EndpointSlice"): networking.endpoint_slice,
    ("networking.k8s.io", "Ingress"): networking.ingress,
    ("networking.k8s.io", "NetworkPolicy"): networking.network_policy,
    ("node.k8s.io", "RuntimeClass"): topology.runtime_class,
    ("storage.k8s.io", "CSIStorageCapacity"): topology.storage_capacity,
    ("storage.k8s.io", "StorageClass"): topology.storage_class,
}
_STATUS: dict[tuple[str, str], Warner] = {
    ("", "Pod"): pods.pod_status,
    ("", "Service"): services.service_status,
    ("networking.k8s.io", "Ingress"): networking.ingress_status,
}


def on_create(resource: Resource, obj: Object) -> list[str]:
    """What there is to say about a new object of the storage version."""
    warner = None if resource.custom else _TABLE.get((resource.group, resource.kind))
    return warner(obj, None) if warner is not None else []


def on_update(resource: Resource, obj: Object, old: Object) -> list[str]:
    """The same for a changed one, written through the main resource."""
    warner = None if resource.custom else _TABLE.get((resource.group, resource.kind))
    return warner(obj, old) if warner is not None else []


def on_status_update(resource: Resource, obj: Object, old: Object) -> list[str]:
    """The same for a write through the status subresource."""
    warner = None if resource.custom else _STATUS.get((resource.group, resource.kind))
    return warner(obj, old) if warner is not None else []
