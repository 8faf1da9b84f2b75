"""For every built-in kind: writes that change nothing change nothing, applying twice is applying once, endpoints own their part.

The objects are those of tests/golden/validation.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml

from k1s.api.catalog import Resource, builtin
from tests.unit.api.test_validation import GOLDEN, base_of
from tests.unit.apiserver.conftest import Api

Object = dict[str, Any]
MERGE, STRATEGIC = "application/merge-patch+json", "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
# Its controller writes the status beside us.
_RESTLESS = ("customresourcedefinitions.apiextensions.k8s.io",)


def _objects() -> dict[str, tuple[Resource, Object]]:
    found: dict[str, tuple[Resource, Object]] = {}
    for source in sorted(GOLDEN.glob("*.input.yaml")):
        for block in yaml.safe_load(source.read_text()):
            resource = builtin(block["kind"], block.get("group"))
            if resource.persisted and "create" in resource.verbs and resource.qualified not in (*_RESTLESS, *found):
                body = copy.deepcopy(base_of(block, resource))
                for field in ("uid", "resourceVersion", "creationTimestamp", "generation"):
                    body["metadata"].pop(field, None)
                if resource.kind == "Job":
                    for field in ("selector", "manualSelector"):  # the server's to make
                        body["spec"].pop(field, None)
                found[resource.qualified] = (resource, body)
    return found


OBJECTS = _objects()


def test_there_are_enough_kinds() -> None:
    assert len(OBJECTS) > 50


@pytest.mark.parametrize("name", sorted(OBJECTS))
async def test_nothing_moves_without_cause(api: Api, name: str) -> None:
    resource, body = OBJECTS[name]
    path = resource.path("default" if resource.namespaced else "")
    target = f"{path}/{body['metadata']['name']}"
    shown = await api.ok("POST", f"{path}?dryRun=All", body)
    live = await api.ok("POST", path, body)
    assert set(shown) == set(live) and await api.ok("GET", target) == live
    before = api.store.revision
    itself = {key: value for key, value in live.items() if key != "metadata"}
    for type, patch in ((MERGE, {}), (MERGE, itself), (STRATEGIC, {}), (STRATEGIC, itself)):
        assert await api.ok("PATCH", target, patch, type=type) == live, (type, patch)
    assert await api.ok("PUT", target, live) == live
    assert (await api("DELETE", f"{target}?dryRun=All")).status == 200
    assert api.store.revision == before
    applied = await api.ok("PATCH", f"{target}?fieldManager=m&force=1", body, type=APPLY)
    assert await api.ok("PATCH", f"{target}?fieldManager=m", body, type=APPLY) == applied
    assert {k: v for k, v in applied.items() if k != "metadata"} == itself
    if resource.subresource("status") is not None:
        await _status(api, target, body, applied)


async def _status(api: Api, target: str, body: Object, live: Object) -> None:
    assert await api.ok("PUT", f"{target}/status", live) == live
    assert await api.ok("PATCH", f"{target}/status", {}, type=MERGE) == live
    after = await api.ok("PATCH", f"{target}/status?fieldManager=s", {**body, "status": live.get("status") or {}}, type=APPLY)
    for entry in after["metadata"]["managedFields"]:
        on_status = entry.get("subresource") == "status"
        assert ("f:spec" if on_status else "f:status") not in entry["fieldsV1"], entry
