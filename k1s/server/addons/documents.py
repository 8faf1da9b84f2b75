"""From a manifest's text to the objects in it.

Owns: the split into documents, what every document must have, the order in which objects are applied, the words for what is
wrong (document and line, on one line). Called by: manifests, traefik. Never does: I/O, know whether a kind exists. Pure.
Source: what kubectl and k3s take in one file: documents parted by `---`, `kind: List`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from k1s.api.decode import decode_json
from k1s.api.errors import ApiError
from k1s.api.yaml_text import load_yaml

Object = dict[str, Any]

MAX_BYTES = 8 * 1024 * 1024
MAX_DOCUMENTS = 5000
# What others need comes first: kinds before their objects, namespaces before what is in them.
_FIRST = ("CustomResourceDefinition", "Namespace", "PriorityClass", "StorageClass", "IngressClass", "RuntimeClass")
_MARK = re.compile(r"line (\d+), column \d+")


class Identity(NamedTuple):
    """What tells one object from all others; also the form in which records keep it."""

    api_version: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Document:
    """One object of a file; `number` counts documents from 1, `line` is where its document begins."""

    number: int
    line: int
    content: Object

    @property
    def place(self) -> str:
        return f"document {self.number} (line {self.line})"


class BrokenManifest(Exception):
    """The text cannot be read as objects; nothing of it is applied. One line that names the document."""


def parse(text: bytes, *, json: bool = False) -> list[Document]:
    """Every object of the text, lists taken apart, in the order in which they are to be applied."""
    if len(text) > MAX_BYTES:
        raise BrokenManifest(f"larger than {MAX_BYTES // 1024 // 1024} MiB")
    try:
        decoded = text.decode()
    except UnicodeDecodeError as error:
        raise BrokenManifest(f"not UTF-8 text (byte {error.start})") from None
    out: list[Document] = []
    for number, (line, part) in enumerate(_split(decoded) if not json else [(1, decoded)], 1):
        out.extend(_document(number, line, part, json))
        if len(out) > MAX_DOCUMENTS:
            raise BrokenManifest(f"more than {MAX_DOCUMENTS} objects")
    return sorted(out, key=_rank)


def _split(text: str) -> Iterator[tuple[int, str]]:
    """(first line, text) of each document that says anything."""
    start = 1
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        if line.startswith("---") and line[3:4].strip() == "":
            yield from _unless_empty(start, lines)
            start, lines = number, [line[3:]]
        else:
            lines.append(line)
    yield from _unless_empty(start, lines)


def _unless_empty(start: int, lines: list[str]) -> Iterator[tuple[int, str]]:
    if any(line.strip() and not line.lstrip().startswith("#") for line in lines):
        yield start, "".join(lines)


def _document(number: int, line: int, text: str, json: bool) -> Iterator[Document]:
    place = f"document {number} (line {line})"
    try:
        value, duplicates = decode_json(text.encode()) if json else load_yaml(text)
    except (ValueError, ApiError) as error:
        raise BrokenManifest(f"document {number}: {_located(str(error), line)}") from None
    if value is None:
        return
    if duplicates:
        raise BrokenManifest(f'{place}: duplicate field "{duplicates[0]}"')
    for path, obj in _objects(value, ""):
        fault = _fault(obj)
        if fault:
            raise BrokenManifest(f"{place}: {path}{fault}")
        yield Document(number, line, obj)


def _objects(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The object itself, or what a list of objects holds."""
    items = value.get("items") if isinstance(value, dict) else None
    if isinstance(items, list) and str(value.get("kind") or "").endswith("List") and "metadata" not in _named(value):
        for index, item in enumerate(items):
            yield from _objects(item, f"{path}items[{index}].")
    else:
        yield path, value


def _named(value: Object) -> Object:
    """{"metadata": ...} if the object has a name of its own: then `items` is a field of it, not a list of objects."""
    metadata = value.get("metadata")
    return {"metadata": metadata} if isinstance(metadata, dict) and metadata.get("name") else {}


def _fault(obj: Any) -> str:
    if not isinstance(obj, dict):
        return "not an object (a mapping with apiVersion, kind and metadata)"
    for field in ("apiVersion", "kind"):
        if not isinstance(obj.get(field), str) or not obj[field]:
            return f"{field}: required"
    metadata = obj.get("metadata")
    if not isinstance(metadata, dict):
        return "metadata: required"
    if not isinstance(metadata.get("name"), str) or not metadata["name"]:
        return "metadata.name: required (generateName cannot be kept track of)"
    if not isinstance(metadata.get("namespace", ""), str):
        return "metadata.namespace: must be a string"
    return ""


def _rank(document: Document) -> int:
    kind = document.content["kind"]
    return _FIRST.index(kind) if kind in _FIRST else len(_FIRST)


def _located(message: str, start: int) -> str:
    """A parser's message of several lines as one, its line numbers counted from the beginning of the file."""
    flat = " ".join(message.split()).removeprefix("yaml: ")
    flat = re.sub(r' in "<[^"]*>",', ",", flat).replace('in "<byte string>", ', "")
    return _MARK.sub(lambda found: f"line {int(found[1]) + start - 1}", flat)[:400]
