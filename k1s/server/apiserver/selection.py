"""What a list or watch selects: namespace, name, labels, fields.

Owns: Selection, and which fields each kind can be selected by. Called by: handlers, watcher, informers.
Never does: parse selectors (api/selectors.py).
Source of the fields: upstream's AddFieldLabelConversionFunc calls and each registry's SelectableFields.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from k1s.api.catalog import Resource
from k1s.api.errors import bad_request
from k1s.api.selectors import DOUBLE_EQUALS, EQUALS, IN, FieldSelector, LabelSelector, parse_fields, parse_labels
from k1s.server.apiserver.entries import LABELS, Change, Entry

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
    ("certificates.k8s.io", "ClusterTrustBundle"): ("spec.signerName",),
    ("certificates.k8s.io", "PodCertificateRequest"): ("spec.nodeName", "spec.podName", "spec.signerName"),
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
    """A predicate over entries. `everything` says that it lets all of its namespace through without a look inside.

    What it has to know of an object is read once and kept with the entry (Entry.facts), whoever asks.
    """

    __slots__ = (
        "_fields",
        "_labels",
        "_needles",
        "_paths",
        "_places",
        "_required",
        "everything",
        "identity",
        "name",
        "namespace",
    )

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
        requirements = fields.requirements if fields is not None else ()
        known = [(_known_path(resource, r.field), r.operator == "=", r.value) for r in requirements]
        self._required = fields
        self.name = name or next((value for path, equal, value in known if equal and path == "metadata.name"), "")
        self._labels = labels if labels is not None and not labels.empty else None
        # What the key tells, and what the object has to be asked for: (field, equal or not, value).
        self._places = tuple(term for term in known if term[0] in _EVERYWHERE)
        self._fields = tuple(term for term in known if term[0] not in _EVERYWHERE)
        self._paths = tuple(dict.fromkeys(path for path, _, _ in self._fields))
        self.everything = self._labels is None and not known and not name
        self._needles = tuple(_needles(self._labels, self._fields))
        # Selections of one resource with the same identity select the same.
        self.identity = (namespace, self.name, repr(self._labels), repr(fields))

    def required(self, field: str) -> str | None:
        """The value that a field must have, as the client wrote it."""
        return self._required.required_value(field) if self._required is not None else None

    def matches(self, entry: Entry) -> bool:
        if not self._in_place(entry):
            return False
        if self._labels is None and not self._fields:
            return True
        facts = entry.known(self._paths)
        if facts is None:
            raw = entry.raw
            for needle in self._needles:
                if needle not in raw:
                    return False
            facts = entry.facts(self._paths, _field)
        return self._holds(facts)

    def _told(self, entry: Entry) -> bool:
        return (self._labels is None and not self._fields) or self._holds(entry.facts(self._paths, _field))

    def _in_place(self, entry: Entry) -> bool:
        """What the key tells."""
        if self.namespace and entry.namespace != self.namespace:
            return False
        if self.name and entry.name != self.name:
            return False
        for path, equal, value in self._places:
            if ((entry.name if path == "metadata.name" else entry.namespace) == value) != equal:
                return False
        return True

    def matches_object(self, obj: Object) -> bool:
        """Labels and fields only."""
        for path, equal, value in self._places:
            if (_field(obj, path) == value) != equal:
                return False
        return self._holds({LABELS: obj["metadata"].get("labels") or {}, **{path: _field(obj, path) for path in self._paths}})

    def _holds(self, facts: Mapping[str, Any]) -> bool:
        for path, equal, value in self._fields:
            if (facts[path] == value) != equal:
                return False
        return self._labels is None or self._labels.matches(facts[LABELS])

    def seen(self, change: Change) -> tuple[str, Entry] | None:
        """What a watcher with this selection is told of a change; None: nothing."""
        entry = change.entry
        if self.namespace and entry.namespace != self.namespace:
            return None
        if self.everything:
            return change.type, entry
        if not self._in_place(entry):
            return None
        previous = change.previous
        # Many watchers ask of the same change: what they ask for is read once.
        before = previous is not None and self._told(previous)
        if change.type == "DELETED":
            return ("DELETED", entry) if before else None
        after = self._told(entry)
        if after:
            return ("MODIFIED" if before else "ADDED"), entry
        if before:
            assert previous is not None
            return "DELETED", previous.at(change.revision)
        return None


# Fields whose value stands in the object's JSON as it stands in the selector.
_PLAIN_FIELDS = ("spec.nodeName", "spec.schedulerName", "spec.serviceAccountName", "status.phase", "metadata.name", "reason")


def _needles(labels: LabelSelector | None, fields: Iterable[tuple[str, bool, str]]) -> Iterator[bytes]:
    """What the bytes of every object that is selected contain: most others are told by that, without decoding them.

    Stored objects are compact JSON, and label values and names have no characters that JSON escapes.
    """
    for term in labels.requirements if labels is not None else ():
        if term.operator in (EQUALS, DOUBLE_EQUALS, IN) and len(term.values) == 1:
            yield f'"{term.key}":"{term.values[0]}"'.encode()
    for path, equal, value in fields:
        if equal and path in _PLAIN_FIELDS and value.isascii() and value.isprintable():
            if value and not set(value) & {'"', "\\"}:
                yield f'"{path.rpartition(".")[2]}":"{value}"'.encode()


def _known_path(resource: Resource, path: str) -> str:
    """The stored object's name of a selectable field. Raises ApiError 400."""
    asked = path
    if resource.group == "events.k8s.io":
        path = _EVENT_NAMES.get(path, path)
    own = resource.custom or (resource.stored_group, resource.kind) in _FIELDS
    # A kind with rules of its own and no namespace has no such field either.
    if path in _supported(resource) and not (path == "metadata.namespace" and own and not resource.namespaced):
        return path
    if own:
        raise bad_request(f"field label not supported: {asked}")
    raise bad_request(f'"{asked}" is not a known field selector: only "metadata.name", "metadata.namespace"')


def parse(resource: Resource, namespace: str, labels: str, fields: str, name: str = "") -> Selection:
    """The selection of a request. Raises ApiError 400 for selectors that cannot be read."""
    return Selection(
        resource,
        namespace,
        name=name,
        labels=parse_labels(labels) if labels else None,
        fields=parse_fields(fields) if fields else None,
    )
