"""A real operator, made with kopf, running against a whole server: finalizers, status, events, adoption, watches."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.wire.whole_server import WholeServer

CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: greetings.example.com}
spec:
  group: example.com
  names: {plural: greetings, singular: greeting, kind: Greeting}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {who: {type: string}}}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
"""
GREETING = "apiVersion: example.com/v1\nkind: Greeting\nmetadata: {name: g}\nspec: {who: world}\n"
_OPERATOR = Path(__file__).parent / "operators" / "greeter.py"


@pytest.fixture
def operator(server: WholeServer, tmp_path: Path) -> Iterator[Path]:
    server.kubectl("create", "namespace", "kopf")
    server.kubectl("apply", "-f", "-", input=CRD)
    server.kubectl("wait", "--for=condition=Established", "crd/greetings.example.com", "--timeout=10s")
    log = tmp_path / "operator.log"
    with log.open("wb") as out:
        command = [sys.executable, "-m", "kopf", "run", "--namespace=kopf", "--standalone", str(_OPERATOR)]
        process = subprocess.Popen(command, stdout=out, stderr=out, env=server.env)
    try:
        yield log
    finally:
        process.terminate()
        process.wait(20)
        server.kubectl("delete", "crd/greetings.example.com", "--wait=false")


def test_an_operator_works(operator: Path, server: WholeServer) -> None:
    def get(*arguments: str) -> Any:
        result = server.kubectl("get", "-n", "kopf", "-o", "json", *arguments, check=False)
        return json.loads(result.stdout) if result.returncode == 0 and result.stdout else None

    def until(what: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + 30
        while not (found := what()):
            assert time.monotonic() < deadline, operator.read_text()
            time.sleep(0.2)
        return found

    server.kubectl("apply", "-n", "kopf", "-f", "-", input=GREETING)
    text = until(lambda: get("configmap", "g-text"))
    assert text["data"] == {"text": "hello world"}
    assert text["metadata"]["ownerReferences"][0]["kind"] == "Greeting"
    found = until(lambda: (g := get("greeting", "g"))["status"].get("create") and g)
    assert found["status"]["seen"] == 1 and found["metadata"]["finalizers"] == ["kopf.example.com/finalizer"]
    assert until(lambda: [e for e in get("events")["items"] if (e["reason"], e["message"]) == ("Greeted", "said hello")])

    server.kubectl("patch", "-n", "kopf", "greeting", "g", "--type=merge", "-p", '{"spec":{"who":"moon"}}')
    until(lambda: get("configmap", "g-text")["data"]["text"] == "hello moon")

    server.kubectl("create", "-n", "kopf", "configmap", "plain", "--from-literal=a=b")
    server.kubectl("label", "-n", "kopf", "configmap", "plain", "watched=yes")
    server.kubectl(
        "apply", "-n", "kopf", "-f", "-", input="apiVersion: v1\nkind: ConfigMap\nmetadata: {name: w, labels: {watched: 'yes'}}\n"
    )
    until(lambda: get("configmap", "w-noted"))

    server.kubectl("delete", "-n", "kopf", "greeting", "g", "--timeout=30s")
    until(lambda: get("configmap", "g-farewell"))
    until(lambda: get("configmap", "g-text") is None)
    assert "Traceback" not in operator.read_text()
