"""Manifests' texts and names: pure."""

from __future__ import annotations

from pathlib import Path

import pytest

from k1s.server.addons.directory import addon_name
from k1s.server.addons.documents import BrokenManifest, parse

A = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"


def names(text: str) -> list[str]:
    return [document.content["metadata"]["name"] for document in parse(text.encode())]


def test_documents_are_parted_as_kubectl_parts_them() -> None:
    b = A.replace("name: a", "name: b")
    assert names(f"# first\n---\n{A}--- # second\n{b}---\n\n# nothing\n---\n") == ["a", "b"]
    assert names(f"--- {{apiVersion: v1, kind: ConfigMap, metadata: {{name: inline}}}}\n---\n{A}") == ["inline", "a"]
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata:\n  x: |\n    ---\n    y\n  ---z: w\n"
    assert parse(text.encode())[0].content["data"] == {"x": "---\ny\n", "---z": "w"}
    assert names("") == [] and names("# only a comment\n") == []


def test_lists_are_taken_apart_and_what_others_need_comes_first() -> None:
    text = """
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: n}}
- {apiVersion: v1, kind: ConfigMapList, items: [{apiVersion: v1, kind: ConfigMap, metadata: {name: b}}]}
- {apiVersion: v1, kind: Namespace, metadata: {name: n}}
- {apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: d}}
"""
    assert names(text) == ["d", "n", "a", "b"]
    odd = "apiVersion: x/v1\nkind: PlayList\nmetadata: {name: songs}\nitems: [1, 2]\n"
    assert names(odd) == ["songs"]


def test_json() -> None:
    text = b'{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}'
    assert parse(text, json=True)[0].content["metadata"] == {"name": "a"}
    with pytest.raises(BrokenManifest, match="document 1"):
        parse(b"{", json=True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"{A}---\n\n\nb:\n  c: d\n e: f\n", "document 2: .*line 9"),
        ("apiVersion: v1\nkind: List\nitems: [{kind: X}]\n", r"items\[0\].apiVersion: required"),
        ("\xff", "document 1"),
        ("hello\n", r"document 1 \(line 1\): not an object"),
        (A.replace("{name: a}", "{name: a, namespace: 7}"), "metadata.namespace: must be a string"),
    ],
)
def test_what_is_wrong_is_told_on_one_line(text: str, says: str) -> None:
    with pytest.raises(BrokenManifest, match=says) as caught:
        parse(text.encode())
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(BrokenManifest, match="UTF-8"):
        parse(b"a: \xff\xfe")


def test_every_file_has_a_name_of_its_own() -> None:
    files = ["a.yaml", "a.yml", "a.json", "A.yaml", "sub/a.yaml", "sub-a.yaml", "sub a.yaml", "ü.yaml", "x" * 250 + ".yaml"]
    made = [addon_name(Path(file)) for file in files]
    assert len(set(made)) == len(files)
    assert made[:3] == ["a", "a.yml", "a.json"]
    assert all(name == name.lower() and "/" not in name and len(name) <= 253 for name in made)
