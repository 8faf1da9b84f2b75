"""The controller of admission policies' status, in front of the real API server."""

from __future__ import annotations

from tests.wire.test_controllers import Cluster, cluster  # noqa: F401

RULE = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"]}


async def test_expressions_that_cannot_be_right_are_warned_of(cluster: Cluster) -> None:  # noqa: F811
    await cluster.create(
        "ValidatingAdmissionPolicy",
        "p",
        spec={
            "matchConstraints": {"resourceRules": [RULE]},
            "validations": [{"expression": "object.spec.replicas > '1'"}, {"expression": "object.spec.replicas > 1"}],
        },
    )
    await cluster.until(
        lambda: [p for p in cluster.cached("ValidatingAdmissionPolicy") if (p.get("status") or {}).get("typeChecking")]
    )
    (policy,) = cluster.cached("ValidatingAdmissionPolicy")
    (warning,) = policy["status"]["typeChecking"]["expressionWarnings"]
    assert policy["status"]["observedGeneration"] == 1 and warning["fieldRef"] == "spec.validations[0].expression"
    assert "found no matching overload for '_>_' applied to '(int, string)'" in warning["warning"]
