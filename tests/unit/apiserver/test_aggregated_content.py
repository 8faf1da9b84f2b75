"""A namespace that is deleted is emptied of what an extension server has inside, through the aggregator and real TLS."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from k1s.api.catalog import builtin
from k1s.base.http import Answer, Request, Response
from k1s.client.events import EventRecorder
from k1s.client.rest import RestClient
from k1s.client.transport import LocalTransport
from k1s.server.controllers.namespace import NamespaceController
from k1s.server.controllers.reconciler import Context
from tests.unit.apiserver.conftest import ADMIN
from tests.unit.apiserver.extension_server import extension_server, json_response, put_endpoints, service
from tests.unit.apiserver.test_aggregation import API_SERVICES, BASE, _aggregating, _api_service, _condition

Object = dict[str, Any]
THINGS = f"{BASE}/namespaces/n/things"


class Things:
    """Serves one kind; what is deleted has gone."""

    def __init__(self) -> None:
        version = BASE.removeprefix("/apis/")
        made = {"apiVersion": version, "kind": "Thing", "metadata": {"name": "t", "namespace": "n", "uid": "u"}}
        self.version, self.items = version, {"t": made}

    async def answer(self, request: Request, body: bytes) -> Answer:
        if request.path == BASE:
            row = {"name": "things", "namespaced": True, "kind": "Thing", "verbs": ["delete", "get", "list"]}
            return json_response({"kind": "APIResourceList", "groupVersion": self.version, "resources": [row]})
        if request.path == THINGS:
            items = list(self.items.values())
            return json_response({"kind": "ThingList", "apiVersion": self.version, "metadata": {}, "items": items})
        if request.path.startswith(f"{THINGS}/") and request.method == "DELETE":
            assert request.headers["X-Remote-User"] == "admin"
            return json_response(self.items.pop(request.path.rpartition("/")[2]))
        return Response(404, b"{}")


async def test_an_extension_servers_objects_go_with_their_namespace(tmp_path: Path) -> None:
    things = Things()
    async with extension_server(tmp_path, things.answer) as server, _aggregating() as api:
        await api.ok("POST", "/api/v1/namespaces/default/services", service())
        await put_endpoints(api.server, server.port)
        await api.ok("POST", API_SERVICES, _api_service(server.ca_bundle))
        await _condition(api, "Passed")
        await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "n"}})
        await api.ok("DELETE", "/api/v1/namespaces/n")
        client = RestClient(LocalTransport(api.server.handle, ADMIN), "test", clock=api.clock)
        events = EventRecorder(client, "test", clock=api.clock)
        context = Context(client, api.server.informers, api.clock, events, catalog=api.server.catalog)
        controller = NamespaceController(context)
        for _ in range(100):
            if api.server.informers.informer(builtin("Namespace")).get("n") is None:
                break
            await controller.work("n")
            await asyncio.sleep(0.01)
        assert things.items == {}
        assert (await api("GET", "/api/v1/namespaces/n")).status == 404
