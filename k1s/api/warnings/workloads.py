"""What holds a pod template: its template's warnings, and names that make bad hostnames.

Called by: table.py. Never does: the pod itself (pods.py).
Source: upstream pkg/registry/{apps,batch,core}/*/strategy.go.
"""

from __future__ import annotations

import json

from k1s.api import names
from k1s.api.meta import Object
from k1s.api.warnings.pods import template
from k1s.api.warnings.volumes import claim_spec

_MANY_COMPLETIONS, _MUCH_PARALLELISM = 100_000, 10_000
_TOO_MANY = (
    "In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, "
    "Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
)
_TIME_ZONE = (
    "is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
)


def _hostname(obj: Object, used: str = "Pod names and hostnames") -> list[str]:
    messages = names.dns1123_label((obj.get("metadata") or {}).get("name") or "")
    if not messages:
        return []
    text = f"this is used in {used}, which can result in surprising behavior; a DNS label is recommended"
    return [f"metadata.name: {text}: [{' '.join(messages)}]"]


def _unchanged(obj: Object, old: Object | None) -> bool:
    """An update that did not touch what moves the generation is not warned of again."""
    if old is None:
        return False
    return (obj.get("metadata") or {}).get("generation") == (old.get("metadata") or {}).get("generation")


def deployment(obj: Object, old: Object | None) -> list[str]:
    """Deployments and replica sets."""
    if _unchanged(obj, old):
        return []
    out = _hostname(obj) if old is None else []
    return out + template("spec.template.", (obj.get("spec") or {}).get("template"))


def replication_controller(obj: Object, old: Object | None) -> list[str]:
    if _unchanged(obj, old):
        return []
    out = _hostname(obj) if old is None else []
    return out + template("template.", (obj.get("spec") or {}).get("template"))


def daemon_set(obj: Object, old: Object | None) -> list[str]:
    return [] if _unchanged(obj, old) else template("spec.template.", (obj.get("spec") or {}).get("template"))


def stateful_set(obj: Object, old: Object | None) -> list[str]:
    spec = obj.get("spec") or {}
    out = [] if _unchanged(obj, old) else template("spec.template.", spec.get("template"))
    for index, claim in enumerate(spec.get("volumeClaimTemplates") or ()):
        out += claim_spec(f"spec.volumeClaimTemplates[{index}].spec", claim.get("spec") or {})
    if (spec.get("revisionHistoryLimit") or 0) < 0:
        text = "a negative value retains all historical revisions; a value >= 0 is recommended"
        out.append(f"spec.revisionHistoryLimit: {text}")
    return out


def pod_template(obj: Object, old: Object | None) -> list[str]:
    return [] if _unchanged(obj, old) else template("template.", obj.get("template"))


def _job_spec(field: str, spec: Object) -> list[str]:
    out = []
    many = (spec.get("completions") or 0) > _MANY_COMPLETIONS and (spec.get("parallelism") or 0) > _MUCH_PARALLELISM
    if spec.get("completionMode") == "Indexed" and many:
        out.append(f"{field}: {_TOO_MANY}")
    return out + template(f"{field}.template.", spec.get("template"))


def job(obj: Object, old: Object | None) -> list[str]:
    if _unchanged(obj, old):
        return []
    out = _hostname(obj) if old is None else []
    return out + _job_spec("spec", obj.get("spec") or {})


def cron_job(obj: Object, old: Object | None) -> list[str]:
    spec = obj.get("spec") or {}
    out = _hostname(obj) if old is None else []
    schedule = spec.get("schedule") or ""
    if "TZ" in schedule:
        out.append(f"spec.schedule: CRON_TZ or TZ used in {json.dumps(schedule)} {_TIME_ZONE}")
    if not _unchanged(obj, old):
        out += _job_spec("spec.jobTemplate.spec", (spec.get("jobTemplate") or {}).get("spec") or {})
    return out
