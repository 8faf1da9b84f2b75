"""Strategic merge and JSON patches must come out as upstream's own code makes them: `kubectl patch --local` runs it.

Random pods and patches, the same ones each time (seeded). More of them: K1S_PATCH_CASES=1000.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from random import Random
from typing import Any

import pytest

from k1s.api.catalog import builtin
from k1s.api.clone import clone
from k1s.api.decode import check_types
from k1s.api.errors import ApiError
from k1s.api.patch.json import apply_json_patch
from k1s.api.patch.strategic import apply_strategic_patch
from k1s.api.prune import prune
from k1s.api.schema import schema_for

Object = dict[str, Any]

TOOLS = Path(os.environ.get("K1S_TOOLS") or Path(__file__).resolve().parents[2] / ".tools")
KUBECTL = TOOLS / "bin" / "kubectl"
CASES = int(os.environ.get("K1S_PATCH_CASES", "60"))

pytestmark = pytest.mark.skipif(not KUBECTL.exists(), reason="no kubectl")


def kubectl(doc: Object, kind: str, patch: Any, folder: Path) -> Any:
    """What kubectl makes of it, or its refusal as text."""
    file = folder / "doc.json"
    file.write_text(json.dumps(doc))
    command = [str(KUBECTL), "patch", "--local", "-f", str(file), "--type", kind, "-p", json.dumps(patch), "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={"HOME": str(folder), "PATH": ""})
    return json.loads(done.stdout) if done.returncode == 0 else done.stderr


def ours(doc: Object, kind: str, patch: Any) -> Any:
    schema = schema_for(builtin("Pod"))
    try:
        out = apply_json_patch(doc, patch) if kind == "json" else apply_strategic_patch(doc, patch, schema)
        prune(out, schema)
        check_types(out, schema)
    except ApiError as error:
        return error.message
    return out


def plain(value: Any) -> Any:
    """Without what is empty, and without directives, which upstream leaves in new list elements until it decodes them."""
    if isinstance(value, dict):
        pairs = {key: plain(child) for key, child in value.items() if not key.startswith("$")}
        return {
            key: child for key, child in pairs.items() if child not in (None, "", {}, []) or (child == {} and key == "emptyDir")
        }
    if isinstance(value, list):
        # Null elements: Go decodes them to the empty string, kubectl has not decoded yet.
        kept = [item for item in value if item not in (None, "") and not (isinstance(item, dict) and item.get("$patch"))]
        return [plain(item) for item in kept]
    return value


class Pods:
    """Random pods and patches of them."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)

    def maybe(self, chance: float = 0.5) -> bool:
        return self.random.random() < chance

    def some(self, things: Any, least: int = 0) -> list[Any]:
        return self.random.sample(things, self.random.randint(least, len(things)))

    def env(self, name: str) -> Object:
        return {"name": name, "value": self.random.choice("123")}

    def container(self, name: str) -> Object:
        parts: Object = {
            "image": self.random.choice("ij"),
            "env": [self.env(n) for n in self.some("ABCD")],
            "ports": [{"containerPort": p, "protocol": self.random.choice(["TCP", "UDP"])} for p in self.some([80, 81, 53])],
            "command": self.some("xyz"),
            "securityContext": {"runAsUser": self.random.randint(0, 2)},
        }
        return {"name": name} | {key: value for key, value in parts.items() if value and self.maybe()}

    def volume(self, name: str) -> Object:
        sources: list[Object] = [{"emptyDir": {}}, {"hostPath": {"path": "/x"}}, {"secret": {"secretName": "s"}}]
        return {"name": name, **self.random.choice(sources)}

    def pod(self) -> Object:
        spec = {
            "containers": [self.container(n) for n in self.some("abcd", 1)],
            "volumes": [self.volume(n) for n in self.some("vwx", 1)],
            "imagePullSecrets": [{"name": n} for n in self.some("klm", 1)],
            "nodeSelector": {n: "1" for n in self.some("klm", 1)},
            "tolerations": [{"key": n} for n in self.some("klm", 1)],
            "hostname": "h",
        }
        metadata = {"name": "p", "labels": {"k": "1"}, "finalizers": [f"x/{n}" for n in self.some("klm", 1)]}
        kept = {key: value for key, value in spec.items() if key == "containers" or self.maybe(0.7)}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": kept}

    def elements(self, parent: Object, field: str, key: str, names: Any, make: Any) -> None:
        """A patch of a list: new and changed elements, deletions, an order for all of them."""
        items = [make(name) for name in self.some(names)]
        listed = [{key: item[key]} for item in items]
        free = [name for name in names if {key: name} not in listed]
        if free and self.maybe(0.3):
            gone = self.random.choice(free)
            free.remove(gone)
            items.insert(self.random.randint(0, len(items)), {key: gone, "$patch": "delete"})
        if self.maybe():
            for name in self.some(free):
                listed.insert(self.random.randint(0, len(listed)), {key: name})
            if listed:
                parent[f"$setElementOrder/{field}"] = listed
        if items:
            parent[field] = items

    def changed_container(self, name: str) -> Object:
        out = self.container(name)
        if self.maybe(0.2):
            out["image"] = None
        if self.maybe(0.3):
            out.pop("env", None)
            self.elements(out, "env", "name", "ABCD", self.env)
        return out

    def changed_volume(self, name: str) -> Object:
        out = self.volume(name)
        return {**out, "$retainKeys": list(out)} if self.maybe() else out

    def strategic(self) -> Object:
        spec: Object = {}
        metadata: Object = {}
        self.elements(spec, "containers", "name", "abcd", self.changed_container)
        if self.maybe():
            self.elements(spec, "volumes", "name", "vwx", self.changed_volume)
        if self.maybe():
            self.elements(spec, "imagePullSecrets", "name", "klm", lambda name: {"name": name})
        if self.maybe(0.3):
            spec["nodeSelector"] = self.random.choice([None, {"k": None, "z": "9"}, {}])
        if self.maybe(0.3):
            spec["tolerations"] = self.random.choice([None, [{"key": "z"}]])
        if self.maybe():
            gone, come = self.some("klm"), self.some("no")
            metadata["$deleteFromPrimitiveList/finalizers"] = [f"x/{n}" for n in gone]
            metadata["finalizers"] = [f"x/{n}" for n in come]
        return {"metadata": metadata, "spec": spec}

    def operations(self) -> list[Object]:
        places = [
            "/metadata/labels/k", "/metadata/finalizers/0", "/metadata/finalizers/-", "/metadata/finalizers/-1", "/spec/hostname",
            "/metadata/finalizers/4", "/spec/hostname/x", "/spec/nodeName", "/metadata/annotations", "/spec/containers/7/image",
            "",
        ]  # fmt: skip
        out: list[Object] = []
        for _ in range(self.random.randint(1, 2)):
            kind = self.random.choice(["add", "remove", "replace", "test", "move", "copy"])
            out.append({"op": kind, "path": self.random.choice(places)})
            if kind in ("move", "copy"):
                out[-1]["from"] = self.random.choice(places[:-1])
            else:
                out[-1]["value"] = {"a": "b"} if out[-1]["path"].endswith("annotations") else self.random.choice("xy")
        return out


# Where upstream refuses, or fails, for reasons of its own: no list to take the type of its elements from.
_UPSTREAM_ONLY = ("no elements in any of the given slices",)


@pytest.mark.parametrize("kind", ["strategic", "json"])
@pytest.mark.parametrize("seed", range(3))
def test_the_same_comes_out(kind: str, seed: int, tmp_path: Path) -> None:
    pods = Pods(seed)
    same = 0
    for _ in range(CASES // 3):
        doc = pods.pod()
        patch: Any = pods.strategic() if kind == "strategic" else pods.operations()
        theirs = kubectl(doc, kind, clone(patch), tmp_path)
        mine = ours(clone(doc), kind, clone(patch))
        if isinstance(theirs, str) and any(text in theirs for text in _UPSTREAM_ONLY):
            continue
        if isinstance(mine, str) and "cannot be handled" in mine:
            # kubectl does not decode the result; a server does.
            continue
        if isinstance(theirs, str) or isinstance(mine, str):
            assert isinstance(theirs, str) and isinstance(mine, str), (doc, patch, mine, theirs)
        else:
            assert plain(mine) == plain(theirs), (doc, patch)
            same += 1
    assert same, "some random patches must apply for this to say anything"
