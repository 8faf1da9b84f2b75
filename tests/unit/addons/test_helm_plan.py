"""What helm is run with: pure."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from k1s.server.addons.helm.plan import BadChart, plan, secret_names

Object = dict[str, Any]
STATIC = Path("/data/server/static")


def chart(**spec: Any) -> Object:
    return {"metadata": {"name": "web", "namespace": "apps"}, "spec": spec}


def config(**spec: Any) -> Object:
    return {"metadata": {"name": "web", "namespace": "apps"}, "spec": spec}


def secret(**data: str) -> Object:
    return {"data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}}


def test_a_chart_of_a_repository() -> None:
    made = plan(chart(chart="nginx", repo="https://charts.example.com", version="1.2.3", createNamespace=True), None, {}, STATIC)
    assert (made.release, made.namespace, made.chart, made.local) == ("web", "apps", "nginx", None)
    assert made.flags == ["--create-namespace", "--version=1.2.3", "--repo=https://charts.example.com"]
    assert made.reinstall and made.timeout == 300 and not made.files


def test_content_goes_into_a_file() -> None:
    made = plan(
        chart(chartContent=base64.b64encode(b"tgz").decode() + "\n", targetNamespace="web", version="9"), None, {}, STATIC
    )
    assert (made.namespace, made.chart, made.files, made.flags) == ("web", "{chart.tgz}", {"chart.tgz": b"tgz"}, [])


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("https://%{KUBERNETES_API}%/static/charts/a%20b-1.tgz", "/data/server/static/charts/a b-1.tgz"),
        ("/srv/charts/a.tgz", "/srv/charts/a.tgz"),
        ("file:///srv/charts/a.tgz", "/srv/charts/a.tgz"),
        ("a", "/data/server/static/charts/a-2.tgz"),
    ],
)
def test_files_of_this_host(name: str, path: str) -> None:
    made = plan(chart(chart=name, version="2"), None, {}, STATIC)
    assert made.chart == path and made.local == Path(path)


def test_values_in_their_order_each_in_a_file() -> None:
    made = plan(
        chart(
            chart="/a.tgz",
            valuesContent="a: 1\n",
            values={"b": None},
            valuesSecrets=[{"name": "s", "keys": ["two"]}, {"name": "t"}],
        ),
        config(valuesContent="a: 2\n", failurePolicy="abort"),
        {"s": secret(one="x: 1", two="y: 2"), "t": secret(z="z: 1")},
        STATIC,
    )
    names = [flag.removeprefix("--values={").rstrip("}") for flag in made.flags]
    assert [made.files[name] for name in names] == [b"a: 1\n", b'{"b": null}', b"y: 2", b"z: 1", b"a: 2\n"]
    assert not made.reinstall


def test_set_keeps_text_off_the_command_line() -> None:
    made = plan(chart(chart="/a.tgz", set={"n": 3, "t": "TRUE", "f": "1.5", "p.q": "s3cret,x", "v": "1.2.3"}), None, {}, STATIC)
    assert made.flags == ["--set=f=1.5", "--set=n=3", "--set-file=p.q={set-2}", "--set=t=TRUE", "--set-file=v={set-4}"]
    assert made.files == {"set-2": b"s3cret,x", "set-4": b"1.2.3"}


def test_credentials_are_in_files() -> None:
    made = plan(
        chart(chart="nginx", repo="https://r", repoCA="PEM", authSecret={"name": "auth"}, dockerRegistrySecret={"name": "reg"}),
        None,
        {"auth": secret(username="u", password="p"), "reg": secret(**{".dockerconfigjson": "{}"})},
        STATIC,
    )
    assert made.chart == "chart/nginx" and made.repository == "chart"
    assert not any("--repo=" in flag or flag == "p" for flag in made.flags)
    entry = json.loads(made.files["repositories.yaml"])["repositories"][0]
    assert (entry["username"], entry["password"], entry["url"], entry["caFile"]) == ("u", "p", "https://r", "{ca.pem}")
    assert made.files["registry.json"] == b"{}" and made.files["ca.pem"] == b"PEM"


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("1h30m", 3600), ("10m", 600), ("1.5m", 90), ("10ms", 1)])
def test_timeouts(text: str, seconds: float) -> None:
    assert plan(chart(chart="/a", timeout=text), None, {}, STATIC).timeout == seconds


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({}, "spec.chart: required"),
        ({"chart": "x/y"}, "spec.repo is needed"),
        ({"chart": "https://%{KUBERNETES_API}%/static/../../etc/passwd"}, "leaves the static directory"),
        ({"chart": "https://%{KUBERNETES_API}%/static/%2e%2e/tls/x"}, "leaves the static directory"),
        ({"chartContent": "?"}, "spec.chartContent: not base64"),
        ({"chart": "/a", "timeout": "soon"}, "spec.timeout: soon"),
        ({"chart": "/a", "valuesContent": "- 1"}, "spec.valuesContent: must be a mapping"),
        ({"chart": "/a", "valuesContent": "a: ["}, "spec.valuesContent: yaml:"),
        ({"chart": "/a", "valuesSecrets": [{"name": "s", "keys": ["k"]}]}, "there is no Secret s"),
        ({"chart": "/a", "set": {"a=b,c": "x"}}, "spec.set: a=b,c: not a path"),
        ({"chart": "/a", "authSecret": {"name": "s"}}, "spec.authSecret: only for"),
    ],
)
def test_what_cannot_be_run_is_named(spec: Object, says: str) -> None:
    with pytest.raises(BadChart) as caught:
        plan(chart(**spec), None, {}, STATIC)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_the_digest_changes_with_everything_that_helm_sees() -> None:
    variants = [
        plan(chart(chart="/a", **more), other, {}, STATIC).digest()
        for more, other in (
            ({}, None),
            ({"valuesContent": "a: 1"}, None),
            ({"valuesContent": "a: 2"}, None),
            ({}, config(valuesContent="a: 3")),
            ({"targetNamespace": "x"}, None),
            ({"set": {"a": 1}}, None),
            ({"set": {"a": "text"}}, None),
            ({"set": {"a": "other"}}, None),
            ({"timeout": "9m"}, None),
        )
    ]
    assert len(set(variants)) == len(variants)
    # What a pod would have needed has no meaning here.
    ignored = chart(chart="/a", jobImage="x", helmVersion="v3", bootstrap=True, backOffLimit=3)
    assert plan(ignored, None, {}, STATIC).digest() == variants[0]


def test_the_secrets_to_watch() -> None:
    used = chart(authSecret={"name": "a"}, valuesSecrets=[{"name": "b"}, {"name": "c", "ignoreUpdates": True}])
    assert secret_names(used, config(valuesSecrets=[{"name": "d"}])) == {"a", "b", "d"}
