"""Namespace deletion on the fake API."""

from __future__ import annotations

from typing import Any

from controllers_fake_api import Bench

from k1s.api.catalog import builtin
from k1s.api.errors import ApiError, internal
from k1s.server.controllers.namespace import NamespaceController


def add(bench: Bench) -> None:
    bench.api.add("Namespace", metadata={"name": "n"}, spec={"finalizers": ["kubernetes"]}, status={"phase": "Active"})
    bench.api.add("ConfigMap", metadata={"name": "c", "namespace": "n"})
    bench.api.add("Secret", metadata={"name": "s", "namespace": "other"})


def condition(bench: Bench, kind: str) -> dict[str, Any]:
    return next(c for c in bench.api.object("Namespace", "n")["status"]["conditions"] if c["type"] == kind)


async def test_empties_and_lets_go() -> None:
    async with Bench(NamespaceController) as bench:
        add(bench)
        await bench.settle()
        assert bench.api.calls == []
        await bench.api.delete(builtin("Namespace"), "n")
        await bench.settle()
        assert bench.api.objects("Namespace") == [] and bench.api.objects("ConfigMap") == []
        assert len(bench.api.objects("Secret")) == 1


async def test_waits_for_finalizers_and_says_so() -> None:
    async with Bench(NamespaceController) as bench:
        add(bench)
        bench.api.add("Pod", metadata={"name": "p", "namespace": "n", "finalizers": ["example.com/hold"]}, spec={})
        await bench.api.delete(builtin("Namespace"), "n")
        await bench.settle()
        assert bench.api.object("Namespace", "n")["status"]["phase"] == "Terminating"
        assert "pods. has 1 resource instances" in condition(bench, "NamespaceContentRemaining")["message"]
        assert "example.com/hold in 1 resource instances" in condition(bench, "NamespaceFinalizersRemaining")["message"]
        calls = len(bench.api.calls)
        bench.api.set("Pod", "p", "n", metadata={"finalizers": []})
        await bench.settle()
        assert bench.api.objects("Namespace") == [] and len(bench.api.calls) > calls


async def test_a_failure_is_told_and_tried_again() -> None:
    async with Bench(NamespaceController) as bench:
        add(bench)

        def refuse(verb: str, resource: Any, obj: Any) -> ApiError | None:
            return internal("no") if verb == "delete" and resource.kind == "ConfigMap" else None

        bench.api.fail = refuse
        await bench.api.delete(builtin("Namespace"), "n")
        await bench.settle()
        assert condition(bench, "NamespaceDeletionContentFailure")["status"] == "True"
        bench.api.fail = lambda *a: None
        await bench.settle(60)
        assert bench.api.objects("Namespace") == []


async def test_an_api_that_cannot_be_asked_is_named_and_the_rest_goes() -> None:
    async with Bench(NamespaceController) as bench:
        add(bench)
        spec = {"group": "x.io", "version": "v1", "service": {"namespace": "other", "name": "x"}}
        bench.api.add("APIService", metadata={"name": "v1.x.io"}, spec=spec)
        await bench.api.delete(builtin("Namespace"), "n")
        await bench.settle()
        found = condition(bench, "NamespaceDeletionDiscoveryFailure")
        assert (found["status"], found["reason"]) == ("True", "DiscoveryFailed")
        assert found["message"] == (
            "Discovery failed for some groups, 1 failing: unable to retrieve the complete list of server APIs: "
            "x.io/v1: stale GroupVersion discovery: x.io/v1"
        )
        assert bench.api.objects("ConfigMap") == [] and len(bench.api.objects("Namespace")) == 1
