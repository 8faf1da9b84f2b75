"""DaemonSet: one pod on every node that suits.

Watches: DaemonSets (own key), Pods (their set; orphans), Nodes (all sets, when what placement depends on changes),
ControllerRevisions (their set). Owns: `should_run`, `plan`, `status_of` (pure). Never does: bind pods; each is pinned to its
node by an affinity and goes through the scheduler. Source: upstream pkg/controller/daemon.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from k1s.api import meta
from k1s.api.catalog import builtin
from k1s.api.clone import clone
from k1s.api.node_affinity import allows_pod
from k1s.api.selectors import LabelSelector, labels_from
from k1s.base.backoff import Backoff
from k1s.client.interface import Object
from k1s.server.controllers import history, keys, nodes, pods
from k1s.server.controllers.claims import apply_claims, claim
from k1s.server.controllers.deployment.rolling import scaled
from k1s.server.controllers.reconciler import Context, Reconciler, Watch, same
from k1s.server.controllers.workload import PodMaker

DAEMON_SET, POD, NODE, REVISION = builtin("DaemonSet"), builtin("Pod"), builtin("Node"), history.CONTROLLER_REVISION
FAILED = Backoff(1.0, 900.0)
_GENERATION = "deprecated.daemonset.template.generation"
_ALWAYS = (
    (nodes.NOT_READY, "NoExecute"),
    (nodes.UNREACHABLE, "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    (nodes.UNSCHEDULABLE, "NoSchedule"),
)


def tolerations_of(spec: Object) -> list[Object]:
    """The template's, and those every daemon has."""
    wanted = [*_ALWAYS, *([("node.kubernetes.io/network-unavailable", "NoSchedule")] if spec.get("hostNetwork") else [])]
    own: list[Object] = list(spec.get("tolerations") or ())
    return own + [{"key": k, "operator": "Exists", "effect": e} for k, e in wanted]


def should_run(daemon: Object, node: Object) -> tuple[bool, bool]:
    """(a pod should be started here, a pod that is here may stay)."""
    spec = daemon["spec"]["template"].get("spec") or {}
    pinned = spec.get("nodeName")
    if (pinned and pinned != meta.name(node)) or not allows_pod(spec, node):
        return False, False
    tolerations, taints = tolerations_of(spec), nodes.taints_of(node)
    may_stay = not nodes.untolerated(tolerations, taints, ("NoExecute",))
    return may_stay and not nodes.untolerated(tolerations, taints, ("NoSchedule",)), may_stay


def node_of(pod: Object) -> str:
    """Where the pod is, or is pinned to."""
    spec = pod.get("spec") or {}
    if spec.get("nodeName"):
        return str(spec["nodeName"])
    required = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    ) or {}
    for term in required.get("nodeSelectorTerms") or ():
        for requirement in term.get("matchFields") or ():
            if requirement["key"] == "metadata.name" and requirement.get("values"):
                return str(requirement["values"][0])
    return ""


@dataclass(slots=True)
class Plan:
    create: list[str] = field(default_factory=list)  # node names
    delete: list[Object] = field(default_factory=list)
    failed: list[Object] = field(default_factory=list)  # those of `delete` that had failed


def by_node(mine: Iterable[Object]) -> dict[str, list[Object]]:
    out: dict[str, list[Object]] = {}
    for pod in mine:
        out.setdefault(node_of(pod), []).append(pod)
    return out


def plan(daemon: Object, all_nodes: Sequence[Object], mine: Sequence[Object], current: str, now: float) -> Plan:
    """`current`: the hash of the current template."""
    out = Plan()
    placed = by_node(mine)
    running: dict[str, list[Object]] = {}
    for node in all_nodes:
        name = meta.name(node)
        here = placed.pop(name, [])
        start, stay = should_run(daemon, node)
        living = [pod for pod in here if not meta.is_deleting(pod)]
        if not stay:
            out.delete += living
            continue
        out.failed += [pod for pod in living if pods.phase(pod) == "Failed"]
        good = [pod for pod in living if not pods.is_terminal(pod)]
        out.delete += [pod for pod in living if pods.is_terminal(pod)]
        keep, extra = _without_doubles(daemon, good, current)
        out.delete += extra
        if start and not here:
            out.create.append(name)
        if start:
            running[name] = keep
    # Pods pinned to nodes that are gone; pod GC ends those that were running there.
    out.delete += [
        pod for here in placed.values() for pod in here if not meta.is_deleting(pod) and not pod["spec"].get("nodeName")
    ]
    _roll(daemon, running, current, now, out)
    return out


