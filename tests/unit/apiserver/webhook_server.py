"""A webhook over HTTPS on loopback, and an API server whose admission is nothing but webhooks."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

from k1s.base.http import Answer, Request, Response
from k1s.client.rest import RestClient
from k1s.client.transport import LocalTransport
from k1s.server.apiserver.admission.chain import build
from k1s.server.apiserver.authz.app import Authorizer
from k1s.server.apiserver.authz.node import NodeAuthorizer
from k1s.server.apiserver.authz.rbac import RbacAuthorizer
from k1s.server.defaults.rbac import node_rules
from tests.unit.apiserver.conftest import ADMIN, Api, running
from tests.unit.apiserver.extension_server import ExtensionServer, extension_server, json_response

Object = dict[str, Any]
# path -> (request of the review) -> response without its uid, or a whole HTTP answer
Behaviour = Callable[[Object], Object | Response]
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1"


def patching(*operations: Object, **more: Any) -> Object:
    patch = base64.b64encode(orjson.dumps(operations)).decode()
    return {"allowed": True, "patchType": "JSONPatch", "patch": patch, **more}


def annotate(key: str, value: str, request: Object) -> Object:
    """Adds an annotation, and the map where there is none."""
    if (request["object"]["metadata"].get("annotations")) is None:
        return patching({"op": "add", "path": "/metadata/annotations", "value": {key: value}})
    return patching({"op": "add", "path": f"/metadata/annotations/{key}", "value": value})


class Hooks:
    """`hooks.on[path]` says how a path behaves; `calls` the paths in the order they were called; `asked` the requests."""

    def __init__(self, api: Api, server: ExtensionServer, on: dict[str, Behaviour]) -> None:
        self.api, self.server, self.on = api, server, on

    @property
    def calls(self) -> list[str]:
        return [request.path for request in self.server.seen]

    def asked(self, index: int = -1) -> Object:
        found: Object = self.server.bodies[index]["request"]
        return found

    def forget(self) -> None:
        self.server.seen.clear()
        self.server.bodies.clear()

    def hook(self, path: str, name: str = "", **more: Any) -> Object:
        rule = {"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}
        return {
            "name": name or f"{path.strip('/')}.example.com",
            "clientConfig": {"url": self.server.url(path), "caBundle": self.server.ca_bundle},
            "rules": [rule],
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            **more,
        }

    async def mutating(self, *hooks: Object, name: str = "m") -> None:
        await self._register("MutatingWebhookConfiguration", "mutatingwebhookconfigurations", name, hooks)

    async def validating(self, *hooks: Object, name: str = "v") -> None:
        await self._register("ValidatingWebhookConfiguration", "validatingwebhookconfigurations", name, hooks)

    async def _register(self, kind: str, plural: str, name: str, hooks: tuple[Object, ...]) -> None:
        obj = {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": kind,
            "metadata": {"name": name},
            "webhooks": list(hooks),
        }
        await self.api.ok("POST", f"{WEBHOOKS}/{plural}", obj)
        self.forget()


@asynccontextmanager
async def webhooks(home: Path) -> AsyncIterator[Hooks]:
    on: dict[str, Behaviour] = {}

    async def respond(request: Request, body: bytes) -> Answer:
        review = orjson.loads(body)
        behaviour = on.get(request.path)
        found = behaviour(review["request"]) if behaviour is not None else {"allowed": True}
        if isinstance(found, Response):
            return found
        response = {"uid": review["request"]["uid"], **found}
        return json_response({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response})

    async with extension_server(home, respond) as server, running() as api:
        client = RestClient(LocalTransport(api.server.handle, ADMIN), "test", clock=api.clock)
        informers = api.server.informers
        authorizer = Authorizer(RbacAuthorizer(informers), NodeAuthorizer(informers, node_rules()))
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default", "labels": {"team": "a"}}}
        await api.ok("POST", "/api/v1/namespaces", namespace)
        api.server.admission = build(client, informers, authorizer, api.server.catalog, api.server.convert)
        yield Hooks(api, server, on)
