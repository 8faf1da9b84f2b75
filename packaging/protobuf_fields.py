"""Makes k1s/api/protobuf_fields.txt.gz: the protobuf field numbers of the built-in kinds.

Usage: protobuf_fields.py API APIMACHINERY APIEXTENSIONS AGGREGATOR, each a git directory of the k8s.io repository of that name.
OpenAPI does not say how a field is numbered, and client-go has sent its requests as protobuf since v1.32. The numbers, and
which fields are pointers (present although zero), stand in the tags of the Go types; nothing else is taken from them.
"""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
from pathlib import Path

TARGET = Path(__file__).parent.parent / "k1s" / "api" / "protobuf_fields.txt.gz"

SCALARS = {
    "string": "s",
    "bool": "b",
    "int32": "i",
    "int64": "i",
    "int": "i",
    "uint32": "i",
    "uint64": "i",
    "uint8": "i",
    "byte": "i",
    "float64": "f",
    "[]byte": "y",
}
SPECIAL = {
    "k8s.io/apimachinery/pkg/api/resource.Quantity": "Q",
    "k8s.io/apimachinery/pkg/util/intstr.IntOrString": "O",
    "k8s.io/apimachinery/pkg/runtime.RawExtension": "R",
    "k8s.io/apimachinery/pkg/apis/meta/v1.Time": "T",
    "k8s.io/apimachinery/pkg/apis/meta/v1.MicroTime": "U",
    "k8s.io/apimachinery/pkg/apis/meta/v1.Duration": "D",
    "k8s.io/apimachinery/pkg/apis/meta/v1.FieldsV1": "F",
    "k8s.io/apimachinery/pkg/types.UID": "s",
    "k8s.io/apimachinery/pkg/types.NodeName": "s",
    "k8s.io/apimachinery/pkg/types.NamespacedName": "s",
    "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSON": "F",
    "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrArray": "A",
    "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrBool": "B",
    "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrStringArray": "S",
}
TYPE = re.compile(r"^type (\w+) (?:= )?(struct \{|.+?)\s*(?://.*)?$")
FIELD = re.compile(r"^\s+(?:(\w+)\s+)?([\w.*\[\]]+)\s+`(.*)`")
IMPORT = re.compile(r'^(?:import)?\s+(?:(\w+)\s+)?"([^"]+)"')


def show(repository: str, file: str) -> str:
    return subprocess.run(["git", "-C", repository, "show", f"HEAD:{file}"], check=True, capture_output=True, text=True).stdout


def files(repository: str) -> list[str]:
    out = subprocess.run(["git", "-C", repository, "ls-tree", "-r", "HEAD", "--name-only"], check=True, capture_output=True)
    return out.stdout.decode().splitlines()


class Package:
    def __init__(self, path: str) -> None:
        self.path = path
        self.structs: dict[str, list[tuple[str, str, str]]] = {}
        self.named: dict[str, str] = {}
        self.imports: dict[str, str] = {}

    def read(self, text: str) -> None:
        current: list[tuple[str, str, str]] | None = None
        for line in text.splitlines():
            if current is not None:
                if line.startswith("}"):
                    current = None
                    continue
                match = FIELD.match(line)
                if match:
                    current.append((match.group(1) or "", match.group(2), match.group(3)))
                continue
            match = IMPORT.match(line)
            if match and "/" in match.group(2):
                self.imports[match.group(1) or match.group(2).rpartition("/")[2]] = match.group(2)
            match = TYPE.match(line)
            if match and match.group(2) == "struct {":
                current = self.structs.setdefault(match.group(1), [])
            elif match:
                self.named[match.group(1)] = match.group(2).strip()


def load(api: str, machinery: str, extensions: str, aggregator: str) -> dict[str, Package]:
    packages: dict[str, Package] = {}

    def add(path: str, repository: str, file: str) -> None:
        packages.setdefault(path, Package(path)).read(show(repository, file))

    for file in files(api):
        match = re.fullmatch(r"(\w+/v\d)/types\w*\.go", file)
        if match and "swagger" not in file and not file.endswith("_test.go"):
            add(f"k8s.io/api/{match.group(1)}", api, file)
    add("k8s.io/apimachinery/pkg/apis/meta/v1", machinery, "pkg/apis/meta/v1/types.go")
    for name in ("types.go", "types_jsonschema.go"):
        add("k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1", extensions, f"pkg/apis/apiextensions/v1/{name}")
    add("k8s.io/kube-aggregator/pkg/apis/apiregistration/v1", aggregator, "pkg/apis/apiregistration/v1/types.go")
    return packages


def resolve(packages: dict[str, Package], package: Package, go: str) -> str:
    """The code of a Go type: modifiers (* pointer, [ list, { map) and then a scalar, a special form or @message."""
    if go in SCALARS:
        return SCALARS[go]
    if go.startswith("*"):
        return "*" + resolve(packages, package, go[1:])
    if go.startswith("[]"):
        return "[" + resolve(packages, package, go[2:])
    if go.startswith("map["):
        return "{" + resolve(packages, package, go.partition("]")[2])
    if "." in go:
        alias, _, name = go.partition(".")
        path = package.imports[alias]
    else:
        path, name = package.path, go
    full = f"{path}.{name}"
    if full in SPECIAL:
        return SPECIAL[full]
    owner = packages[path]
    if name in owner.structs or owner.named[name] == "struct{}":
        return f"@{full}"
    inner = resolve(packages, owner, owner.named[name])
    # A named list or map is a message of its own, with the elements in field 1.
    return f"+{inner[1:]}" if inner[:1] == "[" else inner


def main() -> None:
    packages = load(*sys.argv[1:5])
    lines: list[str] = []
    for path, package in sorted(packages.items()):
        for name, fields in sorted(package.structs.items()):
            parts = []
            for field, go, tags in fields:
                json = re.search(r'json:"([^"]*)"', tags)
                number = re.search(r'protobuf:"\w+,(\d+)', tags)
                if json is None or json.group(1) == "-" or (number is None and go == "metav1.TypeMeta"):
                    continue
                if number is None:
                    continue
                label, _, options = json.group(1).partition(",")
                try:
                    code = resolve(packages, package, go)
                except KeyError as error:
                    print(f"left out: {path}.{name}.{field} {go} ({error})", file=sys.stderr)
                    continue
                if not label:
                    label = "<"  # its fields are the owner's
                if code[0] == "+" and ",rep," in tags:
                    code = "[" + code[1:]
                optional = "?" if "omit" in options else ""
                parts.append(f"{number.group(1)} {label}{optional} {code}")
            if parts:
                lines.append(f"{short(path)}.{name}\t" + "\t".join(short(part) for part in parts))
    data = "\n".join(lines) + "\n"
    TARGET.write_bytes(gzip.compress(data.encode(), 9, mtime=0))
    print(f"{len(lines)} messages, {len(data)} bytes, {TARGET.stat().st_size} compressed")


def short(text: str) -> str:
    for long, brief in (
        ("k8s.io/apimachinery/pkg/apis/meta/v1", "meta/v1"),
        ("k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1", "apiextensions/v1"),
        ("k8s.io/kube-aggregator/pkg/apis/apiregistration/v1", "apiregistration/v1"),
        ("k8s.io/api/", ""),
    ):
        text = text.replace(long, brief)
    return text


main()
