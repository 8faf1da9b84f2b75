"""apiserver_flowcontrol_*: upstream's names, filled in when somebody asks.

Owns: FlowMetrics. Called by: request_metrics. Never does: anything per request.
"""

from __future__ import annotations

from k1s.base.metrics import Registry
from k1s.server.apiserver.flow.app import FlowControl

_PREFIX = "apiserver_flowcontrol_"
_FLOW = ("priority_level", "flow_schema")
_WAIT_BUCKETS = (0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0)
# name -> (help, attribute of Level)
_LEVEL_GAUGES = {
    "nominal_limit_seats": ("Nominal number of execution seats of each priority level", "nominal"),
    "lower_limit_seats": ("Lower bound on the number of execution seats of each priority level", "minimum"),
    "upper_limit_seats": ("Upper bound on the number of execution seats of each priority level", "maximum"),
    "current_limit_seats": ("Current number of execution seats of each priority level", "nominal"),
    "current_executing_seats": ("Seats occupied by requests that execute", "seats"),
    "current_inqueue_seats": ("Seats that queued requests wait for", "waiting_seats"),
    "current_executing_requests": ("Requests in their execution stage", "executing"),
    "current_inqueue_requests": ("Requests in queues", "waiting"),
}


class FlowMetrics:
    def __init__(self, metrics: Registry) -> None:
        self._gauges = {
            attribute_name: (metrics.gauge(_PREFIX + attribute_name, f"{text}.", ("priority_level",)), attribute)
            for attribute_name, (text, attribute) in _LEVEL_GAUGES.items()
        }
        self._dispatched = metrics.counter(f"{_PREFIX}dispatched_requests_total", "Requests that were let run.", _FLOW)
        self._rejected = metrics.counter(f"{_PREFIX}rejected_requests_total", "Requests that were refused.", (*_FLOW, "reason"))
        self._waits = metrics.histogram(
            f"{_PREFIX}request_wait_duration_seconds", "Seconds in queue.", (*_FLOW, "execute"), _WAIT_BUCKETS
        )

    def look(self, flow: FlowControl) -> None:
        for gauge, attribute in self._gauges.values():
            gauge.clear()
            for level in flow.pool.levels.values():
                gauge.set(level.name, value=getattr(level, attribute))
        for labels, counts in flow.counts.items():
            fresh = counts.dispatched - int(self._dispatched.value(*labels))
            waited = [seconds for seconds, ran in counts.waits if ran]
            if fresh > 0:
                self._dispatched.add(*labels, value=fresh)
                self._waits.observe(*labels, "true", value=0.0, count=max(fresh - len(waited), 0))
            for seconds, ran in counts.waits:
                self._waits.observe(*labels, "true" if ran else "false", value=seconds)
            counts.waits.clear()
            for reason, count in counts.rejected.items():
                self._rejected.add(*labels, reason, value=count - self._rejected.value(*labels, reason))
