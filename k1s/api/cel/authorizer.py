"""authorizer.group("").resource("pods").namespace("x").check("get").allowed() in CEL.

Owns: Question, the variable's value, and who is asked (a context variable, set around an evaluation).
Called by: library; admission binds `authorizer` and answers. Never does: decide.
Source: apiserver/pkg/cel/library/authz.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import Any

from k1s.api.cel.optional import Opaque, opaque, opened


@dataclass(frozen=True, slots=True)
class Question:
    """May `service_account` (namespace/name; empty: who makes the request) do `verb` to this?"""

    verb: str
    path: str = ""
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    service_account: str = ""


Decide = Callable[[Question], tuple[bool, str]]

_decide: ContextVar[Decide | None] = ContextVar("cel_authorizer", default=None)
_NOBODY = Question("")


@contextmanager
def answered_by(decide: Decide) -> Iterator[None]:
    """Checks inside are answered by `decide`."""
    token = _decide.set(decide)
    try:
        yield
    finally:
        _decide.reset(token)


def variable(group: str, resource: str, subresource: str, namespace: str, name: str) -> Opaque:
    """The value of `authorizer`; `authorizer.requestResource` asks about the request itself."""
    asked = Question("", "", group, resource, subresource, namespace, name)
    return opaque("authorizer", asdict(_NOBODY), requestResource=opaque("authorizer", asdict(asked)))


def _with(field: str) -> Callable[[Any, str], Opaque]:
    def change(value: Any, text: str) -> Opaque:
        return opaque("authorizer", {**opened(value, "authorizer"), field: text})

    return change


def _service_account(value: Any, namespace: str, name: str) -> Opaque:
    return opaque("authorizer", {**opened(value, "authorizer"), "service_account": f"{namespace}/{name}"})


def _check(value: Any, verb: str) -> Opaque:
    decide = _decide.get()
    if decide is None:
        raise ValueError("there is no authorizer here")
    allowed, reason = decide(Question(**{**opened(value, "authorizer"), "verb": verb}))
    return opaque("decision", {"allowed": allowed, "reason": reason})


def _selector(value: Any, _text: str) -> Opaque:
    # Authorizers here do not look at selectors; without one the question is the wider one.
    return Opaque(value.kind, value.value, value.fields)


FUNCTIONS = (
    ("group", True, ("OPAQUE", "STRING"), _with("group")),
    ("resource", True, ("OPAQUE", "STRING"), _with("resource")),
    ("subresource", True, ("OPAQUE", "STRING"), _with("subresource")),
    ("namespace", True, ("OPAQUE", "STRING"), _with("namespace")),
    ("name", True, ("OPAQUE", "STRING"), _with("name")),
    ("path", True, ("OPAQUE", "STRING"), _with("path")),
    ("fieldSelector", True, ("OPAQUE", "STRING"), _selector),
    ("labelSelector", True, ("OPAQUE", "STRING"), _selector),
    ("serviceAccount", True, ("OPAQUE", "STRING", "STRING"), _service_account),
    ("check", True, ("OPAQUE", "STRING"), _check),
    ("allowed", True, ("OPAQUE",), lambda value: bool(opened(value, "decision")["allowed"])),
    ("reason", True, ("OPAQUE",), lambda value: str(opened(value, "decision")["reason"])),
    ("errored", True, ("OPAQUE",), lambda _value: False),
    ("error", True, ("OPAQUE",), lambda _value: ""),
)
