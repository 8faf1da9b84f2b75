"""An operator as people write them with kopf: it makes a ConfigMap for each Greeting and says so in the status."""

from __future__ import annotations

from typing import Any

import kopf
from kubernetes import client, config

config.load_kube_config()


@kopf.on.startup()
def settle(settings: kopf.OperatorSettings, **_: Any) -> None:
    settings.posting.enabled = True
    settings.persistence.finalizer = "kopf.example.com/finalizer"


@kopf.on.create("example.com", "v1", "greetings")
def create(body: Any, spec: Any, name: str, namespace: str, patch: Any, **_: Any) -> dict[str, str]:
    text = {"metadata": {"name": f"{name}-text"}, "data": {"text": f"hello {spec['who']}"}}
    kopf.adopt(text)
    client.CoreV1Api().create_namespaced_config_map(namespace, text)
    kopf.info(body, reason="Greeted", message="said hello")
    patch.status["seen"] = 1
    return {"made": text["metadata"]["name"]}


@kopf.on.update("example.com", "v1", "greetings", field="spec.who")
def update(new: str, name: str, namespace: str, **_: Any) -> None:
    client.CoreV1Api().patch_namespaced_config_map(f"{name}-text", namespace, {"data": {"text": f"hello {new}"}})


@kopf.on.delete("example.com", "v1", "greetings")
def delete(name: str, namespace: str, **_: Any) -> None:
    client.CoreV1Api().create_namespaced_config_map(namespace, {"metadata": {"name": f"{name}-farewell"}})


@kopf.on.event("configmaps", labels={"watched": "yes"})
def note(name: str, namespace: str, type: str | None, **_: Any) -> None:
    if type == "ADDED":
        body = {"metadata": {"name": f"{name}-noted"}}
        client.CoreV1Api().create_namespaced_config_map(namespace, body)
