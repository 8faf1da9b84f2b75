"""The flags of admission: plugins that are off, PodSecurity's file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from k1s.api.errors import ApiError
from k1s.server.apiserver.admission.chain import build
from k1s.server.apiserver.admission.pod_security import PodSecurity
from k1s.server.apiserver.admission.settings import AdmissionSettings, read
from k1s.server.apiserver.attributes import AdmissionRequest, UserInfo
from k1s.server.apiserver.config_file import ConfigFileError
from tests.unit.security.test_admission import Absent, authorizer, pod, write

FILE = """
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: PodSecurity
  configuration:
    apiVersion: pod-security.admission.config.k8s.io/v1
    kind: PodSecurityConfiguration
    defaults: {enforce: baseline, enforce-version: v1.30, warn: restricted}
    exemptions: {usernames: [root], runtimeClasses: [kata], namespaces: [free]}
"""


def test_names_of_plugins() -> None:
    assert read(("NodeRestriction",), ("PodSecurity",), "").disabled == {"PodSecurity"}
    for enabled, disabled, text in (
        (("AlwaysPullImages",), (), 'enable-admission-plugins: unknown admission plugin "AlwaysPullImages"'),
        ((), ("Nothing",), "disable-admission-plugins: unknown"),
        (("LimitRanger",), ("LimitRanger",), "LimitRanger in enable-admission-plugins and disable-admission-plugins overlapped"),
    ):
        with pytest.raises(ConfigFileError, match=text):
            read(enabled, disabled, "")


async def test_a_plugin_that_is_off_is_not_asked(informers: Any) -> None:
    informers.put("Namespace", "ns", metadata={"labels": {"pod-security.kubernetes.io/enforce": "baseline"}})
    informers.put("ServiceAccount", "default", "ns")
    bad = pod(hostNetwork=True, serviceAccountName="default")

    async def judged(settings: AdmissionSettings) -> None:
        chain = build(Absent(), informers, authorizer(informers), settings=settings)  # type: ignore[arg-type]
        await chain.validate(write("Pod", bad))

    with pytest.raises(ApiError, match="violates PodSecurity"):
        await judged(AdmissionSettings())
    await judged(AdmissionSettings(frozenset(("PodSecurity",))))


@pytest.mark.parametrize(
    ("namespace", "user", "spec", "refused"),
    [
        ("ns", "u", {}, True),
        ("free", "u", {}, False),
        ("ns", "root", {}, False),
        ("ns", "u", {"runtimeClassName": "kata"}, False),
    ],
)
async def test_defaults_and_exemptions(
    informers: Any, tmp_path: Path, namespace: str, user: str, spec: Any, refused: bool
) -> None:
    (tmp_path / "a.yaml").write_text(FILE)
    step = PodSecurity(informers, read((), (), str(tmp_path / "a.yaml")).pod_security)
    request = write("Pod", pod(hostNetwork=True, **spec), user=UserInfo(user))
    request.namespace = namespace
    assert isinstance(request, AdmissionRequest)
    if refused:
        with pytest.raises(ApiError, match=r'violates PodSecurity "baseline:v1\.30": host namespaces'):
            await step.validate(request)
    else:
        await step.validate(request)
        assert "pod-security.kubernetes.io/exempt" in request.annotations


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("enforce: baseline", "enforce: tight", 'defaults.enforce: "tight" must be one of'),
        ("v1.30", "1.30", 'must be "latest" or "v1.x"'),
        ("name: PodSecurity", "name: EventRateLimit", 'does not configure the plugin "EventRateLimit"'),
        ("kind: AdmissionConfiguration", "kind: Other", "not AdmissionConfiguration"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, old: str, new: str, text: str) -> None:
    (tmp_path / "a.yaml").write_text(FILE.replace(old, new))
    with pytest.raises(ConfigFileError, match=text):
        read((), (), str(tmp_path / "a.yaml"))
