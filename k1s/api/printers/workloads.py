"""Deployments, replica sets, daemon sets, stateful sets, jobs and the like.

Called by: api/table.py. Never does: pods (pods.py).
"""

from __future__ import annotations

from typing import Any

from k1s.api.meta import Object
from k1s.api.printers.columns import (
    AGE,
    CONTAINERS,
    IMAGES,
    NAME,
    NONE,
    SELECTOR,
    Printer,
    age,
    boolean,
    column,
    format_labels,
    format_selector,
    human_duration,
    integer,
    layout_containers,
    metadata,
    name,
    seconds,
    since,
    spec,
    status,
    template_containers,
    true_condition,
)

_WIDE = (CONTAINERS, IMAGES, SELECTOR)


def _count(holder: Object, key: str) -> int:
    return int(holder.get(key) or 0)


def _deployment(obj: Object, now: float) -> list[Any]:
    state = status(obj)
    return [
        name(obj),
        f"{_count(state, 'readyReplicas')}/{_count(spec(obj), 'replicas')}",
        _count(state, "updatedReplicas"),
        _count(state, "availableReplicas"),
        age(obj, now),
        *template_containers(obj),
        format_selector(spec(obj).get("selector")),
    ]


def _counted(obj: Object, now: float) -> list[Any]:
    state = status(obj)
    return [
        name(obj),
        _count(spec(obj), "replicas"),
        _count(state, "replicas"),
        _count(state, "readyReplicas"),
        age(obj, now),
        *template_containers(obj),
    ]


def _replica_set(obj: Object, now: float) -> list[Any]:
    return [*_counted(obj, now), format_selector(spec(obj).get("selector"))]


def _replication_controller(obj: Object, now: float) -> list[Any]:
    return [*_counted(obj, now), format_labels(spec(obj).get("selector"))]


_DAEMON_COUNTS = (
    "desiredNumberScheduled",
    "currentNumberScheduled",
    "numberReady",
    "updatedNumberScheduled",
    "numberAvailable",
)


def _daemon_set(obj: Object, now: float) -> list[Any]:
    state = status(obj)
    pod_spec = (spec(obj).get("template") or {}).get("spec") or {}
    return [
        name(obj),
        *(_count(state, key) for key in _DAEMON_COUNTS),
        format_labels(pod_spec.get("nodeSelector")),
        age(obj, now),
        *template_containers(obj),
        format_selector(spec(obj).get("selector")),
    ]


def _stateful_set(obj: Object, now: float) -> list[Any]:
    ready = f"{_count(status(obj), 'readyReplicas')}/{_count(spec(obj), 'replicas')}"
    return [name(obj), ready, age(obj, now), *template_containers(obj)]


def _controller_revision(obj: Object, now: float) -> list[Any]:
    owner = next((o for o in metadata(obj).get("ownerReferences") or () if o.get("controller")), None)
    controller = NONE
    if owner:
        group = str(owner.get("apiVersion") or "").rpartition("/")[0]
        kind = str(owner.get("kind") or "").lower()
        controller = f"{kind}.{group}/{owner.get('name')}" if group else f"{kind}/{owner.get('name')}"
    return [name(obj), controller, obj.get("revision") or 0, age(obj, now)]


def _completions(obj: Object) -> str:
    succeeded = _count(status(obj), "succeeded")
    wanted = spec(obj).get("completions")
    if wanted is not None:
        return f"{succeeded}/{wanted}"
    parallelism = _count(spec(obj), "parallelism")
    return f"{succeeded}/1 of {parallelism}" if parallelism > 1 else f"{succeeded}/1"


def _job_status(obj: Object) -> str:
    for kind in ("Complete", "Failed"):
        if true_condition(obj, kind):
            return kind
    if metadata(obj).get("deletionTimestamp"):
        return "Terminating"
    for kind in ("Suspended", "FailureTarget", "SuccessCriteriaMet"):
        if true_condition(obj, kind):
            return kind
    return "Running"


def _job_duration(obj: Object, now: float) -> str:
    start = seconds(status(obj).get("startTime"))
    if start is None:
        return ""
    end = seconds(status(obj).get("completionTime"))
    return human_duration((now if end is None else end) - start)


def _job(obj: Object, now: float) -> list[Any]:
    return [
        name(obj),
        _job_status(obj),
        _completions(obj),
        _job_duration(obj, now),
        age(obj, now),
        *template_containers(obj),
        format_selector(spec(obj).get("selector")),
    ]


def _cron_job(obj: Object, now: float) -> list[Any]:
    last = status(obj).get("lastScheduleTime")
    job_spec = (spec(obj).get("jobTemplate") or {}).get("spec") or {}
    pod_spec = (job_spec.get("template") or {}).get("spec") or {}
    return [
        name(obj),
        spec(obj).get("schedule") or "",
        spec(obj).get("timeZone") or NONE,
        boolean(spec(obj).get("suspend")),
        len(status(obj).get("active") or ()),
        since(last, now) if last else NONE,
        age(obj, now),
        *layout_containers(pod_spec.get("containers")),
        format_selector(job_spec.get("selector")),
    ]


_REPLICAS = (
    NAME,
    integer("Desired", "The number of pods that are wanted."),
    integer("Current", "The number of pods there are."),
    integer("Ready", "The number of pods that are ready."),
    AGE,
    *_WIDE,
)

PRINTERS = {
    ("apps", "Deployment"): Printer(
        (
            NAME,
            column("Ready", "Number of the pod with ready state"),
            column("Up-to-date", "Number of pods that have the wanted template."),
            column("Available", "Number of pods that have been ready for at least minReadySeconds."),
            AGE,
            *_WIDE,
        ),
        _deployment,
    ),
    ("apps", "ReplicaSet"): Printer(_REPLICAS, _replica_set),
    ("", "ReplicationController"): Printer(_REPLICAS, _replication_controller),
    ("apps", "DaemonSet"): Printer(
        (
            NAME,
            integer("Desired", "The number of nodes that should run the daemon pod."),
            integer("Current", "The number of nodes that run at least one daemon pod and should."),
            integer("Ready", "The number of nodes whose daemon pod is ready."),
            integer("Up-to-date", "The number of nodes that run the updated daemon pod."),
            integer("Available", "The number of nodes whose daemon pod is available."),
            column("Node Selector", "Labels a node must have to run the daemon pod."),
            AGE,
            *_WIDE,
        ),
        _daemon_set,
    ),
    ("apps", "StatefulSet"): Printer(
        (NAME, column("Ready", "Number of the pod with ready state"), AGE, CONTAINERS, IMAGES), _stateful_set
    ),
    ("apps", "ControllerRevision"): Printer(
        (
            NAME,
            column("Controller", "Controller of the object"),
            column("Revision", "The revision of the state this object holds."),
            AGE,
        ),
        _controller_revision,
    ),
    ("batch", "Job"): Printer(
        (
            NAME,
            column("Status", "Status of the job."),
            column("Completions", "Pods that succeeded, of those wanted."),
            column("Duration", "Time required to complete the job."),
            AGE,
            *_WIDE,
        ),
        _job,
    ),
    ("batch", "CronJob"): Printer(
        (
            NAME,
            column("Schedule", "The schedule in Cron format."),
            column("Timezone", "The time zone of the schedule."),
            column("Suspend", "Whether further runs are suspended.", type="boolean"),
            integer("Active", "Number of jobs that run now."),
            column("Last Schedule", "When a job was last scheduled."),
            AGE,
            *_WIDE,
        ),
        _cron_job,
    ),
}
