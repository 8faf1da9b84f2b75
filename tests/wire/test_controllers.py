"""All controllers in front of the real API server (memory store, no sockets), with a make-believe kubelet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.base.clock import REAL_CLOCK, rfc3339
from k1s.base.http import Request
from k1s.base.metrics import Registry
from k1s.base.tasks import Supervisor
from k1s.client.informer import WatchInformers
from k1s.client.rest import RestClient
from k1s.client.transport import LocalTransport
from k1s.server.apiserver.admission.chain import AdmissionChain
from k1s.server.apiserver.admission.namespace_lifecycle import NamespaceLifecycle
from k1s.server.apiserver.app import ApiServer
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.server.controllers import app
from k1s.server.controllers.config import ControllerConfig
from k1s.storage.memory import MemoryStore

Object = dict[str, Any]
ADMIN = UserInfo("admin", ("system:masters", "system:authenticated"))


class Open:
    """Everybody is the administrator and may do everything."""

    async def authenticate(self, request: Request) -> UserInfo:
        return ADMIN

    async def authorize(self, user: UserInfo, info: RequestInfo) -> None:
        return None


class Cluster:
    def __init__(self, server: ApiServer, client: RestClient) -> None:
        self.server, self.client = server, client

    def cached(self, kind: str, namespace: str = "") -> list[Object]:
        return list(self.server.informers.informer(builtin(kind)).list(namespace))

    async def create(self, kind: str, name: str, namespace: str = "default", **obj: Any) -> Object:
        resource = builtin(kind)
        meta: Object = {"name": name, **obj.pop("metadata", {})}
        if resource.namespaced:
            meta["namespace"] = namespace
        return await self.client.create(resource, {"metadata": meta, **obj})

    async def until(self, what: Callable[[], Any], seconds: float = 10.0) -> None:
        """Wait for `what` to be true, looking at every change of the store."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not what():
            if asyncio.get_running_loop().time() > deadline:
                raise AssertionError("never became true")
            await asyncio.sleep(0.01)

    async def kubelet(self, stop: asyncio.Event) -> None:
        """Run every pod on node1; end deleted ones."""
        pods = builtin("Pod")
        changes: asyncio.Queue[Object] = asyncio.Queue()
        self.server.informers.informer(pods).add_handler(lambda old, new: changes.put_nowait(new) if new else None)
        number = 1
        while not stop.is_set():
            pod = await changes.get()
            meta = pod["metadata"]
            try:
                if meta.get("deletionTimestamp"):
                    if meta.get("deletionGracePeriodSeconds"):
                        await self.client.delete(pods, meta["name"], meta["namespace"], grace_period_seconds=0, uid=meta["uid"])
                elif not pod["spec"].get("nodeName"):
                    target = {"apiVersion": "v1", "kind": "Node", "name": "node1"}
                    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": meta["name"]}, "target": target}
                    await self.client.create(pods, binding, meta["namespace"], subresource="binding", name=meta["name"])
                elif pod["status"].get("phase") == "Pending":
                    number += 1
                    ended = "job-name" in meta.get("labels", {})
                    ready = {"type": "Ready", "status": "True", "lastTransitionTime": rfc3339(REAL_CLOCK.now())}
                    ip = f"10.42.{number // 250}.{number % 250 + 1}"
                    status = {
                        "phase": "Succeeded" if ended else "Running",
                        "conditions": [ready],
                        "podIP": ip,
                        "podIPs": [{"ip": ip}],
                    }
                    await self.client.patch(pods, meta["name"], meta["namespace"], {"status": status}, subresource="status")
            except ApiError as error:
                if error.code not in (404, 409):
                    raise


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    store = MemoryStore()
    await store.open()
    security = Open()
    server = ApiServer(store, authenticator=security, authorizer=security)
    client = RestClient(LocalTransport(server.handle, ADMIN), "test")
    registry = Registry()
    out = Cluster(server, client)
    async with Supervisor() as tasks:
        await tasks.start("server", server.run)
        # Who creates pods in a namespace that goes would keep it for ever.
        server.admission = AdmissionChain((NamespaceLifecycle(client, server.informers),))
        for name in ("default", "kube-system"):
            await out.create("Namespace", name)
        await out.create("Node", "node1", spec={}, status={"conditions": [{"type": "Ready", "status": "True"}]})

        async def controllers(ready: Callable[[], None]) -> None:
            await app.run(
                RestClient(LocalTransport(server.handle, ADMIN), "manager"), server.informers, REAL_CLOCK,
                ControllerConfig(ca_bundle="PEM"), ready, registry=registry, catalog=server.catalog,
            )  # fmt: skip

        await tasks.start("controllers", controllers)
        tasks.spawn("kubelet", out.kubelet(asyncio.Event()))
        yield out
        tasks.stop()
    await store.close()


