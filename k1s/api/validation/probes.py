"""Probes and lifecycle hooks: one handler each, and its numbers.

Called by: containers.py. Never does: run them.
"""

from __future__ import annotations

from typing import Any

from k1s.api import names
from k1s.api.errors import forbidden_field, invalid_value, not_supported, required
from k1s.api.meta import Object
from k1s.api.validation.rules import Errors, non_negative, one_of, port, port_or_name, positive, strings

_PROBE_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")
_SCHEMES = ("HTTP", "HTTPS")
_HOOK_HANDLERS = ("exec", "httpGet", "tcpSocket", "sleep")
_WINDOWS_SIGNALS = ("SIGKILL", "SIGTERM")
_PLAIN_SIGNALS = (
    "ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT RTMAX RTMIN SEGV STKFLT STOP SYS TERM TRAP "
    "TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ"
)
_SIGNALS = (
    *(f"SIG{name}" for name in _PLAIN_SIGNALS.split()),
    *(f"SIGRTMIN+{number}" for number in range(1, 16)),
    *(f"SIGRTMAX-{number}" for number in range(1, 15)),
)
_COUNTS = ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold")


def _http_get(errs: Errors, field: str, action: Object) -> None:
    if not action.get("path"):
        errs.append(required(f"{field}.path"))
    port_or_name(errs, f"{field}.port", action.get("port") if action.get("port") is not None else 0)
    if action.get("scheme") not in _SCHEMES:
        errs.append(not_supported(f"{field}.scheme", action.get("scheme") or "", _SCHEMES))
    for header in action.get("httpHeaders") or ():
        strings(errs, f"{field}.httpHeaders", header.get("name") or "", names.http_header_name)


def _handler(errs: Errors, field: str, holder: Object, kinds: tuple[str, ...], grace: int | None) -> None:
    given = [kind for kind in kinds if holder.get(kind) is not None]
    if not given:
        errs.append(required(field, "must specify a handler type"))
        return
    _action(errs, f"{field}.{given[0]}", given[0], holder[given[0]], grace)
    for extra in given[1:]:
        errs.append(forbidden_field(f"{field}.{extra}", "may not specify more than 1 handler type"))


def _action(errs: Errors, at: str, kind: str, action: Object, grace: int | None) -> None:
    if kind == "exec":
        if not action.get("command"):
            errs.append(required(f"{at}.command"))
    elif kind == "httpGet":
        _http_get(errs, at, action)
    elif kind == "tcpSocket":
        port_or_name(errs, f"{at}.port", action.get("port") if action.get("port") is not None else 0)
    elif kind == "grpc":
        port(errs, f"{at}.port", action.get("port") or 0)
    else:
        _sleep(errs, at, action.get("seconds") or 0, grace)


def _sleep(errs: Errors, field: str, seconds: int, grace: int | None) -> None:
    if grace is not None and not 0 <= seconds <= grace:
        text = f"must be non-negative and less than terminationGracePeriodSeconds ({grace})"
        errs.append(invalid_value(field, seconds, text))


def _probe(errs: Errors, field: str, probe: Object) -> None:
    _handler(errs, field, probe, _PROBE_HANDLERS, None)
    for key in _COUNTS:
        non_negative(errs, f"{field}.{key}", probe.get(key))
    positive(errs, f"{field}.terminationGracePeriodSeconds", probe.get("terminationGracePeriodSeconds"))


def probes(errs: Errors, field: str, container: Object) -> None:
    """liveness, readiness and startup probe of a container."""
    for key in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe = container.get(key)
        if probe is None:
            continue
        at = f"{field}.{key}"
        _probe(errs, at, probe)
        if key == "readinessProbe":
            if probe.get("terminationGracePeriodSeconds") is not None:
                value = probe["terminationGracePeriodSeconds"]
                errs.append(invalid_value(f"{at}.terminationGracePeriodSeconds", value, "must not be set for readinessProbes"))
        elif probe.get("successThreshold") != 1:
            errs.append(invalid_value(f"{at}.successThreshold", probe.get("successThreshold") or 0, "must be 1"))


def lifecycle(errs: Errors, field: str, value: Any, grace: int | None, os_name: str | None) -> None:
    """postStart, preStop and stopSignal."""
    if not value:
        return
    for key in ("postStart", "preStop"):
        if value.get(key) is not None:
            _handler(errs, f"{field}.{key}", value[key], _HOOK_HANDLERS, grace)
    signal = value.get("stopSignal")
    if signal is None:
        return
    if not os_name:
        errs.append(forbidden_field(f"{field}.stopSignal", "may not be set for containers with empty `spec.os.name`"))
    else:
        one_of(errs, f"{field}.stopSignal", signal, _WINDOWS_SIGNALS if os_name == "windows" else _SIGNALS, needed=True)