def _is_current(pod: Object, current: str) -> bool:
    return meta.labels(pod).get(history.HASH_LABEL) == current


def _without_doubles(daemon: Object, good: list[Object], current: str) -> tuple[list[Object], list[Object]]:
    """With surge a node may have one old and one new pod; otherwise one, the oldest."""
    ordered = sorted(good, key=lambda p: (not pods.is_ready(p), p["metadata"].get("creationTimestamp") or "", meta.name(p)))
    if _limits(daemon, 1)[0]:
        new, old = ([p for p in ordered if _is_current(p, current) is flag] for flag in (True, False))
        return [*new[:1], *old[:1]], [*new[1:], *old[1:]]
    return ordered[:1], ordered[1:]


def _limits(daemon: Object, total: int) -> tuple[int, int]:
    """(maxSurge, maxUnavailable); both 0 if pods are replaced only when someone deletes them."""
    strategy = daemon["spec"].get("updateStrategy") or {}
    if strategy.get("type", "RollingUpdate") != "RollingUpdate":
        return 0, 0
    rolling = strategy.get("rollingUpdate") or {}
    surge = scaled(rolling.get("maxSurge", 0), total, round_up=True)
    unavailable = scaled(rolling.get("maxUnavailable", 1), total, round_up=True)
    return surge, unavailable if surge or unavailable else 1


def _is_available(daemon: Object, pod: Object, now: float) -> bool:
    return pods.available_in(pod, daemon["spec"].get("minReadySeconds", 0), now) == 0


def _roll(daemon: Object, running: Mapping[str, list[Object]], current: str, now: float, out: Plan) -> None:
    surge, unavailable = _limits(daemon, len(running))
    if not surge and not unavailable:
        return
    free: list[Object] = []
    candidates: list[Object] = []
    down = surging = 0
    waiting: list[str] = []
    for name, here in running.items():
        new = next((p for p in here if _is_current(p, current)), None)
        old = next((p for p in here if not _is_current(p, current)), None)
        new_up = new is not None and _is_available(daemon, new, now)
        if old is None:
            down += not new_up
        elif new is not None:
            if new_up:
                free.append(old)
            else:
                surging += 1
        elif not _is_available(daemon, old, now):
            free.append(old)
            down += 1
        elif surge:
            waiting.append(name)
        else:
            candidates.append(old)
    out.create += waiting[: max(surge - surging, 0)]
    out.delete += free + candidates[: max(unavailable - down, 0)]


def status_of(daemon: Object, all_nodes: Sequence[Object], mine: Sequence[Object], current: str, now: float) -> Object:
    placed = by_node(mine)
    desired = scheduled = misplaced = ready = available = updated = 0
    for node in all_nodes:
        start, _ = should_run(daemon, node)
        here = [pod for pod in placed.get(meta.name(node), ()) if not meta.is_deleting(pod)]
        if not start:
            misplaced += bool(here)
            continue
        desired += 1
        if not here:
            continue
        scheduled += 1
        # The oldest stands for the node.
        first = min(here, key=lambda p: (p["metadata"].get("creationTimestamp") or "", meta.name(p)))
        ready += pods.is_ready(first)
        available += _is_available(daemon, first, now)
        updated += _is_current(first, current)
    status = {
        "currentNumberScheduled": scheduled, "numberMisscheduled": misplaced, "desiredNumberScheduled": desired,
        "numberReady": ready, "observedGeneration": meta.generation(daemon), "updatedNumberScheduled": updated,
        "numberAvailable": available, "numberUnavailable": desired - available,
    }  # fmt: skip
    before = daemon.get("status") or {}
    kept = {k: before[k] for k in ("collisionCount", "conditions") if before.get(k)}
    # Fields that upstream always writes, and those it leaves out when they are 0.
    always = ("currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady")
    return {**{k: v for k, v in status.items() if v or k in always}, **kept}