def template(name: str, **spec: Any) -> Object:
    containers = [{"name": "c", "image": "i", "ports": [{"name": "web", "containerPort": 80}]}]
    return {"metadata": {"labels": {"app": name}}, "spec": {"containers": containers, **spec}}


Apply = Callable[..., Awaitable[Object]]


async def test_deployment_with_service_rolls_and_goes(cluster: Cluster) -> None:
    await cluster.create("Service", "web", spec={"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "web"}]})
    spec = {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": template("web")}
    await cluster.create("Deployment", "web", spec=spec)

    def ready() -> int:
        return cluster.cached("Deployment")[0].get("status", {}).get("availableReplicas", 0)

    def endpoints() -> list[Object]:
        return [e for s in cluster.cached("EndpointSlice") for e in s.get("endpoints") or () if e["conditions"]["ready"]]

    await cluster.until(lambda: ready() == 3 and len(endpoints()) == 3)
    patch = {"spec": {"template": {"metadata": {"annotations": {"v": "2"}}}}}
    await cluster.client.patch(builtin("Deployment"), "web", "default", patch)

    def rolled() -> bool:
        deployment = cluster.cached("Deployment")[0]
        status = deployment["status"]
        conditions = {c["type"]: c.get("reason") for c in status["conditions"]}
        new = (
            status["observedGeneration"] == deployment["metadata"]["generation"]
            and status.get("updatedReplicas") == 3 == status["replicas"]
        )
        return bool(new and conditions["Progressing"] == "NewReplicaSetAvailable" and not status.get("unavailableReplicas"))

    await cluster.until(rolled)
    events = [(e["reason"], e["source"]["component"]) for e in cluster.cached("Event") if e["involvedObject"]["name"] == "web"]
    assert ("ScalingReplicaSet", "deployment-controller") in events
    assert sorted(rs["spec"]["replicas"] for rs in cluster.cached("ReplicaSet")) == [0, 3]
    await cluster.client.delete(builtin("Deployment"), "web", "default", propagation="Foreground")
    await cluster.until(lambda: not cluster.cached("Deployment") and not cluster.cached("Pod"))
    await cluster.until(lambda: not endpoints())
    assert not cluster.cached("ReplicaSet")


async def test_a_namespace_comes_furnished_and_goes_whole(cluster: Cluster) -> None:
    await cluster.create("Namespace", "n")
    await cluster.until(lambda: cluster.cached("ServiceAccount", "n") and cluster.cached("ConfigMap", "n"))
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "a"}}, "template": template("a"), "serviceName": "a"}
    await cluster.create("StatefulSet", "a", "n", spec=spec)
    await cluster.create("DaemonSet", "d", "n", spec={"selector": {"matchLabels": {"app": "d"}}, "template": template("d")})
    await cluster.until(lambda: len(cluster.cached("Pod", "n")) == 3)
    await cluster.until(lambda: cluster.cached("StatefulSet")[0].get("status", {}).get("readyReplicas") == 2)
    await cluster.client.delete(builtin("Namespace"), "n")
    await cluster.until(lambda: all(ns["metadata"]["name"] != "n" for ns in cluster.cached("Namespace")))
    for kind in ("Pod", "StatefulSet", "DaemonSet", "ConfigMap", "ControllerRevision", "Event"):
        assert cluster.cached(kind, "n") == []


async def test_jobs_complete_and_let_their_pods_go(cluster: Cluster) -> None:
    pod = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}
    spec = {"parallelism": 2, "completions": 3, "completionMode": "Indexed", "template": pod}
    await cluster.create("Job", "j", spec=spec)

    def done() -> bool:
        status = cluster.cached("Job")[0].get("status", {})
        return any(c["type"] == "Complete" for c in status.get("conditions", []))

    await cluster.until(done)
    status = cluster.cached("Job")[0]["status"]
    assert status["succeeded"] == 3 and status["completedIndexes"] == "0-2"
    await cluster.client.delete(builtin("Job"), "j", "default", propagation="Background")
    await cluster.until(lambda: not cluster.cached("Pod"))


