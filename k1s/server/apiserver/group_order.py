"""The order of groups and versions: which of two a client prefers.

Owns: the priorities of the built-in groups and the order of version names. Called by: discovery, aggregation.
Never does: know which groups are served. Source: upstream's pkg/controlplane/apiserver (API service priorities) and
apimachinery/pkg/version.CompareKubeAwareVersionStrings.
"""

from __future__ import annotations

import re

# (group, version) -> (groupPriorityMinimum, versionPriority)
_PRIORITIES: dict[tuple[str, str], tuple[int, int]] = {
    ("", "v1"): (18000, 1),
    ("apps", "v1"): (17800, 15),
    ("events.k8s.io", "v1"): (17750, 15),
    ("authentication.k8s.io", "v1"): (17700, 15),
    ("authorization.k8s.io", "v1"): (17600, 15),
    ("autoscaling", "v1"): (17500, 15),
    ("autoscaling", "v2"): (17500, 30),
    ("batch", "v1"): (17400, 15),
    ("certificates.k8s.io", "v1"): (17300, 15),
    ("networking.k8s.io", "v1"): (17200, 15),
    ("policy", "v1"): (17100, 15),
    ("rbac.authorization.k8s.io", "v1"): (17000, 15),
    ("storage.k8s.io", "v1"): (16800, 15),
    ("apiextensions.k8s.io", "v1"): (16700, 15),
    ("admissionregistration.k8s.io", "v1"): (16700, 15),
    ("scheduling.k8s.io", "v1"): (16600, 15),
    ("coordination.k8s.io", "v1"): (16500, 15),
    ("node.k8s.io", "v1"): (16300, 15),
    ("discovery.k8s.io", "v1"): (16200, 15),
    ("flowcontrol.apiserver.k8s.io", "v1"): (16100, 21),
    ("resource.k8s.io", "v1"): (15900, 9),
    ("storagemigration.k8s.io", "v1"): (15800, 9),
}
_CUSTOM = (1000, 100)
# The aggregator's own group stands before those it aggregates, and has no APIService.
OWN_GROUP = "apiregistration.k8s.io"

_VERSION = re.compile(r"^v([1-9][0-9]*)(?:(alpha|beta)([1-9][0-9]*))?$")
_STAGES = {None: 2, "beta": 1, "alpha": 0}


def priority(group: str, version: str) -> tuple[int, int]:
    """(of the group, of the version in it); custom resources share one."""
    if group == OWN_GROUP:
        return (20000, 1)
    return _PRIORITIES.get((group, version), _CUSTOM)


def version_key(version: str) -> tuple[int, int, int, int, str]:
    """Sorts v2, v1, v1beta2, v1beta1, v1alpha1, anything else by name."""
    match = _VERSION.match(version)
    if match is None:
        return (1, 0, 0, 0, version)
    major, stage, minor = match.groups()
    return (0, -_STAGES[stage], -int(major), -int(minor or 0), "")
