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

from k1s.api.cel.optional import opaque, opened


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


def variable(group: str, resource: str, subresource: str, namespace: str, name: str) -> dict[str, Any]:
    """The value of `authorizer`; `authorizer.requestResource` asks about the request itself."""
    asked = Question("", "", group, resource, subresource, namespace, name)
    return opaque("authorizer", asdict(_NOBODY), requestResource=opaque("authorizer", asdict(asked)))


def _with(field: str) -> Callable[[Any, str], dict[str, Any]]:
    def change(value: Any, text: str) -> dict[str, Any]:
        return opaque("authorizer", {**opened(value, "authorizer"), field: text})

    return change


def _service_account(value: Any, namespace: str, name: str) -> dict[str, Any]:
    return opaque("authorizer", {**opened(value, "authorizer"), "service_account": f"{namespace}/{name}"})


def _check(value: Any, verb: str) -> dict[str, Any]:
    decide = _decide.get()
    if decide is None:
        raise ValueError("there is no authorizer here")
    allowed, reason = decide(Question(**{**opened(value, "authorizer"), "verb": verb}))
    return opaque("decision", {"allowed": allowed, "reason": reason})


def _selector(value: Any, _text: str) -> dict[str, Any]:
    # Authorizers here do not look at selectors; without one the question is the wider one.
    return dict(value)


FUNCTIONS = (
    ("group", True, ("MAP", "STRING"), "DYN", _with("group")),
    ("resource", True, ("MAP", "STRING"), "DYN", _with("resource")),
    ("subresource", True, ("MAP", "STRING"), "DYN", _with("subresource")),
    ("namespace", True, ("MAP", "STRING"), "DYN", _with("namespace")),
    ("name", True, ("MAP", "STRING"), "DYN", _with("name")),
    ("path", True, ("MAP", "STRING"), "DYN", _with("path")),
    ("fieldSelector", True, ("MAP", "STRING"), "DYN", _selector),
    ("labelSelector", True, ("MAP", "STRING"), "DYN", _selector),
    ("serviceAccount", True, ("MAP", "STRING", "STRING"), "DYN", _service_account),
    ("check", True, ("MAP", "STRING"), "DYN", _check),
    ("allowed", True, ("MAP",), "BOOL", lambda value: bool(opened(value, "decision")["allowed"])),
    ("reason", True, ("MAP",), "STRING", lambda value: str(opened(value, "decision")["reason"])),
    ("errored", True, ("MAP",), "BOOL", lambda _value: False),
    ("error", True, ("MAP",), "STRING", lambda _value: ""),
)
