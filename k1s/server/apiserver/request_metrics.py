"""What is counted of every request, under kube-apiserver's metric names.

Owns: RequestMetrics. Called by: app. Never does: count by anything a client can invent (unknown resources count as "").
Source: apiserver/pkg/endpoints/metrics. Read only when somebody asks: everything that can be (`look`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from k1s.api.errors import ApiError
from k1s.base.http import Answer, Request, Response, Stream
from k1s.base.metrics import Alias, Counter, Registry
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.server.apiserver.flow.app import FlowControl
from k1s.server.apiserver.flow.metrics import FlowMetrics
from k1s.server.apiserver.long_running import LongRunning
from k1s.server.apiserver.resource_cache import ResourceCache

_LABELS = ("verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component")
_SIZE_LABELS = ("verb", *_LABELS[2:])
_HTTP_VERBS = ("get", "head", "post", "put", "patch", "delete", "options")
# What upstream calls the verbs here: by their HTTP method, but for those that share one.
_VERBS = {"create": "POST", "update": "PUT", "deletecollection": "DELETECOLLECTION"}
_CONNECT = ("exec", "attach", "portforward", "proxy")
_APPLY = "application/apply-patch"
_SECONDS = (
    *(0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0),
    *(10.0, 15.0, 20.0, 30.0, 45.0, 60.0),
)
# Names of users that are remembered.
_NAMES = 4096
_BYTES = tuple(1000.0 * 10**power for power in range(7))


class RequestMetrics:
    def __init__(self, metrics: Registry) -> None:
        self._total = metrics.counter("apiserver_request_total", "Requests by verb, resource and answer.", (*_LABELS, "code"))
        self._duration = metrics.histogram(
            "apiserver_request_duration_seconds", "Seconds to answer, watches and streams left out.", _LABELS, _SECONDS
        )
        metrics.register(Alias("apiserver_request_sli_duration_seconds", "The same, for service levels.", self._duration))
        self._sizes = metrics.histogram("apiserver_response_sizes", "Bytes of answers to reads.", _SIZE_LABELS, _BYTES)
        self._terminated = metrics.counter(
            "apiserver_request_terminations_total", "Requests refused to protect the server.", (*_SIZE_LABELS, "code")
        )
        self._inflight = metrics.gauge("apiserver_current_inflight_requests", "Requests being served.", ("request_kind",))
        self._long = metrics.gauge("apiserver_longrunning_requests", "Watches and streams that are open.", _SIZE_LABELS)
        self._flow = FlowMetrics(metrics)
        self._stored = StoredMetrics(metrics)
        self._attempts = metrics.counter("authentication_attempts", "Authentications by result.", ("result",))
        self._users = metrics.counter("authenticated_user_requests", "Requests by kind of user.", ("username",))
        self._decisions = metrics.counter("authorization_attempts_total", "Authorizations by result.", ("result",))
        self._seen: dict[tuple[tuple[str, ...], int], _Seen] = {}
        # Names of users -> what they are counted as.
        self._names: dict[str, tuple[str]] = {}
        self._by_name: dict[tuple[str], int] = {}
        self._allowed = 0

    def look(self, caches: Iterable[ResourceCache], flow: FlowControl, long_running: LongRunning) -> None:
        """Take the values that are read only when somebody asks."""
        self._sum_up()
        self._stored.look(caches)
        self._flow.look(flow)
        self._long.clear()
        for (verb, _, *rest), count in long_running.running.items():
            self._long.set(verb, *rest, value=count)
        self._inflight.set("readOnly", value=flow.reading)
        self._inflight.set("mutating", value=flow.writing)

    def authenticated(self, user: UserInfo | None) -> None:
        """None: the credentials were wrong."""
        if user is None:
            self._attempts.add("failure")
            return
        label = self._names.get(user.name)
        if label is None:
            if len(self._names) >= _NAMES:
                self._names.clear()
            label = self._names[user.name] = (_compressed(user.name),)
        self._by_name[label] = self._by_name.get(label, 0) + 1

    def authorized(self, refused: ApiError | None) -> None:
        if refused is None:
            self._allowed += 1
        else:
            self._decisions.add("denied" if refused.code == 403 else "error")

    def note(self, request: Request, info: RequestInfo | None, answer: Answer, seconds: float) -> None:
        labels = labels_of(info, request)
        status = answer.status if isinstance(answer, Response | Stream) else 101
        seen = self._seen.get((labels, status))
        if seen is None:
            seen = self._seen[labels, status] = _Seen()
        seen.count += 1
        if isinstance(answer, Response):
            seen.seconds += seconds
            seen.times[bisect_left(_SECONDS, seconds)] += 1
            size = len(answer.body)
            seen.bytes += size
            seen.sizes[bisect_left(_BYTES, size)] += 1

    def _sum_up(self) -> None:
        """Bring what was counted by labels and status into the metrics."""
        times: dict[tuple[str, ...], _Seen] = {}
        for (labels, status), seen in self._seen.items():
            self._total.put((*labels, str(status)), seen.count)
            if status in (429, 504):
                self._terminated.put((labels[0], *labels[2:], str(status)), seen.count)
            times.setdefault(labels, _Seen()).merge(seen)
        sizes: dict[tuple[str, ...], _Seen] = {}
        for labels, seen in times.items():
            if any(seen.times):
                self._duration.put(labels, seen.times, seen.seconds)
                if labels[0] in ("GET", "LIST"):
                    sizes.setdefault((labels[0], *labels[2:]), _Seen()).merge(seen)
        for labels, seen in sizes.items():
            self._sizes.put(labels, seen.sizes, seen.bytes)
        for label, count in self._by_name.items():
            self._users.put(label, count)
        self._attempts.put(("success",), sum(self._by_name.values()))
        self._decisions.put(("allowed",), self._allowed)


class _Seen:
    """Requests of the same labels and status: one look-up and a few additions each."""

    __slots__ = ("bytes", "count", "seconds", "sizes", "times")

    def __init__(self) -> None:
        self.count = self.bytes = 0
        self.seconds = 0.0
        self.times = [0] * (len(_SECONDS) + 1)
        self.sizes = [0] * (len(_BYTES) + 1)

    def merge(self, other: _Seen) -> None:
        self.count += other.count
        self.seconds += other.seconds
        self.bytes += other.bytes
        self.times = [mine + theirs for mine, theirs in zip(self.times, other.times, strict=True)]
        self.sizes = [mine + theirs for mine, theirs in zip(self.sizes, other.sizes, strict=True)]


class StoredMetrics:
    """The store and the watch cache above it."""

    def __init__(self, metrics: Registry) -> None:
        self._objects = metrics.gauge("apiserver_storage_objects", "Stored objects.", ("resource",))
        self._by_group = metrics.gauge("apiserver_resource_objects", "Stored objects.", ("group", "resource"))
        self._watchers = metrics.gauge("apiserver_watchers", "Open watches.", ("resource",))
        labels = ("group", "resource")
        self._received = metrics.counter("apiserver_watch_cache_events_received_total", "Changes taken in.", labels)
        self._version = metrics.gauge("apiserver_watch_cache_resource_version", "Revision of the newest change.", labels)
        self._sent = metrics.counter("apiserver_watch_events_total", "Events sent to watches.", ("group", "version", "resource"))

    def look(self, caches: Iterable[ResourceCache]) -> None:
        for gauge in (self._objects, self._by_group, self._watchers, self._version):
            gauge.clear()
        for cache in caches:
            resource = cache.resource
            labels = (resource.group, resource.plural)
            self._objects.set(resource.qualified, value=len(cache))
            self._by_group.set(*labels, value=len(cache))
            if cache.watchers:
                self._watchers.set(resource.qualified, value=len(cache.watchers))
            if cache.revision:
                self._version.set(*labels, value=cache.revision)
            _raise(self._received, labels, cache.changes)
            sent = cache.sent + sum(watcher.sent for watcher in cache.watchers)
            _raise(self._sent, (resource.group, resource.version, resource.plural), sent)


def _raise(counter: Counter, labels: tuple[str, ...], value: int) -> None:
    more = value - counter.value(*labels)
    if more > 0:
        counter.add(*labels, value=more)


def _compressed(name: str) -> str:
    """As upstream: names of the system, and whether others look like mail addresses."""
    if name.startswith("system:") and not name.startswith(("system:serviceaccount:", "system:node:")):
        return name if name.count(":") == 1 and len(name) < 64 else "system"
    return "email_id" if "@" in name else "other"


def labels_of(info: RequestInfo | None, request: Request) -> tuple[str, ...]:
    """The values of _LABELS."""
    if info is None or info.resource is None:
        verb = info.verb if info is not None and info.verb in _HTTP_VERBS else ""
        return (verb.upper(), "", "", "", "", "", "", "apiserver")
    resource, verb = info.resource, info.verb
    if info.name:
        scope = "resource"
    else:
        scope = "namespace" if info.namespace else "cluster"
    known = info.subresource if info.subresource and resource.subresource(info.subresource) else ""
    if known in _CONNECT:
        verb = "CONNECT"
    elif verb == "patch" and request.headers.get("content-type", "").startswith(_APPLY):
        verb = "APPLY"
    else:
        verb = _VERBS.get(verb) or verb.upper()
    dry_run = "All" if request.query and ("dryRun", "All") in request.query else ""
    return (verb, dry_run, resource.group, resource.version, resource.plural, known, scope, "apiserver")
