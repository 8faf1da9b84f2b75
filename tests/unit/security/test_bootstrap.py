"""What is written at first start, and that a second start writes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from k1s.api.catalog import Resource, builtin
from k1s.api.clone import clone
from k1s.api.rules import aggregated_rules, missing_rules
from k1s.server import bootstrap
from k1s.server.config import ServerConfig
from k1s.server.defaults import rbac
from k1s.server.defaults.notation import rule


class RecordingClient:
    """Writes into the informers, as the API server would, and remembers what was asked."""

    def __init__(self, informers: Any) -> None:
        self._informers = informers
        self.calls: list[tuple[str, str, str]] = []

    async def create(self, resource: Resource, obj: Any, namespace: str = "", **_: Any) -> Any:
        self.calls.append(("create", resource.kind, obj["metadata"]["name"]))
        stored = clone(obj)
        stored["metadata"]["resourceVersion"] = "1"
        if resource.kind == "Service":
            stored["spec"]["ports"][0]["nodePort"] = 0
        return self._informers.informer(resource).put(stored)

    async def update(self, resource: Resource, obj: Any, **_: Any) -> Any:
        self.calls.append(("update", resource.kind, obj["metadata"]["name"]))
        return self._informers.informer(resource).put(clone(obj))

    async def delete(self, resource: Resource, name: str, namespace: str = "", **_: Any) -> Any:
        self.calls.append(("delete", resource.kind, name))
        self._informers.informer(resource).drop(name, namespace)


async def start(client: Any, informers: Any, address: str = "192.0.2.1") -> int:
    config = ServerConfig(data_dir=Path("/nonexistent"))
    return await bootstrap.ensure_defaults(
        client, informers, config, advertise_address=address, client_ca=b"CA", request_header_ca=b"RH"
    )


async def test_a_second_start_writes_nothing(informers: Any) -> None:
    client = RecordingClient(informers)
    assert await start(client, informers) > 130
    client.calls.clear()
    assert await start(client, informers) == 0
    assert client.calls == []


async def test_a_machine_without_a_network_starts(informers: Any) -> None:
    client = RecordingClient(informers)
    await start(client, informers, "127.0.0.1")
    assert informers.informer(builtin("Endpoints")).get("kubernetes", "default") is None


async def test_a_moved_server_rewrites_its_endpoints_only(informers: Any) -> None:
    client = RecordingClient(informers)
    await start(client, informers)
    client.calls.clear()
    await start(client, informers, "192.0.2.2")
    assert sorted(client.calls) == [("update", "EndpointSlice", "kubernetes"), ("update", "Endpoints", "kubernetes")]


async def test_damaged_defaults_come_back_and_additions_stay(informers: Any) -> None:
    client = RecordingClient(informers)
    await start(client, informers)
    roles = informers.informer(builtin("ClusterRole"))
    damaged = clone(roles.get("system:kube-dns"))
    damaged["rules"] = [rule("core: pods = get")]
    roles.put(damaged)
    bindings = informers.informer(builtin("ClusterRoleBinding"))
    moved = clone(bindings.get("system:discovery"))
    moved["roleRef"]["name"] = "view"
    bindings.put(moved)
    kept = clone(roles.get("system:heapster"))
    kept["rules"], kept["metadata"]["annotations"] = [], {rbac.AUTOUPDATE: "false"}
    roles.put(kept)
    client.calls.clear()
    await start(client, informers)
    assert roles.get("system:kube-dns")["rules"] == [rule("core: pods = get"), rule("core: endpoints services = list watch")]
    assert bindings.get("system:discovery")["roleRef"]["name"] == "system:discovery"
    assert roles.get("system:heapster")["rules"] == []
    assert len(client.calls) == 3


def test_names_are_unique_and_every_binding_has_its_role() -> None:
    objects = list(rbac.objects())
    keys = [(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in objects]
    assert len(keys) == len(set(keys))
    for obj in objects:
        if "roleRef" in obj:
            namespace = obj["metadata"].get("namespace") if obj["roleRef"]["kind"] == "Role" else None
            assert (obj["roleRef"]["kind"], namespace, obj["roleRef"]["name"]) in keys


def test_aggregated_roles_are_what_the_aggregation_controller_would_make_of_them() -> None:
    roles = [o for o in rbac.objects() if o["kind"] == "ClusterRole"]
    for role in (r for r in roles if "aggregationRule" in r):
        assert role["rules"] == aggregated_rules(role, roles), role["metadata"]["name"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("core: pods = get", {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}),
        ("/a /b* = get", {"nonResourceURLs": ["/a", "/b*"], "verbs": ["get"]}),
        ("* = *", {"nonResourceURLs": ["*"], "verbs": ["*"]}),
        ("*: * = read", {"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]}),
        (
            "a, core: x y/z (n m) = update",
            {"apiGroups": ["", "a"], "resources": ["x", "y/z"], "resourceNames": ["m", "n"], "verbs": ["update"]},
        ),
    ],
)
def test_notation(text: str, wanted: dict[str, Any]) -> None:
    assert json.dumps(rule(text), sort_keys=True) == json.dumps(wanted, sort_keys=True)


@pytest.mark.parametrize(
    ("owned", "wanted", "missing"),
    [
        ("*: * = *", "core: pods = get", None),
        ("core: pods = get list", "core: pods = get", None),
        ("core: pods (a) = get", "core: pods = get", "core: pods = get"),
        ("core: pods = get", "core: pods (a) = get", None),
        ("core: */scale = get", "core: x/scale = get", None),
        ("core: pods = get", "core: pods/log = get", "core: pods/log = get"),
        ("core: pods = get", "core: pods = get list", "core: pods = list"),
        ("/a/* = get", "/a/b = get", None),
        ("/a/* = get", "/a = get", "/a = get"),
    ],
)
def test_what_covers_what(owned: str, wanted: str, missing: str | None) -> None:
    assert missing_rules([rule(owned)], [rule(wanted)]) == ([rule(missing)] if missing else [])
