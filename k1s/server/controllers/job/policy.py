"""spec.podFailurePolicy and spec.successPolicy.

Owns: what a failed pod means (`judge`), whether the succeeded indexes are enough (`is_success`), both pure.
Called by: job/plan. Never does: I/O. Source: upstream pkg/controller/job/{pod_failure_policy,success_policy}.go.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from k1s.api import meta
from k1s.client.interface import Object
from k1s.server.controllers.job import indexes


@dataclass(frozen=True, slots=True)
class Verdict:
    """`action`: Count, Ignore, FailIndex or FailJob; `message` for FailJob."""

    action: str = "Count"
    message: str = ""


def judge(job: Object, pod: Object) -> Verdict:
    """The first rule that fits decides; without one the failure counts."""
    rules = (job["spec"].get("podFailurePolicy") or {}).get("rules") or ()
    key = meta.key(pod)
    for number, rule in enumerate(rules):
        codes = rule.get("onExitCodes")
        if codes:
            for name, code in _exit_codes(pod, codes.get("containerName")):
                if (code in codes["values"]) == (codes["operator"] == "In"):
                    rule_text = f"matching {rule['action']} rule at index {number}"
                    text = f"Container {name} for pod {key} failed with exit code {code} {rule_text}"
                    return Verdict(rule["action"], text)
        for wanted in rule.get("onPodConditions") or ():
            found = meta.condition(pod, wanted["type"])
            if found is not None and found.get("status") == (wanted.get("status") or "True"):
                text = f"Pod {key} has condition {wanted['type']} matching {rule['action']} rule at index {number}"
                return Verdict(rule["action"], text)
    return Verdict()


def _exit_codes(pod: Object, container: str | None) -> Iterator[tuple[str, int]]:
    """The exit codes other than 0 of the containers that count."""
    status = pod.get("status") or {}
    for entry in (*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())):
        ended = (entry.get("state") or {}).get("terminated")
        if ended and ended.get("exitCode") and container in (None, "", entry.get("name")):
            yield entry["name"], ended["exitCode"]


def is_success(job: Object, succeeded: set[int]) -> str:
    """The message of the success policy's rule that holds, or ""."""
    total = job["spec"].get("completions") or 0
    for number, rule in enumerate((job["spec"].get("successPolicy") or {}).get("rules") or ()):
        wanted = indexes.parse(rule.get("succeededIndexes"), total) if rule.get("succeededIndexes") else None
        hit = succeeded if wanted is None else succeeded & wanted
        needed = rule.get("succeededCount")
        if needed is None:
            needed = len(wanted or ())
        if needed and len(hit) >= needed:
            return f"Matched rules at index {number}"
    return ""
