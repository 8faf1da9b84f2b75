"""Requests and what must be answered: the tables in tests/wire/requests, against a whole server over TLS.

A file is a list of cases, each in a namespace of its own (`$ns`):

    - case: a name
      steps:
      - request: POST /api/v1/namespaces/$ns/configmaps?dryRun=All
        as: jane                      # impersonated; "anonymous": without a certificate
        headers: {Accept: text/plain}
        body: {metadata: {name: a}}   # sent as JSON; or text_body: "as it is"
        code: 422
        answer: {reason: Invalid}     # what the body holds at least; "~..." is a regular expression, null: not there
        answered: {warning: ~299}     # headers, the same way
        text: ~part                   # of a body that is no JSON
        save: {rv: metadata.resourceVersion}   # later steps write $rv
        eventually: true              # asked again until it is so
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.wire.whole_server import WholeServer

TABLES = Path(__file__).parent / "requests"
Object = dict[str, Any]
_LATEST = 10.0


def cases() -> Iterator[Any]:
    for file in sorted(TABLES.glob("*.yaml")):
        for case in yaml.safe_load(file.read_text()):
            yield pytest.param(case, id=f"{file.stem}: {case['case']}")


@pytest.mark.parametrize("case", list(cases()))
def test_request(case: Object, server: WholeServer, request: pytest.FixtureRequest) -> None:
    known = {"ns": _namespace(case, server)}
    for number, step in enumerate(case["steps"], 1):
        where = f"step {number}: {step['request']}"
        deadline = time.monotonic() + (_LATEST if step.get("eventually") else 0)
        while True:
            difference, body = _run(_filled(step, known), server)
            if not difference or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        assert not difference, f"{where}\n{difference}\n{json.dumps(body, indent=1) if not isinstance(body, bytes) else body!r}"
        for name, path in step.get("save", {}).items():
            known[name] = str(_at(body, path))


def _namespace(case: Object, server: WholeServer) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", case["case"].lower()).strip("-")[:50].strip("-")
    if "$ns" in json.dumps(case["steps"]):
        code, _, body = server.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        assert code == 201, body
    return name


def _filled(value: Any, known: dict[str, str]) -> Any:
    if isinstance(value, str):
        for name, text in known.items():
            value = value.replace(f"${name}", text)
        return value
    if isinstance(value, list):
        return [_filled(item, known) for item in value]
    if isinstance(value, dict):
        return {_filled(key, known): _filled(item, known) for key, item in value.items()}
    return value


def _run(step: Object, server: WholeServer) -> tuple[str, Any]:
    method, _, path = step["request"].partition(" ")
    headers = dict(step.get("headers", {}))
    user = step.get("as", "")
    if user and user != "anonymous":
        headers["Impersonate-User"] = user
    body = step.get("body", step.get("text_body"))
    if body is not None and not isinstance(body, (dict, str)):
        body = json.dumps(body)
    code, answered, found = server.call(method, path, body, headers, admin=user != "anonymous")
    if code != step.get("code", 200):
        return f"answered {code}, not {step.get('code', 200)}", found
    difference = _differs(step.get("answered", {}), answered, "header")
    if not difference and "answer" in step:
        difference = _differs(step["answer"], found, "body")
    if not difference and "text" in step:
        text = found.decode() if isinstance(found, bytes) else json.dumps(found)
        difference = _differs(step["text"], text, "text")
    return difference, found


def _differs(wanted: Any, found: Any, where: str) -> str:
    """What `found` lacks of `wanted`; "" if nothing."""
    if isinstance(wanted, dict):
        if not isinstance(found, dict):
            return f"{where} is {found!r}, not an object"
        for key, value in wanted.items():
            if value is None and key in found:
                return f"{where}.{key} is there: {found[key]!r}"
            if value is not None and key not in found:
                return f"{where}.{key} is missing"
            if value is not None and (difference := _differs(value, found[key], f"{where}.{key}")):
                return difference
        return ""
    if isinstance(wanted, list):
        if not isinstance(found, list) or len(found) != len(wanted):
            return f"{where} is {found!r}, not {wanted!r}"
        return next((d for i, pair in enumerate(zip(wanted, found, strict=True)) if (d := _differs(*pair, f"{where}[{i}]"))), "")
    if isinstance(wanted, str) and wanted.startswith("~"):
        return "" if re.search(wanted[1:], str(found), re.DOTALL) else f"{where} is {found!r}, without {wanted[1:]!r}"
    return "" if wanted == found else f"{where} is {found!r}, not {wanted!r}"


def _at(body: Any, path: str) -> Any:
    for part in path.split("."):
        body = body[int(part)] if isinstance(body, list) else body[part]
    return body
