"""HelmChart objects with a helm that does what the test says."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from k1s.api import meta
from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from tests.wire.addon_rig import Rig, addon_rig

Object = dict[str, Any]

# Notes each call with the values it was given; `status` is what it says of releases, `fail` what upgrades end with.
HELM = """#!/bin/sh
here=$(dirname "$0")
echo "$@" >> "$here/calls"
for word in "$@"; do
    case "$word" in
        --values=*) cat "${word#--values=}" >> "$here/values"; stat -c %a "${word#--values=}" >> "$here/modes";;
        --set-file=*) echo "$(cat "${word##*=}")" >> "$here/values";;
    esac
done
case "$1" in
    version) echo v4.3.1;;
    status) if [ -s "$here/status" ]; then cat "$here/status"; else echo "Error: release: not found"; exit 1; fi;;
    upgrade) if [ -s "$here/fail" ]; then echo "a warning"; cat "$here/fail"; exit 1; fi;;
esac
"""


class HelmRig:
    def __init__(self, rig: Rig, bin_dir: Path) -> None:
        self.rig, self.bin = rig, bin_dir

    def says(self, status: str = "", fail: str = "") -> None:
        (self.bin / "status").write_text(json.dumps({"info": {"status": status}}) if status else "")
        (self.bin / "fail").write_text(fail)

    def calls(self) -> list[str]:
        file = self.bin / "calls"
        words = [line.split()[0] for line in file.read_text().splitlines()] if file.exists() else []
        return [word for word in words if word != "version"]

    def noted(self, name: str) -> str:
        return (self.bin / name).read_text() if (self.bin / name).exists() else ""

    async def create(self, kind: str = "HelmChart", **spec: Any) -> Object:
        resource = await self.rig.until(lambda: self.rig.server.catalog.by_kind("helm.cattle.io", "v1", kind))
        return await self.rig.client.create(resource, {"metadata": {"name": "web", "namespace": "default"}, "spec": spec})

    async def change(self, spec: Object, kind: str = "HelmChart") -> None:
        resource = self.rig.server.catalog.by_kind("helm.cattle.io", "v1", kind)
        assert resource is not None
        await self.rig.client.patch(resource, "web", "default", {"spec": spec})

    async def delete(self, kind: str = "HelmChart") -> None:
        resource = self.rig.server.catalog.by_kind("helm.cattle.io", "v1", kind)
        assert resource is not None
        await self.rig.client.delete(resource, "web", "default")

    def chart(self) -> Object | None:
        return self.rig.find("HelmChart", "web", api_version="helm.cattle.io/v1")

    def reason(self) -> str:
        return str((meta.condition(self.chart() or {}, "Deployed") or {}).get("reason", ""))

    def message(self) -> str:
        return str((meta.condition(self.chart() or {}, "Deployed") or {}).get("message", ""))


@pytest.fixture
async def helm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[HelmRig]:
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    (bin_dir / "helm").write_text(HELM)
    (bin_dir / "helm").chmod(0o755)
    monkeypatch.setenv("K1S_BIN_DIR", str(bin_dir))
    archive = tmp_path / "server" / "static" / "charts" / "web.tgz"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(b"tgz")
    async with addon_rig(tmp_path) as rig:
        yield HelmRig(rig, bin_dir)


async def test_installed_once_changed_and_uninstalled(helm: HelmRig) -> None:
    async with helm.rig.running():
        await helm.create(chart="web", valuesContent="a: 1", set={"pass": "s3cret"})
        await helm.rig.until(lambda: helm.reason() == "Deployed")
        assert helm.calls() == ["status", "upgrade"]
        assert "s3cret" not in helm.noted("calls") and "s3cret" in helm.noted("values")
        assert set(helm.noted("modes").split()) == {"600"}
        helm.says("deployed")
        await helm.create("HelmChartConfig", valuesContent="b: 2")
        await helm.rig.until(lambda: helm.noted("values").endswith("a: 1b: 2s3cret\n"))
        assert helm.calls() == ["status", "upgrade"] * 2
        await helm.rig.settled()
    async with helm.rig.running():
        await helm.rig.settled()
        assert len(helm.calls()) == 4, "a restart runs nothing"
        await helm.delete("HelmChartConfig")
        await helm.rig.until(lambda: len(helm.calls()) == 6)
        await helm.delete()
        await helm.rig.until(lambda: helm.chart() is None)
        assert helm.calls()[-1] == "uninstall"
    assert not list((helm.rig.home / "server" / "helm").glob("run-*")), "private files are gone"


async def test_a_secret_of_values_is_followed(helm: HelmRig) -> None:
    secrets = builtin("Secret")
    async with helm.rig.running():
        await helm.create(chart="web", valuesSecrets=[{"name": "v"}])
        await helm.rig.until(lambda: helm.reason() == "ChartRefused" and "there is no Secret v" in helm.message())
        await helm.rig.client.create(secrets, {"metadata": {"name": "v", "namespace": "default"}, "stringData": {"x": "x: 1"}})
        await helm.rig.until(lambda: helm.reason() == "Deployed")
        await helm.rig.client.patch(secrets, "v", "default", {"stringData": {"x": "x: 2"}})
        await helm.rig.until(lambda: "x: 2" in helm.noted("values"))


async def test_a_failure_is_told_and_put_right_by_a_change(helm: HelmRig) -> None:
    async with helm.rig.running():
        helm.says(fail="Error: no such\n  luck")
        await helm.create(chart="web")
        await helm.rig.until(lambda: helm.reason() == "HelmFailed")
        assert helm.message() == "helm upgrade: no such luck"
        await helm.rig.until(lambda: helm.rig.events("HelmFailed"))
        await helm.rig.settled()
        assert helm.calls() == ["status", "upgrade"], "not again at once"
        helm.says("failed")
        await helm.change({"valuesContent": "a: 1"})
        await helm.rig.until(lambda: helm.reason() == "Deployed")
        assert helm.calls()[2:] == ["status", "uninstall", "upgrade"], "the half installed release goes first"


@pytest.mark.parametrize(
    ("status", "policy", "calls"),
    [
        ("pending-upgrade", "reinstall", ["status", "rollback", "upgrade"]),
        ("pending-install", "reinstall", ["status", "uninstall", "upgrade"]),
        ("failed", "abort", ["status", "upgrade"]),
        ("pending-install", "abort", ["status"]),
        ("deployed", "reinstall", ["status", "upgrade"]),
    ],
)
async def test_what_an_interrupted_run_left(helm: HelmRig, status: str, policy: str, calls: list[str]) -> None:
    helm.says(status)
    async with helm.rig.running():
        await helm.create(chart="web", failurePolicy=policy)
        await helm.rig.until(lambda: helm.reason())
        assert helm.calls() == calls
        assert (helm.reason() == "Deployed") is ("upgrade" in calls)


async def test_a_host_without_helm_says_so(helm: HelmRig, monkeypatch: pytest.MonkeyPatch) -> None:
    os.rename(helm.bin / "helm", helm.bin / "not-helm")
    monkeypatch.setenv("PATH", "/nonexistent")
    async with helm.rig.running():
        await helm.create(chart="web")
        await helm.rig.until(lambda: helm.reason() == "HelmMissing" and "not on this server's host" in helm.message())
        await helm.rig.until(lambda: helm.rig.events("HelmMissing"))


async def test_a_chart_that_never_ran_goes_without_helm(helm: HelmRig, monkeypatch: pytest.MonkeyPatch) -> None:
    os.rename(helm.bin / "helm", helm.bin / "not-helm")
    monkeypatch.setenv("PATH", "/nonexistent")
    async with helm.rig.running():
        await helm.create(chart="web")
        await helm.rig.until(lambda: helm.reason() == "HelmMissing")
        await helm.delete()
        await helm.rig.until(lambda: helm.chart() is None)


async def test_a_release_does_not_stay_where_its_chart_left(helm: HelmRig) -> None:
    async with helm.rig.running():
        await helm.create(chart="web", targetNamespace="old")
        await helm.rig.until(lambda: helm.reason() == "Deployed")
        await helm.change({"targetNamespace": "new"})
        await helm.rig.until(lambda: "deployed in new" in helm.message())
        assert helm.calls() == ["status", "upgrade", "uninstall", "status", "upgrade"]
        assert "--namespace=old" in helm.noted("calls").splitlines()[-3]
        await helm.delete()
        await helm.rig.until(lambda: helm.chart() is None)
        assert "--namespace=new" in helm.noted("calls").splitlines()[-1]


async def test_what_others_manage_is_left_alone(helm: HelmRig) -> None:
    async with helm.rig.running():
        resource = await helm.rig.until(lambda: helm.rig.server.catalog.by_kind("helm.cattle.io", "v1", "HelmChart"))
        await helm.rig.client.create(
            resource,
            {
                "metadata": {
                    "name": "web",
                    "namespace": "default",
                    "annotations": {"helmcharts.helm.cattle.io/unmanaged": "true"},
                },
                "spec": {"chart": "web"},
            },
        )
        await helm.rig.settled()
        assert helm.calls() == [] and not meta.finalizers(helm.chart() or {})


async def test_a_chart_that_lies_nowhere_and_fields_that_do_not_exist(helm: HelmRig) -> None:
    async with helm.rig.running():
        with pytest.raises(ApiError, match="failurePolicy"):
            await helm.create(chart="web", failurePolicy="pray")
        await helm.create(chart="/nowhere/a.tgz")
        await helm.rig.until(lambda: helm.message() == "spec.chart: /nowhere/a.tgz: no such file or directory")
        assert helm.calls() == []
