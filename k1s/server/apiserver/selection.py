"""What a list or watch selects: namespace, name, labels, fields.

Owns: Selection, and which fields each kind can be selected by. Called by: handlers, watcher, informers.
Never does: parse selectors (api/selectors.py).
Source of the fields: upstream's AddFieldLabelConversionFunc calls and each registry's SelectableFields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from k1s.api.catalog import Resource
from k1s.api.errors import bad_request
from k1s.api.selectors import DOUBLE_EQUALS, EQUALS, IN, FieldSelector, LabelSelector, parse_fields, parse_labels
from k1s.server.apiserver.entries import Change, Entry

Object = dict[str, Any]

_EVERYWHERE = ("metadata.name", "metadata.namespace")

_EVENT = tuple(f"involvedObject.{f}" for f in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"))

# (storage group, kind) -> fields besides metadata.name and metadata.namespace.
_FIELDS: dict[tuple[str, str], tuple[str, ...]] = {
    ("", "Pod"): (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.podIPs",
        "status.nominatedNodeName",
    ),
    ("", "Event"): (*_EVENT, "reason", "reportingComponent", "source", "type"),
    ("", "Namespace"): ("status.phase",),
    ("", "Node"): ("spec.unschedulable",),
    ("", "Secret"): ("type",),
    ("", "Service"): ("spec.clusterIP", "spec.type"),
    ("", "ReplicationController"): ("status.replicas",),
    ("apps", "ReplicaSet"): ("status.replicas",),
    ("batch", "Job"): ("status.successful",),
    ("certificates.k8s.io", "CertificateSigningRequest"): ("spec.signerName",),
    ("resource.k8s.io", "ResourceSlice"): ("spec.nodeName", "spec.driver"),
}

# The names that events.k8s.io has for the core Event's fields.
_EVENT_NAMES = {f"regarding.{f.removeprefix('involvedObject.')}": f for f in _EVENT} | {
    "reportingController": "reportingComponent"
}

# What a field that is not there counts as.
_ABSENT = {"status.replicas": "0", "status.successful": "0", "spec.hostNetwork": "false", "spec.unschedulable": "false"}


def _supported(resource: Resource) -> tuple[str, ...]:
    return (*_EVERYWHERE, *_FIELDS.get((resource.stored_group, resource.kind), ()), *resource.selectable)


def _field(obj: Object, path: str) -> str:
    if path == "source":
        source = (obj.get("source") or {}).get("component")
        return str(source or obj.get("reportingComponent") or "")
    value: Any = obj
    for part in path.split("."):
        if not isinstance(value, dict):
            return ""
        if path == "status.podIPs" and part == "podIPs":
            return ",".join(ip.get("ip", "") for ip in value.get("podIPs") or [])
        value = value.get(part)
    if value is None:
        return _ABSENT.get(path, "")
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


class Selection:
    """A predicate over entries. `everything` says that it lets all of its namespace through without a look inside."""

    __slots__ = ("_fields", "_labels", "_needles", "_paths", "everything", "name", "namespace")

    def __init__(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        name: str = "",
        labels: LabelSelector | None = None,
        fields: FieldSelector | None = None,
    ) -> None:
        self.namespace = namespace
        self.name = name
        self._labels = labels if labels is not None and not labels.empty else None
        self._fields = fields if fields is not None and fields.requirements else None
        self._paths: tuple[str, ...] = ()
        if self._fields is not None:
            self._paths = tuple(dict.fromkeys(_known_path(resource, r.field) for r in self._fields.requirements))
        self.everything = self._labels is None and self._fields is None and not name
        self._needles = tuple(_needles(self._labels, self._fields))

    def matches(self, entry: Entry) -> bool:
        if self.namespace and entry.namespace != self.namespace:
            return False
        if self.everything:
            return True
        if self.name and entry.name != self.name:
            return False
        if self._labels is None and self._fields is None:
            return True
        raw = entry.raw
        for needle in self._needles:
            if needle not in raw:
                return False
        return self.matches_object(entry.peek())

    def matches_object(self, obj: Object) -> bool:
        """Labels and fields only."""
        if self._labels is not None and not self._labels.matches(obj["metadata"].get("labels") or {}):
            return False
        return self._fields is None or self._fields.matches(self._values(obj))

    def _values(self, obj: Object) -> Mapping[str, str]:
        values = {path: _field(obj, path) for path in self._paths}
        for alias, path in _EVENT_NAMES.items():
            if path in values:
                values[alias] = values[path]
        return values

    def seen(self, change: Change) -> tuple[str, Entry] | None:
        """What a watcher with this selection is told of a change; None: nothing."""
        entry = change.entry
        if self.namespace and entry.namespace != self.namespace:
            return None
        if self.everything:
            return change.type, entry
        previous = change.previous
        before = previous is not None and self.matches(previous)
        if change.type == "DELETED":
            return ("DELETED", entry) if before else None
        after = self.matches(entry)
        if after:
            return ("MODIFIED" if before else "ADDED"), entry
        if before:
            assert previous is not None
            return "DELETED", previous.at(change.revision)
        return None


# Fields whose value stands in the object's JSON as it stands in the selector.
_PLAIN_FIELDS = ("spec.nodeName", "spec.schedulerName", "spec.serviceAccountName", "status.phase", "metadata.name", "reason")


def _needles(labels: LabelSelector | None, fields: FieldSelector | None) -> Iterator[bytes]:
    """What the bytes of every object that is selected contain: most others are told by that, without decoding them.

    Stored objects are compact JSON, and label values and names have no characters that JSON escapes.
    """
    for term in labels.requirements if labels is not None else ():
        if term.operator in (EQUALS, DOUBLE_EQUALS, IN) and len(term.values) == 1:
            yield f'"{term.key}":"{term.values[0]}"'.encode()
    for field in fields.requirements if fields is not None else ():
        if field.operator == "=" and field.field in _PLAIN_FIELDS and field.value.isascii() and field.value.isprintable():
            if field.value and not set(field.value) & {'"', "\\"}:
                yield f'"{field.field.rpartition(".")[2]}":"{field.value}"'.encode()


def _known_path(resource: Resource, path: str) -> str:
    """The stored object's name of a selectable field. Raises ApiError 400."""
    if resource.group == "events.k8s.io":
        path = _EVENT_NAMES.get(path, path)
    if path in _supported(resource):
        return path
    if (resource.stored_group, resource.kind) in _FIELDS:
        raise bad_request(f"field label not supported: {path}")
    raise bad_request(f'"{path}" is not a known field selector: only "metadata.name", "metadata.namespace"')


def parse(resource: Resource, namespace: str, labels: str, fields: str, name: str = "") -> Selection:
    """The selection of a request. Raises ApiError 400 for selectors that cannot be read."""
    return Selection(
        resource,
        namespace,
        name=name,
        labels=_parsed(parse_labels, labels),
        fields=_parsed(parse_fields, fields),
    )


def _parsed(parser: Callable[[str], Any], text: str) -> Any:
    if not text:
        return None
    try:
        return parser(text)
    except ValueError as error:
        raise bad_request(f"unable to parse requirement: {error}") from error
