"""Jobs and cron jobs: the selector that ties a job to its pods.

Owns: Job, CronJob. Called by: strategies/table. Never does: run anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from k1s.server.apiserver.strategies.base import Strategy

if TYPE_CHECKING:
    from k1s.server.apiserver.call import Call

Object = dict[str, Any]

_UID_LABELS = ("batch.kubernetes.io/controller-uid", "controller-uid")
_NAME_LABELS = ("batch.kubernetes.io/job-name", "job-name")


class Job(Strategy):
    """Without manualSelector a job selects its pods by its own uid, so that no two jobs share any."""

    generation_fields = ("spec",)
    orphans_by_default = True

    def prepare_create(self, call: Call, obj: Object) -> None:
        super().prepare_create(call, obj)
        spec = obj.get("spec")
        if not isinstance(spec, dict) or spec.get("manualSelector") or not isinstance(spec.get("template"), dict):
            return
        meta = obj["metadata"]
        if not meta.get("name") and meta.get("generateName"):
            # The labels carry the final name, so it has to be known now.
            meta["name"] = call.server.generated_name(meta["generateName"])
        template = spec["template"]
        labels = dict((template.get("metadata") or {}).get("labels") or {})
        # What the user put there stays: if it is not the same, validation refuses the job.
        for key in _NAME_LABELS:
            labels.setdefault(key, meta.get("name", ""))
        for key in _UID_LABELS:
            labels.setdefault(key, meta["uid"])
        template["metadata"] = {**(template.get("metadata") or {}), "labels": labels}
        selector = dict(spec.get("selector") or {})
        selector["matchLabels"] = {_UID_LABELS[0]: meta["uid"], **(selector.get("matchLabels") or {})}
        spec["selector"] = selector


class CronJob(Strategy):
    generation_fields = ("spec",)