async def test_nodes_get_ranges_and_nothing_happens_when_nothing_happens(cluster: Cluster) -> None:
    await cluster.until(lambda: cluster.cached("Node")[0]["spec"].get("podCIDR") == "10.42.0.0/24")
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": template("web")}
    await cluster.create("Deployment", "web", spec=spec)
    await cluster.until(lambda: cluster.cached("Deployment")[0].get("status", {}).get("availableReplicas") == 1)
    await asyncio.sleep(0.5)
    before = cluster.server.hub.revision
    await asyncio.sleep(1.0)
    assert cluster.server.hub.revision == before


async def test_custom_resources_are_collected_and_go_with_their_namespace(cluster: Cluster) -> None:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    names = {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"}
    spec = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]}
    await cluster.create("CustomResourceDefinition", "things.example.com", spec=spec)
    await cluster.until(lambda: cluster.server.catalog.by_plural("example.com", "v1", "things") is not None)
    thing = cluster.server.catalog.by_plural("example.com", "v1", "things")
    assert thing is not None
    await cluster.create("Namespace", "n")
    await cluster.until(lambda: cluster.cached("ServiceAccount", "n"))
    owner = await cluster.create("ConfigMap", "owner", "n")
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    for name, owners in (("owned", [reference]), ("free", [])):
        meta = {"name": name, "namespace": "n", "ownerReferences": owners}
        await cluster.client.create(thing, {"metadata": meta})

    def things() -> list[str]:
        return [o["metadata"]["name"] for o in cluster.server.informers.informer(thing).list("n")]

    await cluster.until(lambda: len(things()) == 2)
    await asyncio.sleep(1.2)  # the collector may have had to look for the new resource once more
    await cluster.client.delete(builtin("ConfigMap"), "owner", "n")
    await cluster.until(lambda: things() == ["free"])
    await cluster.client.delete(builtin("Namespace"), "n")
    await cluster.until(lambda: all(ns["metadata"]["name"] != "n" for ns in cluster.cached("Namespace")))
    assert things() == []


async def test_watch_informers_see_what_the_servers_own_views_see(cluster: Cluster) -> None:
    informers = WatchInformers(RestClient(LocalTransport(cluster.server.handle, ADMIN), "agent"))
    pods = informers.informer(builtin("Pod"), field_selector="spec.nodeName=node1")
    maps = informers.informer(builtin("ConfigMap"), namespace="default")
    task = asyncio.create_task(informers.run())
    await asyncio.wait_for(asyncio.gather(pods.synced(), maps.synced()), 5)
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template("web")}
    await cluster.create("Deployment", "web", spec=spec)
    await cluster.create("ConfigMap", "a", data={"k": "1"})
    await cluster.create("ConfigMap", "b", "kube-system")

    def ready() -> int:
        return sum((pod["status"].get("phase") == "Running") for pod in pods.list())

    await cluster.until(lambda: ready() == 2 and maps.get("a", "default") is not None)
    assert maps.get("b", "kube-system") is None
    found = maps.get("a", "default")
    assert found is not None and "managedFields" not in found["metadata"]
    await cluster.client.delete(builtin("Deployment"), "web", "default", propagation="Background")
    await cluster.client.delete(builtin("ConfigMap"), "a", "default")
    await cluster.until(lambda: not list(pods.list()) and maps.get("a", "default") is None)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_load_balancer_gets_an_address_and_gives_it_back(cluster: Cluster) -> None:
    node, services = builtin("Node"), builtin("Service")
    addresses = [{"type": "InternalIP", "address": "192.0.2.1"}]
    await cluster.client.patch(node, "node1", "", {"status": {"addresses": addresses}}, subresource="status")
    for name in ("web", "other"):
        await cluster.create("Service", name, spec={"type": "LoadBalancer", "ports": [{"port": 80}]})

    def status(name: str) -> Object:
        found = next((s for s in cluster.cached("Service") if s["metadata"]["name"] == name), {})
        return found.get("status") or {}

    await cluster.until(lambda: status("web")["loadBalancer"] == {"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}]})
    await cluster.until(lambda: [c["reason"] for c in status("other").get("conditions", ())] == ["PortConflict"])
    # The first one is none any more: its address, its condition and its finalizer go, and the other one gets the port.
    await cluster.client.patch(services, "web", "default", {"spec": {"type": "ClusterIP"}})
    await cluster.until(lambda: status("web") == {"loadBalancer": {}})
    await cluster.until(lambda: status("other")["loadBalancer"] == {"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}]})
    for name in ("web", "other"):
        await cluster.client.delete(services, name, "default")
    await cluster.until(lambda: not [s for s in cluster.cached("Service") if s["metadata"]["name"] in ("web", "other")])
