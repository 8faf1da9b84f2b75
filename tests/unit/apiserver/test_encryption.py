"""Secrets at rest: what lies in the file, who can read it, and that no step loses anything however it ends."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from k1s.base.clock import REAL_CLOCK
from k1s.base.http import Request, Response, Stream
from k1s.server.apiserver.app import ApiServer
from k1s.server.apiserver.encryption import app as encrypt
from k1s.server.apiserver.encryption import rotation as rotation_module
from k1s.server.apiserver.encryption.config import Configuration, EncryptionError, Key, Provider, Rule, parse
from k1s.server.apiserver.encryption.ring import Ring
from k1s.server.apiserver.encryption.rotation import Rotation
from k1s.server.apiserver.encryption.store import EncryptedStore
from k1s.storage.errors import RevisionConflict
from k1s.storage.interface import Origin, Store
from k1s.storage.memory import MemoryStore
from k1s.storage.sql.backend import SqlStore
from tests.unit.apiserver.conftest import AllowAll, Api

BY = Origin("tester", "create", 0)
PATH = "/registry/secrets/default/a"
SECRETS = "/api/v1/namespaces/default/secrets"
WORD = "correct-horse-battery-staple"


def secret(name: str, value: str = WORD) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"p": value}}


def on(*names: str, resources: tuple[str, ...] = ("secrets",)) -> Configuration:
    keys = tuple(Key(name, (name * 32)[:32].encode()) for name in names)
    return Configuration((Rule(resources, (Provider("aesgcm", keys), Provider("identity"))),))


def test_sealed_values_have_upstreams_form() -> None:
    ring = Ring(on("k1"))
    sealed = ring.seal(PATH, b'{"a":1}')
    assert sealed.startswith(b"k8s:enc:aesgcm:v1:k1:") and len(sealed) == 21 + 12 + 7 + 16
    assert sealed != ring.seal(PATH, b'{"a":1}')
    assert ring.open(PATH, sealed) == b'{"a":1}'
    assert ring.seal("/registry/configmaps/default/a", b"{}") == b"{}"
    assert b"k1k1" not in repr(ring.configuration).encode()


@pytest.mark.parametrize("change", ["path", "byte", "key", "name", "kind", "short"])
def test_what_was_tampered_with_is_refused(change: str) -> None:
    ring, path = Ring(on("k1")), PATH
    sealed = ring.seal(PATH, b'{"a":1}')
    if change == "path":
        path = "/registry/secrets/default/b"
    elif change == "byte":
        sealed = sealed[:-1] + bytes([sealed[-1] ^ 1])
    elif change == "key":
        ring = Ring(Configuration((Rule(("secrets",), (Provider("aesgcm", (Key("k1", b"z" * 32),)),)),)))
    elif change == "name":
        ring = Ring(on("k2"))
    elif change == "kind":
        sealed = sealed.replace(b"aesgcm", b"aescbc")
    else:
        sealed = sealed[:25]
    with pytest.raises(EncryptionError):
        ring.open(path, sealed)


@pytest.mark.parametrize(
    "resources, path, sealed",
    [
        (("secrets",), "/registry/configmaps/a/b", False),
        (("secrets", "configmaps"), "/registry/configmaps/a/b", True),
        (("deployments.apps",), "/registry/apps/deployments/a/b", True),
        (("deployments.apps",), "/registry/apps/replicasets/a/b", False),
        (("*.apps",), "/registry/apps/replicasets/a/b", True),
        (("*.*",), "/registry/widgets/a", True),
        (("widgets.example.com",), "/registry/example.com/widgets/a/b", True),
    ],
)
def test_which_resources(resources: tuple[str, ...], path: str, sealed: bool) -> None:
    assert Ring(on("k1", resources=resources)).seal(path, b"{}").startswith(b"k8s:enc:") is sealed


def _document(**provider: Any) -> dict[str, Any]:
    resources = [{"resources": ["secrets"], "providers": [provider]}]
    return {"kind": "EncryptionConfiguration", "apiVersion": "apiserver.config.k8s.io/v1", "resources": resources}


@pytest.mark.parametrize(
    "document, fault",
    [
        ([], "not an EncryptionConfiguration"),
        (_document(secretbox={}), "provider secretbox is not served by k1s"),
        (_document(aesgcm={"keys": []}), "at least one key is needed"),
        (_document(aesgcm={"keys": [{"name": "a", "secret": "YQ=="}]}), "must be one of [16 24 32]"),
        (_document(aesgcm={"keys": [{"name": "a", "secret": "?"}]}), "must be base64"),
        (_document(aesgcm={"keys": [{"name": "a:b", "secret": "YQ=="}]}), "without a colon"),
        ({**_document(identity={}), "resources": [{"resources": ["secrets"]}]}, "at least one provider"),
    ],
)
def test_configurations_that_cannot_be_used(document: Any, fault: str) -> None:
    with pytest.raises(EncryptionError) as refused:
        parse(document, "file")
    assert fault in str(refused.value)


def test_a_configuration_survives_its_file() -> None:
    assert parse(json.loads(on("k1", "k2").render()), "f") == on("k1", "k2")


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made: Store = MemoryStore() if request.param == "memory" else SqlStore(tmp_path / "state.db")
    await made.open()
    yield made
    await made.close()


async def test_the_store_above_sees_plain_values(store: Store) -> None:
    ring = Ring()
    above = EncryptedStore(store, ring)
    start = store.revision
    first = await above.create(PATH, b"plain", origin=BY)
    ring.load(on("k1"))
    second = await above.update(PATH, b"sealed", expected=first, origin=BY)
    other = await above.create("/registry/configmaps/a/b", b"{}", origin=BY)
    below = await store.get(PATH)
    assert below is not None and below.value.startswith(b"k8s:enc:aesgcm")
    found = await above.get(PATH)
    assert found is not None and (found.value, found.revision) == (b"sealed", second)
    assert [item.value for item in (await above.list("/registry/")).items] == [b"{}", b"sealed"]
    assert [item.value for item in (await above.list("/registry/secrets/", revision=first)).items] == [b"plain"]
    with pytest.raises(RevisionConflict) as lost:
        await above.update(PATH, b"x", expected=first, origin=BY)
    assert lost.value.current.value == b"sealed"
    await above.delete(PATH, origin=BY)
    events: list[Any] = []
    async for batch in above.watch("/", after=start):
        events += [e for e in batch if e.key.startswith("/registry/")]
        if len(events) >= 4:
            break
    assert [(e.value, e.previous) for e in events if e.key == PATH] == [
        (b"plain", b""), (b"sealed", b"plain"), (b"", b"sealed")
    ]  # fmt: skip
    past, _ = await above.history("/registry/secrets/", after=start, upto=other)
    assert [e.value for e in past] == [b"plain", b"sealed"]


async def done(rotation: Rotation) -> None:
    async with asyncio.timeout(10):
        while not rotation.progress.finished:
            await rotation.moved()
    assert not rotation.progress.failed


async def plain(store: Store, ring: Ring) -> dict[str, bytes]:
    listing = await EncryptedStore(store, ring).list("/registry/secrets/")
    return {item.key: item.value for item in listing.items}


async def sealed_with(store: Store) -> set[bytes]:
    listing = await store.list("/registry/secrets/")
    return {item.value.split(b":")[4] if item.value.startswith(b"k8s:enc:") else b"" for item in listing.items}


async def test_the_life_of_keys(store: Store, tmp_path: Path) -> None:
    directory = tmp_path / "cred"
    rotation = await encrypt.open_encryption(store, directory, REAL_CLOCK)
    above = EncryptedStore(store, rotation.ring)
    values = {f"/registry/secrets/default/s{i:04d}": b"v%d" % i for i in range(700)}
    for key, value in values.items():
        await above.create(key, value, origin=BY)
    for verb in (rotation.rotate, rotation.prepare):
        with pytest.raises(EncryptionError, match="disabled"):
            verb()
    rotation.enable()
    with pytest.raises(EncryptionError, match="right now"):
        rotation.rotate()
    await above.create("/registry/secrets/default/new", b"new", origin=BY)
    values["/registry/secrets/default/new"] = b"new"
    await done(rotation)
    (first,) = rotation.keys
    assert await sealed_with(store) == {first.name.encode()} and await plain(store, rotation.ring) == values
    assert rotation.progress.done == rotation.progress.total >= 700
    # What was plain before is compacted.
    assert store.compacted_revision >= len(values)
    for name in ("encryption-config.json", "encryption-state.json"):
        assert os.stat(directory / name).st_mode & 0o777 == 0o600

    rotation.prepare()
    with pytest.raises(EncryptionError, match="rotate is the next step"):
        rotation.reencrypt()
    rotation.rotate()
    await above.create("/registry/secrets/default/newer", b"newer", origin=BY)
    values["/registry/secrets/default/newer"] = b"newer"
    assert await sealed_with(store) == {key.name.encode() for key in rotation.keys} and len(rotation.keys) == 2
    rotation.reencrypt()
    await done(rotation)
    (second,) = rotation.keys
    assert second != first and await sealed_with(store) == {second.name.encode()}
    rotation.rotate_keys()
    await done(rotation)
    assert len(rotation.keys) == 1 and second not in rotation.keys

    again = await encrypt.open_encryption(store, directory, REAL_CLOCK, wanted=True)
    assert again.keys == rotation.keys and await plain(store, again.ring) == values
    rotation.disable()
    await done(rotation)
    assert await sealed_with(store) == {b""} and await plain(store, rotation.ring) == values
    assert not encrypt.status(rotation)["enabled"] and len(encrypt.status(rotation)["keys"]) == 1
    after = await encrypt.open_encryption(store, directory, REAL_CLOCK, wanted=True)
    assert not after.enabled


async def test_a_write_under_way_is_waited_for(tmp_path: Path) -> None:
    """Sealed with the old key, stored after everything was looked at: it would be lost with that key."""
    store, release = MemoryStore(), asyncio.Event()
    await store.open()
    rotation = await encrypt.open_encryption(store, tmp_path, REAL_CLOCK, wanted=True)
    rotation.resume()
    await done(rotation)
    create = store.create

    async def slow(*arguments: Any, **options: Any) -> int:
        await release.wait()
        return await create(*arguments, **options)

    store.create = slow  # type: ignore[method-assign]
    writing = asyncio.create_task(EncryptedStore(store, rotation.ring).create(PATH, b"v", origin=BY))
    await asyncio.sleep(0)
    rotation.rotate_keys()
    await asyncio.sleep(0.05)
    assert not rotation.progress.finished
    release.set()
    await writing
    await done(rotation)
    assert await plain(store, rotation.ring) == {PATH: b"v"} and len(rotation.keys) == 1


class Cut(Exception):
    """The server's end."""


