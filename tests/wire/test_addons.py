"""Add-ons from a manifests directory, in front of the real API server (memory store, no sockets)."""

from __future__ import annotations

import io
import json
import logging
import tarfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from tests.wire.addon_rig import Rig, addon_rig

OK = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ok}\n---\n"
MAP = 'apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{key: "{value}"}}\n'
DEFINITION = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {kind: Widget, listKind: WidgetList, plural: widgets, singular: widget}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
"""
WIDGET = "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: one}\n"


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with addon_rig(tmp_path) as made:
        yield made


async def test_a_file_is_applied_followed_and_removed(rig: Rig) -> None:
    file = rig.manifests / "things.yaml"
    file.write_text(MAP.format(name="a", value="1") + "---\n" + MAP.format(name="b", value="1"))
    async with rig.running():
        await rig.until(lambda: rig.data("a") and rig.data("b") and rig.applied("things") == "True")
        assert sorted(rig.objects("things")) == ["a", "b"]
        file.write_text(MAP.format(name="a", value="2"))
        await rig.until(lambda: rig.data("a") == "2" and rig.data("b") is None)
        await rig.until(lambda: rig.objects("things") == ["a"])
        later = rig.manifests / "below" / "More Things.yml"
        later.parent.mkdir()
        later.write_text(MAP.format(name="c", value="3"))
        await rig.until(lambda: rig.data("c") == "3")
        file.unlink()
        await rig.until(lambda: rig.data("a") is None and rig.addon("things") is None)
        assert rig.data("c") == "3"
        (rig.manifests / "below").rename(rig.home / "elsewhere")
        await rig.until(lambda: rig.data("c") is None)
        rig.manifests.rename(rig.home / "all")
        await rig.settled()
        (rig.manifests / "again.json").write_text(
            '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"d"},"data":{"key":"4"}}'
        )
        await rig.until(lambda: rig.data("d") == "4")


async def test_nothing_is_written_when_nothing_changed(rig: Rig) -> None:
    (rig.manifests / "a.yaml").write_text(DEFINITION + "---\n" + WIDGET + "---\n" + MAP.format(name="a", value="1"))
    async with rig.running():
        await rig.until(lambda: rig.applied("a") == "True")
        await rig.settled()
    before = rig.everything()
    async with rig.running():
        await rig.settled()
        (rig.manifests / "a.yaml").touch()
        await rig.settled()
    assert rig.everything() == before


async def test_a_file_deleted_while_nobody_looked(rig: Rig) -> None:
    file = rig.manifests / "a.yaml"
    file.write_text(MAP.format(name="a", value="1"))
    async with rig.running():
        await rig.until(lambda: rig.applied("a") == "True")
    file.unlink()
    assert rig.data("a") == "1"
    async with rig.running():
        await rig.until(lambda: rig.data("a") is None and rig.addon("a") is None)


async def test_half_a_file_is_not_read(rig: Rig) -> None:
    file = rig.manifests / "a.yaml"
    whole = MAP.format(name="a", value="1") + "---\n" + MAP.format(name="b", value="1")
    file.write_text(whole)
    async with rig.running():
        await rig.until(lambda: rig.data("a") and rig.data("b") and rig.applied("a") == "True")
        with file.open("w") as slow:
            slow.write(MAP.format(name="a", value="2"))
            slow.flush()
            (rig.manifests / "other.yaml").write_text(MAP.format(name="other", value="1"))
            await rig.until(lambda: rig.data("other"))
            assert rig.data("a") == rig.data("b") == "1"
            slow.write("---\n" + MAP.format(name="b", value="2"))
        await rig.until(lambda: rig.data("a") == rig.data("b") == "2")
        file.write_text("")
        await rig.until(lambda: rig.applied("a") == "False")
        assert rig.data("a") == "2", "an empty file is no wish"


async def test_a_file_of_the_user_replaces_what_k1s_ships(rig: Rig) -> None:
    settings = replace(rig.settings, image_dirs=(rig.home,))
    index = json.dumps({"manifests": [{"annotations": {"io.containerd.image.name": "k1s.io/traefik:1"}}]}).encode()
    with tarfile.open(rig.home / "traefik.tar", "w") as tar:
        info = tarfile.TarInfo("index.json")
        info.size = len(index)
        tar.addfile(info, io.BytesIO(index))
    async with rig.running(settings):
        await rig.until(lambda: rig.applied("traefik") == "True", 20)
        made = rig.find("Deployment", "traefik", "kube-system", "apps/v1")
        assert made is not None and made["spec"]["template"]["spec"]["containers"][0]["image"] == "k1s.io/traefik:1"
        await rig.settled()  # the event of it, too
        before = rig.everything()
    async with rig.running(settings):
        await rig.settled()
        assert rig.everything() == before
        (rig.manifests / "traefik.yaml").write_text(MAP.format(name="mine", value="1"))
        await rig.until(lambda: rig.data("mine") and not rig.find("Deployment", "traefik", "kube-system", "apps/v1"))
        (rig.manifests / "traefik.yaml").unlink()
        await rig.until(lambda: rig.find("Deployment", "traefik", "kube-system", "apps/v1") and not rig.data("mine"), 20)
    (rig.home / "traefik.tar").unlink()
    async with rig.running(settings):
        await rig.settled()
        assert rig.find("Deployment", "traefik", "kube-system", "apps/v1"), "without its image it is not removed"
    async with rig.running(replace(settings, disabled=frozenset({"traefik"}))):
        await rig.until(lambda: rig.addon("traefik") is None, 20)
        assert rig.find("Deployment", "traefik", "kube-system", "apps/v1") is None


async def test_another_servers_add_ons_are_left_alone(rig: Rig) -> None:
    """A second server on the same database, or a database that was put back on another host: no files, and nothing is lost."""
    (rig.manifests / "a.yaml").write_text(MAP.format(name="a", value="1"))
    async with rig.running():
        await rig.until(lambda: rig.applied("a") == "True")
    other = replace(rig.settings, server_dir=rig.home / "other")
    async with rig.running(other):
        await rig.settled()
        assert rig.data("a") == "1" and rig.addon("a")
        other.manifests_dir.joinpath("a.yaml").write_text(MAP.format(name="a", value="2"))
        await rig.until(lambda: rig.data("a") == "2")
        other.manifests_dir.joinpath("a.yaml").unlink()
        await rig.until(lambda: rig.data("a") is None)


async def test_skip_neither_applies_nor_removes(rig: Rig) -> None:
    file, skip = rig.manifests / "a.yaml", rig.manifests / "a.yaml.skip"
    file.write_text(MAP.format(name="a", value="1"))
    async with rig.running():
        await rig.until(lambda: rig.data("a") == "1")
        skip.touch()
        await rig.settled()
        file.write_text(MAP.format(name="a", value="2"))
        await rig.settled()
        assert rig.data("a") == "1"
        skip.unlink()
        await rig.until(lambda: rig.data("a") == "2")
        skip.touch()
        await rig.settled()
        file.unlink()
        await rig.settled()
        assert rig.data("a") == "2"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [1\n", "document 1: while parsing a flow sequence, line 1"),
        (OK + "kind: ConfigMap\nmetadata: {name: x}\n", "document 2 (line 4): apiVersion: required"),
        (OK + "a:\n\tb: 1\n", "line 6"),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: x}\n", "metadata.name: required"),
        ("apiVersion: v1\nkind: ConfigMap\nkind: Secret\nmetadata: {name: x}\n", 'duplicate field "kind"'),
        ("- 1\n", "document 1 (line 1): not an object"),
        (OK + OK, "document 2 (line 4): ConfigMap default/ok is there already"),
    ],
)  # fmt: skip
async def test_a_file_that_cannot_be_read_changes_nothing(
    rig: Rig, caplog: pytest.LogCaptureFixture, text: str, says: str
) -> None:
    file, other = rig.manifests / "a.yaml", rig.manifests / "other.yaml"
    file.write_text(MAP.format(name="a", value="1"))
    async with rig.running():
        await rig.until(lambda: rig.applied("a") == "True")
        with caplog.at_level(logging.ERROR, "k1s.addons"):
            file.write_text(text)
            await rig.until(lambda: rig.applied("a") == "False" and any(str(file) in r.getMessage() for r in caplog.records))
            await rig.settled()
            lines = [r.getMessage() for r in caplog.records if str(file) in r.getMessage()]
        assert len(lines) == 1 and says in lines[0] and "\n" not in lines[0], lines
        assert rig.data("a") == "1" and rig.find("ConfigMap", "ok") is None
        await rig.until(lambda: any(says in message for message in rig.events("ApplyFailed")))
        other.write_text(MAP.format(name="other", value="1"))
        await rig.until(lambda: rig.data("other"))
        file.write_text(MAP.format(name="a", value="2"))
        await rig.until(lambda: rig.data("a") == "2" and rig.applied("a") == "True")


async def test_a_refused_object_is_named_with_its_field_and_the_rest_applied(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    service = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 99999}]}\n"
    odd = MAP.format(name="odd", value="1") + "colour: red\n"
    file = rig.manifests / "mixed.yaml"
    with caplog.at_level(logging.ERROR, "k1s.addons"):
        file.write_text("---\n".join([service, odd, MAP.format(name="fine", value="1")]))
        async with rig.running():
            await rig.until(lambda: rig.applied("mixed") == "False")
            assert rig.data("fine") == "1" and rig.find("ConfigMap", "odd") is None
    lines = [r.getMessage() for r in caplog.records if "mixed" in r.getMessage()]
    assert len(lines) == 2
    assert f"{file}: document 1 (line 1), Service default/s:" in lines[0] and "spec.ports[0].port" in lines[0]
    assert "document 2 (line 5), ConfigMap default/odd:" in lines[1] and ".colour: field not declared in schema" in lines[1]


async def test_an_object_waits_for_its_definition(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    (rig.manifests / "a-widget.yaml").write_text(WIDGET)
    with caplog.at_level(logging.ERROR, "k1s.addons"):
        async with rig.running():
            await rig.until(lambda: 'no kind "Widget"' in "".join(rig.events("ApplyFailed")))
            (rig.manifests / "b.yaml").write_text(WIDGET.replace("one", "two") + "---" + DEFINITION)
            await rig.until(lambda: rig.find("Widget", "one", api_version="example.com/v1"))
            await rig.until(lambda: rig.find("Widget", "two", api_version="example.com/v1"))
            await rig.until(lambda: rig.applied("a-widget") == rig.applied("b") == "True")
    assert not [r for r in caplog.records if "/b.yaml" in r.getMessage()], "a definition of the same file is no fault"


async def test_what_somebody_else_made_stays_and_so_does_a_definition_in_use(rig: Rig) -> None:
    await rig.client.create(builtin("ConfigMap"), {"metadata": {"name": "mine", "namespace": "default"}, "data": {"key": "0"}})
    file = rig.manifests / "a.yaml"
    file.write_text(DEFINITION + "---\n" + WIDGET + "---\n" + MAP.format(name="mine", value="1"))
    async with rig.running():
        await rig.until(lambda: rig.data("mine") == "1" and rig.applied("a") == "True")
        widget = rig.server.catalog.by_kind("example.com", "v1", "Widget")
        assert widget is not None
        await rig.client.create(widget, {"metadata": {"name": "users", "namespace": "default"}})
        file.unlink()
        await rig.until(lambda: rig.addon("a") is None)
        assert rig.data("mine") == "1"
        assert rig.find("Widget", "users", api_version="example.com/v1") is not None
        assert rig.find("Widget", "one", api_version="example.com/v1") is None
        await rig.until(lambda: rig.events("DefinitionInUse"))


async def test_an_object_of_two_files_goes_with_the_last(rig: Rig) -> None:
    first, second = rig.manifests / "a.yaml", rig.manifests / "b.yaml"
    first.write_text(MAP.format(name="shared", value="1"))
    second.write_text(MAP.format(name="shared", value="1"))
    async with rig.running():
        await rig.until(lambda: rig.applied("a") == rig.applied("b") == "True")
        first.unlink()
        await rig.until(lambda: rig.addon("a") is None)
        assert rig.data("shared") == "1"
        second.unlink()
        await rig.until(lambda: rig.data("shared") is None)


async def test_a_passing_refusal_is_tried_again(rig: Rig) -> None:
    (rig.manifests / "a.yaml").write_text(MAP.format(name="a", value="1").replace("{name: a}", "{name: a, namespace: later}"))
    async with rig.running():
        await rig.until(lambda: rig.applied("a") == "False")
        await rig.client.create(builtin("Namespace"), {"metadata": {"name": "later"}})
        await rig.until(lambda: rig.find("ConfigMap", "a", "later"))
        await rig.until(lambda: rig.applied("a") == "True")


async def test_a_record_that_was_deleted_comes_back(rig: Rig) -> None:
    (rig.manifests / "a.yaml").write_text(MAP.format(name="a", value="1"))
    async with rig.running():
        await rig.until(lambda: rig.applied("a") == "True")
        resource = rig.server.catalog.by_kind("k3s.cattle.io", "v1", "Addon")
        assert resource is not None
        old = rig.addon("a")
        await rig.client.delete(resource, "a", "kube-system")
        await rig.until(lambda: rig.applied("a") == "True" and rig.addon("a") != old)
        with pytest.raises(ApiError):
            await rig.client.get(builtin("ConfigMap"), "missing", "default")
