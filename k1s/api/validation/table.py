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
from k1s.api.validation import apps, batch, claims, object_meta, pod, pod_update
from k1s.api.validation.rules import Errors

Create = Callable[[Errors, Object], None]
Update = Callable[[Errors, Object, Object], None]

_CREATE: dict[tuple[str, str], Create] = {
    ("", "PersistentVolumeClaim"): claims.create,
    ("", "Pod"): pod.create,
    ("", "PodTemplate"): pod.pod_template,
    ("", "ReplicationController"): apps.replication_controller,
    ("apps", "ControllerRevision"): apps.controller_revision,
    ("apps", "DaemonSet"): apps.daemon_set,
    ("apps", "Deployment"): apps.deployment,
    ("apps", "ReplicaSet"): apps.replica_set,
    ("apps", "StatefulSet"): apps.stateful_set,
    ("batch", "CronJob"): batch.cron_job,
    ("batch", "Job"): batch.job,
}
# Kinds not here are validated anew on update, nothing in them is fixed.
_UPDATE: dict[tuple[str, str], Update] = {
    ("", "PersistentVolumeClaim"): claims.update,
    ("", "Pod"): pod_update.update,
    ("apps", "ControllerRevision"): apps.controller_revision_update,
    ("apps", "DaemonSet"): apps.daemon_set_update,
    ("apps", "Deployment"): apps.deployment_update,
    ("apps", "ReplicaSet"): apps.replica_set_update,
    ("apps", "StatefulSet"): apps.stateful_set_update,
    ("batch", "CronJob"): batch.cron_job_update,
    ("batch", "Job"): batch.job_update,
}
_STATUS: dict[tuple[str, str], Update] = {
    ("", "ReplicationController"): apps.replicas_status,
    ("apps", "DaemonSet"): apps.daemon_set_status,
    ("apps", "Deployment"): apps.replicas_status,
    ("apps", "ReplicaSet"): apps.replicas_status,
    ("apps", "StatefulSet"): apps.replicas_status,
    ("batch", "Job"): batch.job_status,
}
_SUBRESOURCE: dict[tuple[str, str, str], Update] = {
    ("", "Pod", "ephemeralcontainers"): pod_update.ephemeral_containers,
    ("", "Pod", "resize"): pod_update.resize,
}


def validate_create(resource: Resource, obj: Object) -> list[FieldError]:
    """What is wrong with a new object."""
    errs: Errors = []
    if resource.persisted:
        object_meta.validate(errs, resource, obj)
    _content(errs, resource, obj)
    return errs


def validate_update(resource: Resource, obj: Object, old: Object) -> list[FieldError]:
    """What is wrong with `obj` as the successor of `old`."""
    errs: Errors = []
    object_meta.validate_update(errs, resource, obj, old)
    update = _UPDATE.get((resource.group, resource.kind))
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
    """The same for pods/ephemeralcontainers and pods/resize; a subresource without rules of its own counts as status."""
    check = _SUBRESOURCE.get((resource.group, resource.kind, subresource))
    if check is None:
        return validate_status_update(resource, obj, old)
    errs: Errors = []
    object_meta.validate_update(errs, resource, obj, old)
    check(errs, obj, old)
    return errs


def _content(errs: Errors, resource: Resource, obj: Object) -> None:
    check = _CREATE.get((resource.group, resource.kind))
    if check is not None and not resource.custom:
        check(errs, obj)
