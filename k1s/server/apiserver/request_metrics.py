"""What is counted of every request, under kube-apiserver's metric names.

Owns: RequestMetrics. Called by: app. Never does: count by anything a client can invent (unknown resources count as "").
"""

from __future__ import annotations

from collections.abc import Iterable

from k1s.base.http import Answer, Response, Stream
from k1s.base.metrics import Registry
from k1s.server.apiserver.attributes import RequestInfo
from k1s.server.apiserver.flow.app import FlowControl
from k1s.server.apiserver.flow.metrics import FlowMetrics
from k1s.server.apiserver.long_running import LongRunning
from k1s.server.apiserver.resource_cache import ResourceCache

_LABELS = ("verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component")
_HTTP_VERBS = ("get", "head", "post", "put", "patch", "delete", "options")


class RequestMetrics:
    def __init__(self, metrics: Registry) -> None:
        self._total = metrics.counter("apiserver_request_total", "Requests by verb, resource and answer.", (*_LABELS, "code"))
        self._objects = metrics.gauge("apiserver_storage_objects", "Stored objects.", ("resource",))
        self._watchers = metrics.gauge("apiserver_watchers", "Open watches.", ("resource",))
        self._inflight = metrics.gauge("apiserver_current_inflight_requests", "Requests being served.", ("request_kind",))
        self._flow = FlowMetrics(metrics)
        self._long = metrics.gauge(
            "apiserver_longrunning_requests", "Watches and streams that are open.", (_LABELS[0], *_LABELS[2:])
        )
        self._duration = metrics.histogram(
            "apiserver_request_duration_seconds", "Seconds to answer, watches and streams left out.", _LABELS
        )

    def look(self, caches: Iterable[ResourceCache], flow: FlowControl, long_running: LongRunning) -> None:
        """Take the values that are read only when somebody asks."""
        for cache in caches:
            self._objects.set(cache.resource.qualified, value=len(cache))
            self._watchers.set(cache.resource.qualified, value=len(cache.watchers))
        self._flow.look(flow)
        self._long.clear()
        for (verb, _, *rest), count in long_running.running.items():
            self._long.set(verb, *rest, value=count)
        self._inflight.set("readOnly", value=flow.reading)
        self._inflight.set("mutating", value=flow.writing)

    def note(self, info: RequestInfo | None, answer: Answer, seconds: float) -> None:
        labels = labels_of(info)
        code = str(answer.status) if isinstance(answer, Response | Stream) else "101"
        self._total.add(*labels, code)
        if isinstance(answer, Response):
            self._duration.observe(*labels, value=seconds)


def labels_of(info: RequestInfo | None) -> tuple[str, ...]:
    """The values of _LABELS."""
    if info is None or info.resource is None:
        verb = info.verb if info is not None and info.verb in _HTTP_VERBS else ""
        return (verb.upper(), "", "", "", "", "", "", "apiserver")
    resource = info.resource
    if info.name:
        scope = "resource"
    else:
        scope = "namespace" if info.namespace else "cluster"
    return (
        info.verb.upper(),
        "",
        resource.group,
        resource.version,
        resource.plural,
        info.subresource if resource.subresource(info.subresource) else "",
        scope,
        "apiserver",
    )