def new_pod(daemon: Object, node: str, current: str) -> Object:
    pod = pods.from_template(daemon["spec"]["template"], daemon, DAEMON_SET)
    labels = pod["metadata"].setdefault("labels", {})
    labels[history.HASH_LABEL] = current
    labels["pod-template-generation"] = meta.annotations(daemon).get(_GENERATION) or str(meta.generation(daemon))
    spec = pod["spec"]
    spec["tolerations"] = clone(tolerations_of(spec))
    pin = {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]}
    spec.setdefault("affinity", {}).setdefault("nodeAffinity", {})["requiredDuringSchedulingIgnoredDuringExecution"] = pin
    return pod


class DaemonSetController(Reconciler):
    name = "daemon-set"
    workers = 2

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.daemons, self.pods, self.nodes = self.cache(DAEMON_SET), self.cache(POD), self.cache(NODE)
        self.revisions = self.cache(REVISION)
        keys.index_ownership(self.pods)
        keys.index_ownership(self.revisions)
        # (set, node) -> (failed pods in a row, when the next may be replaced); only where pods failed.
        self._failing: dict[tuple[str, str], tuple[int, float]] = {}
        self.maker = PodMaker(self, DAEMON_SET, self.daemons, self.selector)

    def watches(self) -> Iterable[Watch]:
        return (
            (DAEMON_SET, keys.own_key),
            (POD, self.maker.pod_changed),
            (NODE, self._node_changed),
            (REVISION, keys.controller_key(DAEMON_SET)),
        )

    def selector(self, daemon: Object) -> LabelSelector:
        return labels_from(daemon["spec"].get("selector"))

    def _node_changed(self, old: Object | None, new: Object | None) -> Iterable[str]:
        def placement(node: Object | None) -> tuple[object, ...] | None:
            return (meta.labels(node), nodes.taints_of(node), meta.uid(node)) if node is not None else None

        return [meta.key(d) for d in self.daemons.list()] if placement(old) != placement(new) else ()

    async def reconcile(self, key: str) -> float | None:
        namespace, name = meta.split_key(key)
        daemon = self.daemons.get(name, namespace)
        if daemon is None:
            self.maker.forget(key)
            self._failing = {k: v for k, v in self._failing.items() if k[0] != key}
            return None
        held = 0.0
        claims = claim(daemon, self.selector(daemon), keys.owned(self.pods, daemon), keys.orphans(self.pods, namespace))
        mine = await apply_claims(self.client, claims, daemon, DAEMON_SET, POD)
        in_use = {f"{name}-{meta.labels(pod).get(history.HASH_LABEL, '')}" for pod in mine}
        choice = history.choose(daemon, DAEMON_SET, list(keys.owned(self.revisions, daemon)), in_use)
        revision = await self.maker.revision(daemon, choice)
        current = history.hash_of(revision)
        everywhere, now = list(self.nodes.list()), self.clock.now()
        wait = self.maker.wait(key)
        if not wait and not meta.is_deleting(daemon):
            todo = plan(daemon, everywhere, mine, current, now)
            held = self._hold_failed(key, daemon, todo)
            await self.maker.delete(key, daemon, todo.delete)
            await self.maker.create(key, daemon, [new_pod(daemon, node, current) for node in todo.create])
        status = status_of(daemon, everywhere, mine, current, now)
        if not same(status, daemon.get("status")):
            await self.client.update(DAEMON_SET, {**daemon, "status": status}, subresource="status")
        minimum = daemon["spec"].get("minReadySeconds", 0)
        waits = [w for pod in mine if (w := pods.available_in(pod, minimum, now))]
        return min(filter(None, (*waits, wait, held)), default=None)

    def _hold_failed(self, key: str, daemon: Object, todo: Plan) -> float:
        """Failed pods of one node are replaced ever more slowly; returns the seconds until the next may go."""
        now = self.clock.monotonic()
        waits = []
        for pod in todo.failed:
            slot = (key, node_of(pod))
            count, due = self._failing.get(slot, (0, 0.0))
            if due > now:
                todo.delete.remove(pod)
                waits.append(due - now)
                continue
            # A node that behaved for long starts again from the shortest delay.
            count = 1 if now - due > FAILED.maximum else count + 1
            self._failing[slot] = (count, now + FAILED.delay(count))
            text = f"Found failed daemon pod {meta.key(pod)} on node {node_of(pod)}, will try to kill it"
            self.events.event(daemon, "Warning", "FailedDaemonPod", text)
        return min(waits, default=0.0)
