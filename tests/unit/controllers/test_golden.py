"""Golden pairs of the pure plans: tests/golden/controllers/<case>.input.yaml -> .output.yaml.

An input names its plan and its arguments. K1S_UPDATE_GOLDEN=1 writes the outputs anew: read the difference before you commit it.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from k1s.base.clock import parse_rfc3339
from k1s.server.controllers.deployment import plan as deployment
from k1s.server.controllers.endpointslice import plan as endpointslice
from k1s.server.controllers.job.plan import plan as job
from k1s.server.controllers.ranking import deletion_order
from k1s.server.controllers.service_lb_plan import BalancerConfig
from k1s.server.controllers.service_lb_plan import plan as service_lb
from k1s.server.controllers.service_lb_pool import parse_pools
from k1s.server.controllers.statefulset.plan import plan as statefulset

GOLDEN = Path(__file__).parents[2] / "golden" / "controllers"
CASES = sorted(p.name.removesuffix(".input.yaml") for p in GOLDEN.glob("*.input.yaml"))


def names(objects: list[dict[str, Any]]) -> list[str]:
    return [o["metadata"]["name"] for o in objects]


def run_deployment(given: dict[str, Any], now: float) -> Any:
    return asdict(deployment.plan(given["deployment"], given["sets"], old_pods_left=given.get("oldPodsLeft", False), now=now))


def run_job(given: dict[str, Any], now: float) -> Any:
    out = asdict(job(given["job"], given["pods"], now))
    return {**out, **{field: names(out[field]) for field in ("release", "delete", "surplus")}}


def run_ranking(given: dict[str, Any], now: float) -> Any:
    return names(deletion_order(given["pods"], given.get("related", given["pods"]), now))


def run_statefulset(given: dict[str, Any], now: float) -> Any:
    out = asdict(statefulset(given["set"], given["pods"], current=given["current"], update=given["update"], now=now))
    return {**out, **{field: names(out[field]) for field in ("delete", "repair")}}


def run_endpointslice(given: dict[str, Any], now: float) -> Any:
    out = asdict(endpointslice(given["service"], given["pods"], given.get("slices", []), lambda node: f"zone-of-{node}"))
    return {**out, "delete": names(out["delete"])}


def run_service_lb(given: dict[str, Any], now: float) -> Any:
    slices = given.get("slices", {})
    config = BalancerConfig(pools=parse_pools(given.get("pools", [])))
    found = service_lb(given["services"], given["nodes"], lambda s: slices.get(s["metadata"]["name"], []), config, {})
    return {key: {**asdict(outcome), "addresses": list(outcome.addresses)} for key, outcome in found.items()}


RUN = {
    "deployment": run_deployment,
    "job": run_job,
    "ranking": run_ranking,
    "statefulset": run_statefulset,
    "endpointslice": run_endpointslice,
    "service-lb": run_service_lb,
}


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    given = yaml.safe_load((GOLDEN / f"{case}.input.yaml").read_text())
    result = RUN[given["plan"]](given, parse_rfc3339(given["now"]))
    expected = GOLDEN / f"{case}.output.yaml"
    text = yaml.safe_dump(result, sort_keys=True, allow_unicode=True, width=130)
    if os.environ.get("K1S_UPDATE_GOLDEN"):
        expected.write_text(text)
    assert yaml.safe_load(text) == yaml.safe_load(expected.read_text())


def test_there_are_cases_for_every_plan() -> None:
    plans = {yaml.safe_load((GOLDEN / f"{case}.input.yaml").read_text())["plan"] for case in CASES}
    assert plans == set(RUN)
