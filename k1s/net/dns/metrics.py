"""What the cluster's DNS counts, under the names that CoreDNS gave these figures.

Owns: the counters and how the fast path counts: one addition to a Tally per question, sorted into metrics at scrape.
Called by: dns.server, resolver, forward; agent.network.dns registers them. Never does: I/O.
Label values come from closed sets: types that are not listed are "other", `to` is a configured resolver.
Source: CoreDNS's plugins metrics, cache, forward (proxy).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from k1s.base.metrics import Counter, Histogram, Labels, Registry
from k1s.net.dns import wire

_SERVER, _ZONE, _VIEW = "dns://:53", ".", ""
_TYPES = {
    1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA", 33: "SRV", 35: "NAPTR", 43: "DS",
    48: "DNSKEY", 64: "SVCB", 65: "HTTPS", 255: "ANY",
}  # fmt: skip
_CODES = {
    wire.NOERROR: "NOERROR", wire.FORMERR: "FORMERR", wire.SERVFAIL: "SERVFAIL", wire.NXDOMAIN: "NXDOMAIN",
    wire.NOTIMP: "NOTIMP", wire.REFUSED: "REFUSED",
}  # fmt: skip
# 0.25 ms, doubled fifteen times.
_BUCKETS = tuple(0.00025 * 2**n for n in range(16))
_MOST_UPSTREAMS = 64


@dataclass(slots=True)
class Tally:
    """Questions of one kind. `source`: zone, cache, forward or error."""

    proto: str
    family: str
    kind: str
    code: str
    source: str
    count: int = 0


class Derived(Counter):
    """A counter whose values are computed at scrape."""

    def __init__(self, name: str, text: str, labels: Sequence[str], read: Callable[[], Mapping[Labels, float]]) -> None:
        super().__init__(name, text, labels)
        self._compute = read

    def lines(self) -> list[str]:
        self._values = dict(self._compute())
        return super().lines()


class DnsMetrics:
    """All of one server's figures. `entries` is set by who knows the cache."""

    def __init__(self) -> None:
        self._tallies: dict[tuple[str, str, int, int, str], Tally] = {}
        place = ("server", "zone", "view")
        self._duration = Histogram("coredns_dns_request_duration_seconds", "Time each question took", place, _BUCKETS)
        self.rejected = Counter("coredns_forward_max_concurrent_rejects_total", "Questions refused: too many under way", ())
        self.failures = Counter("coredns_proxy_healthcheck_failures_total", "Questions a resolver did not answer", ("to",))
        self._exchanges = Histogram(
            "coredns_proxy_request_duration_seconds", "Time each resolver took", ("proxy_name", "to", "rcode"), _BUCKETS
        )
        self._asked = Counter("coredns_forward_requests_total", "Questions sent on", ("to",))
        self._upstreams: set[str] = set()
        self.entries: Callable[[], tuple[int, int]] = lambda: (0, 0)

    def tally(self, proto: str, family: str, kind: int, code: int, source: str) -> Tally:
        """The tally of such questions; to be kept by who answers the same again and again."""
        if kind not in _TYPES:
            kind = 0
        key = (proto, family, kind, code, source)
        found = self._tallies.get(key)
        if found is None:
            found = Tally(proto, family, _TYPES.get(kind, "other"), _CODES.get(code, "other"), source)
            self._tallies[key] = found
        return found

    def took(self, seconds: float, questions: int = 1) -> None:
        """Questions that were answered in this time each."""
        self._duration.observe(_SERVER, _ZONE, _VIEW, value=seconds, count=questions)

    def exchanged(self, to: str, code: int, seconds: float) -> None:
        if to not in self._upstreams and len(self._upstreams) >= _MOST_UPSTREAMS:
            to = "other"
        self._upstreams.add(to)
        self._asked.add(to)
        self._exchanges.observe("forward", to, _CODES.get(code, "other"), value=seconds)

    @property
    def answered(self) -> int:
        return sum(tally.count for tally in self._tallies.values())

    def register(self, *registries: Registry) -> None:
        derived = [
            Derived(
                "coredns_dns_requests_total", "Questions", ("server", "zone", "view", "proto", "family", "type"), self._requests
            ),
            Derived("coredns_dns_responses_total", "Answers", ("server", "zone", "view", "rcode", "plugin"), self._responses),
            Derived(
                "coredns_cache_hits_total", "Answers of other resolvers repeated", ("server", "type", "zones", "view"), self._hits
            ),
            Derived("coredns_cache_misses_total", "Questions that had to be sent on", ("server", "zones", "view"), self._misses),
            Derived("coredns_cache_requests_total", "Questions for names outside", ("server", "zones", "view"), self._lookups),
        ]
        entries = Derived("coredns_cache_entries", "Answers kept", ("server", "type", "zones", "view"), self._kept)
        entries.kind = "gauge"
        rest = (self._duration, self.rejected, self.failures, self._exchanges, self._asked)
        for registry in registries:
            for metric in (*derived, entries):
                registry.register(metric)
            for other in rest:
                registry.register(other)

    def _requests(self) -> Mapping[Labels, float]:
        return self._sum(lambda t: (_SERVER, _ZONE, _VIEW, t.proto, t.family, t.kind))

    def _responses(self) -> Mapping[Labels, float]:
        plugins = {"zone": "kubernetes", "cache": "cache", "forward": "forward"}
        return self._sum(lambda t: (_SERVER, _ZONE, _VIEW, t.code, plugins.get(t.source, "")))

    def _hits(self) -> Mapping[Labels, float]:
        def label(t: Tally) -> Labels | None:
            return (_SERVER, "denial" if t.code == "NXDOMAIN" else "success", _ZONE, _VIEW) if t.source == "cache" else None

        return self._sum(label)

    def _misses(self) -> Mapping[Labels, float]:
        return self._sum(lambda t: (_SERVER, _ZONE, _VIEW) if t.source == "forward" else None)

    def _lookups(self) -> Mapping[Labels, float]:
        return self._sum(lambda t: (_SERVER, _ZONE, _VIEW) if t.source in ("cache", "forward") else None)

    def _kept(self) -> Mapping[Labels, float]:
        success, denial = self.entries()
        return {(_SERVER, "success", _ZONE, _VIEW): success, (_SERVER, "denial", _ZONE, _VIEW): denial}

    def _sum(self, label: Callable[[Tally], Labels | None]) -> Mapping[Labels, float]:
        found: dict[Labels, float] = {}
        for tally in self._tallies.values():
            labels = label(tally)
            if labels is not None:
                found[labels] = found.get(labels, 0) + tally.count
        return found
