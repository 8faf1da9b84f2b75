"""What helm is to be run with for a HelmChart.

Owns: the meaning of a HelmChart's and a HelmChartConfig's fields: release, namespace, chart, values, flags, the hash that tells
whether anything changed. Called by: helm/controller. Never does: I/O. Pure.
Source: helm.cattle.io/v1 as k3s' helm-controller has it. What a pod would have needed (jobImage, helmVersion, bootstrap,
backOffLimit, securityContext) has no meaning here and is ignored.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from k1s.api import meta
from k1s.server.addons.chart_values import BadValues, parse_values

Object = dict[str, Any]
# Secrets of the chart's namespace by name; None where there is none.
Secrets = Mapping[str, Object | None]

DEFAULT_TIMEOUT = 300.0
MAX_TIMEOUT = 3600.0
STATIC = "https://%{KUBERNETES_API}%/static/"
_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ns|us|ms|s|m|h))+\Z")
# Words and numbers of `set` are what they look like, everything else is text (k3s).
_TYPED = re.compile(r"(?:true|false|null|-?[0-9]+(?:\.[0-9]+)?)\Z", re.IGNORECASE)


class BadChart(Exception):
    """The HelmChart cannot be run as it stands; the message names the field."""


@dataclass(slots=True)
class Plan:
    """One run. `files`: name -> content, to be written privately; flags refer to them as {name}."""

    release: str
    namespace: str
    chart: str
    flags: list[str]
    files: dict[str, bytes] = field(default_factory=dict)
    timeout: float = DEFAULT_TIMEOUT
    reinstall: bool = True
    # A repository with credentials is used by name: a password is not for the command line.
    repository: str = ""
    local: Path | None = None

    def digest(self) -> str:
        """Changes with everything that helm would see."""
        content = {name: hashlib.sha256(data).hexdigest() for name, data in self.files.items()}
        text = json.dumps([self.release, self.namespace, self.chart, self.flags, content, self.timeout, self.reinstall])
        return hashlib.sha256(text.encode()).hexdigest()


def secret_names(chart: Object, config: Object | None) -> set[str]:
    """The Secrets whose change is to be noticed."""
    spec = chart.get("spec") or {}
    names = {ref.get("name") for ref in (spec.get("authSecret"), spec.get("dockerRegistrySecret")) if ref}
    for source in (spec, (config or {}).get("spec") or {}):
        names |= {entry.get("name") for entry in source.get("valuesSecrets") or [] if not entry.get("ignoreUpdates")}
    return {name for name in names if name}


def plan(chart: Object, config: Object | None, secrets: Secrets, static_dir: Path, ca: str = "") -> Plan:
    """`ca`: the content of repoCAConfigMap, if one is named. Raises BadChart."""
    spec, more = chart.get("spec") or {}, (config or {}).get("spec") or {}
    out = Plan(release=meta.name(chart), namespace=spec.get("targetNamespace") or meta.namespace(chart), chart="", flags=[])
    out.timeout = _seconds(spec.get("timeout"))
    out.reinstall = (more.get("failurePolicy") or spec.get("failurePolicy") or "reinstall") == "reinstall"
    if spec.get("createNamespace"):
        out.flags.append("--create-namespace")
    if spec.get("takeOwnership"):
        out.flags.append("--take-ownership")
    _source(out, spec, static_dir)
    _credentials(out, spec, secrets, ca)
    _values(out, spec, "spec", secrets)
    _values(out, more, "HelmChartConfig spec", secrets)
    _set(out, spec.get("set") or {})
    return out


def _source(out: Plan, spec: Object, static_dir: Path) -> None:
    chart, version = str(spec.get("chart") or ""), str(spec.get("version") or "")
    if version:
        out.flags.append(f"--version={version}")
    if spec.get("chartContent"):
        try:
            out.files["chart.tgz"] = base64.b64decode("".join(spec["chartContent"].split()), validate=True)
        except binascii.Error as error:
            raise BadChart(f"spec.chartContent: not base64: {error}") from None
        out.chart = "{chart.tgz}"
        out.flags = [flag for flag in out.flags if not flag.startswith("--version")]
        return
    if not chart:
        raise BadChart("spec.chart: required (a chart's name, a URL, a path), unless there is spec.chartContent")
    if chart.startswith(STATIC):
        relative = unquote(chart.removeprefix(STATIC))
        path = static_dir / relative
        if ".." in Path(relative).parts or not path.is_relative_to(static_dir):
            raise BadChart(f"spec.chart: {chart}: leaves the static directory")
        out.local, out.chart = path, str(path)
    elif chart.startswith(("/", "file:///")):
        out.local = Path(chart.removeprefix("file://"))
        out.chart = str(out.local)
    else:
        out.chart = chart
        if spec.get("repo"):
            out.flags.append(f"--repo={spec['repo']}")
        elif "://" not in chart:
            # A bare name: one of the charts that lie on this host.
            out.local = static_dir / "charts" / (f"{chart}-{version}.tgz" if version else f"{chart}.tgz")
            if "/" in chart or ".." in chart or "/" in version:
                raise BadChart(f"spec.chart: {chart}: spec.repo is needed for a chart of a repository")
            out.chart = str(out.local)


def _credentials(out: Plan, spec: Object, secrets: Secrets, ca: str) -> None:
    authority = spec.get("repoCA") or ca
    if authority:
        out.files["ca.pem"] = authority.encode()
        out.flags.append("--ca-file={ca.pem}")
    for key, flag in (("insecureSkipTLSVerify", "--insecure-skip-tls-verify"), ("plainHTTP", "--plain-http")):
        if spec.get(key):
            out.flags.append(flag)
    registry = (spec.get("dockerRegistrySecret") or {}).get("name")
    if registry:
        out.files["registry.json"] = _secret(secrets, registry, ".dockerconfigjson", "spec.dockerRegistrySecret")
        out.flags.append("--registry-config={registry.json}")
    auth = (spec.get("authSecret") or {}).get("name")
    if auth and not spec.get("repo"):
        raise BadChart("spec.authSecret: only for a chart of spec.repo")
    if auth:
        entry: Object = {
            "name": "chart",
            "url": spec["repo"],
            "username": _secret(secrets, auth, "username", "spec.authSecret").decode(),
            "password": _secret(secrets, auth, "password", "spec.authSecret").decode(),
            "pass_credentials_all": bool(spec.get("authPassCredentials")),
            "insecure_skip_tls_verify": bool(spec.get("insecureSkipTLSVerify")),
            "caFile": "{ca.pem}" if authority else "",
        }
        out.files["repositories.yaml"] = json.dumps({"apiVersion": "", "repositories": [entry]}).encode()
        out.repository, out.chart = "chart", f"chart/{out.chart}"
        out.flags = [flag for flag in out.flags if not flag.startswith("--repo=")]
        out.flags.append("--repository-config={repositories.yaml}")


def _values(out: Plan, spec: Object, where: str, secrets: Secrets) -> None:
    """Each source is a file of its own, in the order in which helm is to take them: null means something to it."""
    documents: list[bytes] = []
    if spec.get("valuesContent"):
        text = spec["valuesContent"]
        try:
            parse_values(text, f"{where}.valuesContent")
        except BadValues as error:
            raise BadChart(str(error)) from None
        documents.append(text.encode())
    if spec.get("values"):
        documents.append(json.dumps(spec["values"]).encode())
    for entry in spec.get("valuesSecrets") or []:
        name = entry.get("name") or ""
        if secrets.get(name) is None:
            raise BadChart(f"{where}.valuesSecrets: there is no Secret {name}")
        keys = entry.get("keys") or sorted((secrets[name] or {}).get("data") or {})
        documents.extend(_secret(secrets, name, key, f"{where}.valuesSecrets") for key in keys)
    for document in documents:
        name = f"values-{len(out.files)}.yaml"
        out.files[name] = document
        out.flags.append(f"--values={{{name}}}")


def _set(out: Plan, pairs: Mapping[str, Any]) -> None:
    """`set` is stronger than all values. Text travels in files: it may be a password."""
    for number, (key, value) in enumerate(sorted(pairs.items())):
        if any(char in key for char in "=,{}") or key.startswith("-"):
            raise BadChart(f"spec.set: {key}: not a path of a value")
        if isinstance(value, int) or _TYPED.match(str(value)):
            out.flags.append(f"--set={key}={str(value).lower() if isinstance(value, bool) else value}")
        else:
            out.files[f"set-{number}"] = str(value).encode()
            out.flags.append(f"--set-file={key}={{set-{number}}}")


def _secret(secrets: Secrets, name: str, key: str, where: str) -> bytes:
    secret = secrets.get(name)
    if secret is None:
        raise BadChart(f"{where}: there is no Secret {name}")
    data = (secret.get("data") or {}).get(key)
    if data is None:
        raise BadChart(f"{where}: Secret {name} has no key {key}")
    return base64.b64decode(data)


def _seconds(text: str | None) -> float:
    """A Go duration."""
    if not text:
        return DEFAULT_TIMEOUT
    if not _DURATION.match(text):
        raise BadChart(f"spec.timeout: {text}: not a duration such as 10m or 90s")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([0-9.]+)(ns|us|ms|s|m|h)", text))
    return min(max(seconds, 1.0), MAX_TIMEOUT)
