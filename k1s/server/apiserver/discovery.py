"""Discovery: which groups, versions and resources are served, in the old form and in the aggregated one (v2).

Owns: Discovery. Called by: non_resource. Never does: I/O. Documents are made at first use and again after `invalidate`.
Source: apiserver/pkg/endpoints/discovery; kubectl takes the aggregated form by the answer's Content-Type.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from k1s.api.catalog import Catalog, Resource
from k1s.api.errors import path_not_found
from k1s.base.http import Request, Response
from k1s.server.apiserver.answers import encoded, page_not_found
from k1s.server.apiserver.group_order import priority, version_key
from k1s.server.apiserver.negotiation import Media, accepted

Object = dict[str, Any]

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_AGGREGATED_KIND = "APIGroupDiscoveryList"


@dataclass(frozen=True, slots=True)
class RemoteVersion:
    """A version of a group that another server serves. `resources` as aggregated discovery has them."""

    priority: tuple[int, int]
    resources: list[Object]
    current: bool


class Discovery:
    """Bound: one document per group and version, as many as the catalog and `remotes` (which aggregation keeps) have."""

    def __init__(self, catalog: Catalog, address: str) -> None:
        self._catalog, self._address = catalog, address
        self._documents: dict[str, tuple[bytes, str]] = {}
        self.remotes: dict[tuple[str, str], RemoteVersion] = {}
        self._groups: dict[str, list[str]] | None = None

    def groups(self) -> dict[str, list[str]]:
        """Group -> versions, those that clients should prefer first; the core group is ""."""
        if self._groups is None:
            self._groups = self._ordered()
        return self._groups

    def _ordered(self) -> dict[str, list[str]]:
        of_group: dict[str, int] = {}
        versions: dict[str, list[tuple[int, tuple[int, int, int, int, str], str]]] = {}
        served = {(r.group, r.version): priority(r.group, r.version) for r in self._catalog}
        served.update({slot: remote.priority for slot, remote in self.remotes.items()})
        for (group, version), (whole, one) in served.items():
            of_group[group] = max(of_group.get(group, 0), whole)
            versions.setdefault(group, []).append((-one, version_key(version), version))
        names = sorted(versions, key=lambda group: (group != "", -of_group[group], group))
        return {group: [version for _, _, version in sorted(versions[group])] for group in names}

    def invalidate(self) -> None:
        """The catalog has changed."""
        self._documents.clear()
        self._groups = None

    def answer(self, request: Request) -> Response:
        """/api, /apis and what is below. Raises ApiError 404, 406."""
        path = request.path.rstrip("/")
        aggregated = path in ("/api", "/apis")
        media = accepted(request, *((_AGGREGATED_KIND,) if aggregated else ()))
        if media.as_:
            return self._send(request, f"{path}#v2", lambda: self._aggregated(path == "/api"), AGGREGATED, media)
        make = self._maker(path)
        if make is None:
            group = path.split("/")[2] if path.startswith("/apis/") else ""
            # Below a group of our own somebody is in charge, elsewhere nobody.
            raise path_not_found() if any(r.group == group for r in self._catalog if not r.custom) else page_not_found()
        return self._send(request, path, make, media.content_type, media)

    def _send(self, request: Request, slot: str, make: Callable[[], Object], content_type: str, media: Media) -> Response:
        if media.yaml or media.pretty:
            slot = f"{slot}#{'yaml' if media.yaml else 'pretty'}"
        document = self._documents.get(slot)
        if document is None:
            body = encoded(make(), media).body
            document = self._documents[slot] = (body, f'"{hashlib.sha256(body).hexdigest().upper()}"')
        body, etag = document
        headers = [("ETag", etag), ("Vary", "Accept")]
        if etag in request.headers.get("If-None-Match", ""):
            return Response(304, b"", content_type, headers)
        return Response(200, body, content_type, headers)

    def _maker(self, path: str) -> Callable[[], Object] | None:
        parts = path.strip("/").split("/")
        groups = self.groups()
        if path == "/api":
            return self._core_versions
        if path == "/apis":
            return lambda: {
                "kind": "APIGroupList",
                "apiVersion": "v1",
                "groups": [_group(name, versions) for name, versions in groups.items() if name],
            }
        group, rest = ("", parts[1:]) if parts[0] == "api" else (parts[1], parts[2:])
        versions = groups.get(group)
        if versions is None or len(rest) > 1 or (rest and rest[0] not in versions):
            return None
        if not rest:
            return lambda: {"kind": "APIGroup", "apiVersion": "v1", **_group(group, versions)}
        return lambda: self._resources(group, rest[0])

    def _core_versions(self) -> Object:
        return {
            "kind": "APIVersions",
            "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": self._address}],
        }

    def _of(self, group: str, version: str) -> list[Resource]:
        found = [r for r in self._catalog if (r.group, r.version) == (group, version)]
        return sorted(found, key=lambda r: r.plural)

    def _resources(self, group: str, version: str) -> Object:
        rows: list[Object] = []
        for resource in self._of(group, version):
            rows.append(_resource(resource))
            rows += _subresources(resource)
        return {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": f"{group}/{version}" if group else version,
            "resources": rows,
        }

    def _aggregated(self, core: bool) -> Object:
        items = []
        for group, versions in self.groups().items():
            if core == bool(group):
                continue
            items.append(
                {
                    "metadata": {"name": group, "creationTimestamp": None} if group else {"creationTimestamp": None},
                    "versions": [self._aggregated_version(group, version) for version in versions],
                }
            )
        return {"kind": _AGGREGATED_KIND, "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}

    def _aggregated_version(self, group: str, version: str) -> Object:
        remote = self.remotes.get((group, version))
        if remote is None:
            rows, fresh = [_aggregated_resource(r) for r in self._of(group, version)], True
        else:
            rows, fresh = remote.resources, remote.current
        return {"version": version, "resources": rows, "freshness": "Current" if fresh else "Stale"}


def _group(name: str, versions: Iterable[str]) -> Object:
    rows = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": rows, "preferredVersion": rows[0]}


def _resource(resource: Resource) -> Object:
    out: Object = {
        "name": resource.plural,
        "singularName": resource.singular_name,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        out["shortNames"] = list(resource.short_names)
    if resource.categories:
        out["categories"] = list(resource.categories)
    # ComponentStatus can be read, but is stored nowhere.
    if resource.persisted and "create" in resource.verbs:
        text = f"{resource.stored_group}/{resource.storage_version or resource.version}/{resource.kind}"
        out["storageVersionHash"] = _hash(text)
    return out


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()[:8]).decode()


def _subresources(resource: Resource) -> list[Object]:
    out = []
    for sub in sorted(resource.subresources, key=lambda s: s.name):
        row: Object = {
            "name": f"{resource.plural}/{sub.name}",
            "singularName": "",
            "namespaced": resource.namespaced,
            "kind": sub.kind or resource.kind,
            "verbs": list(sub.verbs),
        }
        if sub.version:
            row["group"], row["version"] = sub.group, sub.version
        out.append(row)
    return out


def _aggregated_resource(resource: Resource) -> Object:
    out: Object = {
        "resource": resource.plural,
        "responseKind": {"group": resource.group, "version": resource.version, "kind": resource.kind},
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular_name,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        out["shortNames"] = list(resource.short_names)
    if resource.categories:
        out["categories"] = list(resource.categories)
    if resource.subresources:
        out["subresources"] = [
            {
                "subresource": sub.name,
                "responseKind": {
                    "group": sub.group if sub.version else resource.group,
                    "version": sub.version or resource.version,
                    "kind": sub.kind or resource.kind,
                },
                "verbs": list(sub.verbs),
            }
            for sub in sorted(resource.subresources, key=lambda s: s.name)
        ]
    return out
