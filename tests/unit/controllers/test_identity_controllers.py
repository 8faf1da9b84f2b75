"""The records of nodes' keys go with their Nodes, join tokens when their time is over."""

from __future__ import annotations

from controllers_fake_api import Bench

from k1s.api import bootstrap_token, node_identity
from k1s.server.controllers.node_identity import NodeIdentityController
from k1s.server.controllers.token_cleaner import TokenCleanerController

SYSTEM = "kube-system"
RECORD = node_identity.record_name("n1")


def add_record(bench: Bench, uid: str = "") -> None:
    made = node_identity.new_record("n1", "key", uid)
    bench.api.add("Secret", metadata=made["metadata"], type=made["type"], data=made["data"])


def records(bench: Bench) -> list[str]:
    return [s["metadata"]["name"] for s in bench.api.objects("Secret") if s["type"] == node_identity.RECORD_TYPE]


def is_free(bench: Bench) -> bool:
    """Nobody's, and the key that had it is remembered."""
    found = bench.api.object("Secret", RECORD, SYSTEM)
    assert node_identity.node_uid(found) == ""
    return not node_identity.fingerprint_of(found) and node_identity.belonged_to(found, "key")


async def test_a_record_remembers_its_node_and_its_name_is_free_when_that_goes() -> None:
    async with Bench(NodeIdentityController) as bench:
        add_record(bench)
        await bench.settle()
        assert records(bench) == [RECORD]  # joined, not registered yet
        node = bench.api.add("Node", metadata={"name": "n1"})
        await bench.settle()
        found = bench.api.object("Secret", RECORD, SYSTEM)
        assert node_identity.node_uid(found) == node["metadata"]["uid"]
        assert node_identity.fingerprint_of(found) == "key"
        bench.api.kill("Node", "n1")
        await bench.settle()
        assert is_free(bench)
        await bench.clock.advance(node_identity.KEPT_SECONDS - 5)
        await bench.settle()
        assert records(bench) == [RECORD]
        await bench.clock.advance(6)
        await bench.settle()
        assert records(bench) == []


async def test_a_node_that_was_deleted_while_no_controller_ran() -> None:
    async with Bench(NodeIdentityController) as bench:
        add_record(bench, "of-before")
        await bench.settle()
        assert is_free(bench)


async def test_a_node_that_was_made_anew_by_hand_keeps_its_record() -> None:
    async with Bench(NodeIdentityController) as bench:
        node = bench.api.add("Node", metadata={"name": "n1"})
        add_record(bench, "of-before")
        await bench.settle()
        assert node_identity.node_uid(bench.api.object("Secret", RECORD, SYSTEM)) == node["metadata"]["uid"]


async def test_other_secrets_are_left_alone() -> None:
    async with Bench(NodeIdentityController) as bench:
        bench.api.add("Secret", metadata={"name": RECORD, "namespace": SYSTEM}, type="Opaque", data={})
        bench.api.add("Node", metadata={"name": "n1"})
        bench.api.kill("Node", "n1")
        await bench.settle()
        assert len(bench.api.objects("Secret")) == 1


async def test_tokens_go_when_their_time_is_over() -> None:
    async with Bench(TokenCleanerController) as bench:
        now = bench.clock.now()
        for identity, expires in (("aaaaaa", now + 60), ("bbbbbb", None), ("cccccc", now + 3600), ("dddddd", now - 5)):
            made = bootstrap_token.new_secret(identity, "0123456789abcdef", "", expires)
            bench.api.add("Secret", metadata=made["metadata"], type=made["type"], data=made["data"])
        bench.api.add("Secret", metadata={"name": "bootstrap-token-eeeeee", "namespace": "default"}, type=bootstrap_token.TYPE)

        def left() -> list[str]:
            return sorted(s["metadata"]["name"][-6:] for s in bench.api.objects("Secret"))

        await bench.settle()
        assert left() == ["aaaaaa", "bbbbbb", "cccccc", "eeeeee"]
        await bench.clock.advance(61)
        await bench.settle()
        assert left() == ["bbbbbb", "cccccc", "eeeeee"]
        await bench.clock.advance(3600)
        await bench.settle()
        assert left() == ["bbbbbb", "eeeeee"]
