"""The controllers, in the order in which they start.

Owns: CONTROLLERS and `run`. Called by: server/app. Never does: reconcile.
Every controller gets the client and the event recorder under its own name, so that managedFields, events and audit say who.
"""

from __future__ import annotations

from collections.abc import Callable

from k1s.api.catalog import Catalog, builtin_catalog
from k1s.base.clock import Clock
from k1s.base.metrics import Registry
from k1s.base.tasks import Supervisor
from k1s.client.controller import QueueMetrics
from k1s.client.events import EventRecorder
from k1s.client.interface import Client, InformerFactory
from k1s.client.rest import RestClient
from k1s.server.controllers.admission_policy_status import AdmissionPolicyStatusController
from k1s.server.controllers.certificate_signing import CertificateController
from k1s.server.controllers.cluster_role_aggregation import ClusterRoleAggregationController
from k1s.server.controllers.config import ControllerConfig
from k1s.server.controllers.cronjob import CronJobController
from k1s.server.controllers.daemonset import DaemonSetController
from k1s.server.controllers.deployment.controller import DeploymentController
from k1s.server.controllers.disruption import DisruptionController
from k1s.server.controllers.endpoints import EndpointsController
from k1s.server.controllers.endpointslice import EndpointSliceController
from k1s.server.controllers.endpointslice_mirroring import EndpointSliceMirroringController
from k1s.server.controllers.ephemeral_volume import EphemeralVolumeController
from k1s.server.controllers.flow_schema import FlowSchemaController
from k1s.server.controllers.garbage.collector import GarbageCollector
from k1s.server.controllers.job.controller import JobController
from k1s.server.controllers.kubernetes_service import KubernetesServiceController
from k1s.server.controllers.namespace import NamespaceController
from k1s.server.controllers.node_identity import NodeIdentityController
from k1s.server.controllers.node_ipam import NodeIpamController
from k1s.server.controllers.node_lifecycle import NodeLifecycleController
from k1s.server.controllers.node_role import NodeRoleController
from k1s.server.controllers.pod_gc import PodGcController
from k1s.server.controllers.reconciler import Context, Reconciler
from k1s.server.controllers.replicaset import ReplicaSetController
from k1s.server.controllers.replicationcontroller import ReplicationControllerController
from k1s.server.controllers.resource_quota import ResourceQuotaController
from k1s.server.controllers.root_ca import RootCaController
from k1s.server.controllers.service_account import ServiceAccountController
from k1s.server.controllers.service_addresses import ServiceAddressController
from k1s.server.controllers.service_cidr import ServiceCidrController
from k1s.server.controllers.service_lb import ServiceLoadBalancerController
from k1s.server.controllers.statefulset.controller import StatefulSetController
from k1s.server.controllers.taint_eviction import TaintEvictionController
from k1s.server.controllers.token_cleaner import TokenCleanerController
from k1s.server.controllers.ttl_after_finished import TtlAfterFinishedController
from k1s.server.controllers.volume_binding import VolumeBindingController
from k1s.server.controllers.volume_protection import VolumeProtectionController

# What a new pod waits for comes first.
CONTROLLERS: tuple[type[Reconciler], ...] = (
    ServiceAccountController,
    RootCaController,
    NodeIpamController,
    NodeRoleController,
    NodeIdentityController,
    DeploymentController,
    ReplicaSetController,
    ReplicationControllerController,
    DaemonSetController,
    StatefulSetController,
    JobController,
    CronJobController,
    EndpointSliceController,
    EndpointsController,
    EndpointSliceMirroringController,
    ServiceLoadBalancerController,
    ServiceAddressController,
    KubernetesServiceController,
    ServiceCidrController,
    EphemeralVolumeController,
    VolumeBindingController,
    VolumeProtectionController,
    GarbageCollector,
    NamespaceController,
    NodeLifecycleController,
    TaintEvictionController,
    PodGcController,
    TtlAfterFinishedController,
    DisruptionController,
    ResourceQuotaController,
    ClusterRoleAggregationController,
    AdmissionPolicyStatusController,
    FlowSchemaController,
    CertificateController,
    TokenCleanerController,
)


async def run(
    client: Client,
    informers: InformerFactory,
    clock: Clock,
    config: ControllerConfig,
    ready: Callable[[], None],
    *,
    registry: Registry | None = None,
    catalog: Catalog | None = None,
) -> None:
    """Run every controller until cancelled; `ready` is called when all of them work.

    `catalog`: the server's own, so that custom resources are seen as they come.
    """
    recorder = EventRecorder(client, "controllers", clock=clock)
    metrics = QueueMetrics(registry) if registry is not None else None
    async with Supervisor() as tasks:
        tasks.spawn("controller-events", recorder.run())
        for kind in CONTROLLERS:
            if kind.name in config.disabled:
                continue
            name = f"{kind.name}-controller"
            named = client.named(name) if isinstance(client, RestClient) else client
            context = Context(named, informers, clock, recorder.named(name), config, metrics, catalog or builtin_catalog())
            await tasks.start(name, kind(context).run)
        ready()