@pytest.mark.parametrize("verb", ["enable", "rotate_keys", "disable"])
@pytest.mark.parametrize("at", range(6))
async def test_a_server_that_ends_in_the_middle(verb: str, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However far it came, the next start reads everything, and goes on to the end."""
    store, directory = MemoryStore(), tmp_path / "cred"
    await store.open()
    rotation = await encrypt.open_encryption(store, directory, REAL_CLOCK, wanted=verb != "enable")
    rotation.resume()
    above = EncryptedStore(store, rotation.ring)
    values = {f"/registry/secrets/default/s{i}": b"v%d" % i for i in range(40)}
    for key, value in values.items():
        await above.create(key, value, origin=BY)
    if verb != "enable":
        await done(rotation)
    steps = 0
    write, update = rotation_module.write_atomic, store.update

    def counted() -> None:
        nonlocal steps
        steps += 1
        if steps > at:
            raise Cut

    def cut_write(*arguments: Any) -> None:
        counted()
        write(*arguments)

    async def cut_update(*arguments: Any, **options: Any) -> int:
        counted()
        return await update(*arguments, **options)

    monkeypatch.setattr(rotation_module, "write_atomic", cut_write)
    monkeypatch.setattr(store, "update", cut_update)
    try:
        getattr(rotation, verb)()
        if rotation._task is not None:
            await asyncio.wait({rotation._task})
    except Cut:
        pass
    if rotation._task is not None:
        await asyncio.gather(rotation._task, return_exceptions=True)
    monkeypatch.undo()

    after = await encrypt.open_encryption(store, directory, REAL_CLOCK)
    assert await plain(store, after.ring) == values
    after.resume()
    await done(after)
    assert await plain(store, after.ring) == values
    getattr(after, verb)()
    await done(after)
    assert await plain(store, after.ring) == values
    wanted = {b""} if verb == "disable" else {after.keys[0].name.encode()}
    assert await sealed_with(store) == wanted


async def test_a_lost_or_wrong_key_stops_the_start_and_nothing_else(store: Store, tmp_path: Path) -> None:
    rotation = await encrypt.open_encryption(store, tmp_path / "cred", REAL_CLOCK, wanted=True)
    await EncryptedStore(store, rotation.ring).create(PATH, b"v", origin=BY)
    with pytest.raises(EncryptionError, match="put back the encryption configuration"):
        await encrypt.open_encryption(store, tmp_path / "other", REAL_CLOCK)
    file = tmp_path / "cred" / "encryption-config.json"
    good = file.read_bytes()
    document = json.loads(good)
    document["resources"][0]["providers"][0]["aesgcm"]["keys"][0]["secret"] = "A" * 43 + "="
    file.write_text(json.dumps(document))
    with pytest.raises(EncryptionError, match="not the one it was written with"):
        await encrypt.open_encryption(store, tmp_path / "cred", REAL_CLOCK)
    file.write_bytes(good[:50])
    with pytest.raises(EncryptionError, match="cannot be read"):
        await encrypt.open_encryption(store, tmp_path / "cred", REAL_CLOCK)
    file.write_bytes(good)
    assert await plain(store, (await encrypt.open_encryption(store, tmp_path / "cred", REAL_CLOCK)).ring) == {PATH: b"v"}


async def test_a_persons_own_configuration(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "e.yaml"
    file.write_bytes(on("mine", resources=("secrets", "configmaps")).render())
    rotation = await encrypt.open_encryption(store, tmp_path, REAL_CLOCK, provider_config=str(file))
    assert rotation.enabled
    with pytest.raises(EncryptionError, match="change that file"):
        rotation.rotate_keys()
    with pytest.raises(EncryptionError, match="exclude each other"):
        await encrypt.open_encryption(store, tmp_path, REAL_CLOCK, wanted=True, provider_config=str(file))


@asynccontextmanager
async def serving(directory: Path, **options: Any) -> AsyncIterator[tuple[Api, Rotation]]:
    store = SqlStore(directory / "state.db")
    await store.open()
    rotation = await encrypt.open_encryption(store, directory / "cred", REAL_CLOCK, **options)
    everybody = AllowAll()
    above = EncryptedStore(store, rotation.ring)
    server = ApiServer(above, authenticator=everybody, authorizer=everybody, paths=encrypt.paths(rotation))
    ready = asyncio.Event()
    task = asyncio.create_task(server.run(ready.set))
    try:
        await asyncio.wait_for(ready.wait(), 5)
        rotation.resume()
        yield Api(server, None, store), rotation  # type: ignore[arg-type]
    finally:
        await rotation.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.close()


async def _verb(api: Api, verb: str) -> list[dict[str, Any]]:
    answer = await api.send("POST", f"{encrypt.ROOT}{verb}")
    assert isinstance(answer, Stream)
    return [orjson.loads(line) async for line in answer.chunks]


async def test_through_the_api_and_in_the_file(tmp_path: Path) -> None:
    async with serving(tmp_path) as (api, _):
        await api.ok("POST", SECRETS, secret("a"))
        watch = await api.watch(f"{SECRETS}?watch=1&resourceVersion=0")
        assert (await watch.next())["object"]["metadata"]["name"] == "a"
        lines = await _verb(api, "enable")
        assert lines[-1] | {"stage": ""} == {"done": 1, "total": 1, "finished": True, "failed": "", "stage": ""}
        changed = await watch.next()
        assert changed["type"] == "MODIFIED" and changed["object"]["data"]["p"]
        await watch.close()
        await api.ok("POST", SECRETS, secret("b"))
        await api.ok("PATCH", f"{SECRETS}/b", {"stringData": {"q": WORD}}, type="application/merge-patch+json")
        assert [item["metadata"]["name"] for item in (await api.ok("GET", SECRETS))["items"]] == ["a", "b"]
        status = await api.ok("GET", f"{encrypt.ROOT}status")
        assert status["enabled"] and "secret" not in orjson.dumps(status["keys"]).decode()
        assert (await api("GET", f"{encrypt.ROOT}rotate")).status == 405
        assert (await api("POST", f"{encrypt.ROOT}other")).status == 404
        await api.store._compactor.swept()  # type: ignore[attr-defined]
    content = b"".join(file.read_bytes() for file in tmp_path.glob("state.db*"))
    assert WORD.encode() not in content
    assert base64.b64encode(WORD.encode()) not in content
    async with serving(tmp_path) as (api, rotation):
        assert rotation.enabled
        assert len((await api.ok("GET", SECRETS))["items"]) == 2


async def test_the_option_encrypts_what_is_there(tmp_path: Path) -> None:
    async with serving(tmp_path) as (api, _):
        await api.ok("POST", SECRETS, secret("a"))
    async with serving(tmp_path, wanted=True) as (api, rotation):
        await done(rotation)
        assert b"" not in await sealed_with(api.store)
        refused = await api.send("POST", f"{encrypt.ROOT}nothing")
        assert isinstance(refused, Response)


async def test_only_administrators_may(tmp_path: Path) -> None:
    from k1s.server.apiserver.attributes import RequestInfo
    from k1s.server.defaults import rbac

    granted = [
        url
        for obj in rbac.objects()
        for rule in obj.get("rules") or ()
        for url in rule.get("nonResourceURLs") or ()
        if obj["metadata"]["name"] != "cluster-admin"
    ]
    path = RequestInfo(False, f"{encrypt.ROOT}status", "get").path
    assert not [url for url in granted if url == path or (url.endswith("*") and path.startswith(url[:-1]))]
    assert Request("GET", path).path == path
