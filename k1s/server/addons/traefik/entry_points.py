"""Traefik's entry points: flags, ports of the container, ports of the Service.

Owns: what `ports.*` of the chart's values mean, and how options become flags. Called by: traefik/render. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from k1s.server.addons.chart_values import BadValues, Tree, Values

Object = dict[str, Any]

# After SIGTERM connections are still taken for so long: until everybody has heard that the pod goes.
_GRACE: Tree = {"lifeCycle": {"requestAcceptGraceTimeout": "5s", "graceTimeOut": "30s"}}
DEFAULT_PORTS: Tree = {
    "web": {"port": 8000, "exposedPort": 80, "expose": {"default": True}, "asDefault": True, "transport": _GRACE},
    "websecure": {
        "port": 8443,
        "exposedPort": 443,
        "expose": {"default": True},
        "asDefault": True,
        "tls": {"enabled": True},
        "transport": _GRACE,
    },
    "traefik": {"port": 8080, "exposedPort": 8080, "expose": {"default": False}},
    "metrics": {"port": 9100, "exposedPort": 9100, "expose": {"default": False}},
}


def entry_point_flags(values: Values, name: str) -> Iterator[str]:
    at, flag = f"ports.{name}", f"entrypoints.{name.lower()}"
    yield f"--{flag}.address=:{_port(values, name)}/{_protocol(values, name).lower()}"
    if values.get(f"{at}.asDefault"):
        yield f"--{flag}.asdefault=true"
    for option in ("forwardedHeaders", "proxyProtocol", "transport", "allowACMEByPass"):
        found = values.get(f"{at}.{option}")
        if found is not None:
            yield from flags(f"{flag}.{option.lower()}", found)
    yield from _redirections(values, at, flag)
    middlewares = values.get(f"{at}.http.middlewares") or values.get(f"{at}.middlewares")
    if middlewares:
        yield from flags(f"{flag}.http.middlewares", middlewares)
    for option in values.names(f"{at}.http"):
        if option not in ("middlewares", "redirections", "tls"):
            yield from flags(f"{flag}.http.{option.lower()}", values.get(f"{at}.http.{option}"))
    tls = values.get(f"{at}.http.tls") or values.get(f"{at}.tls") or {}
    if tls.get("enabled"):
        yield f"--{flag}.http.tls=true"
        yield from flags(f"{flag}.http.tls", {key: value for key, value in tls.items() if key != "enabled" and value})


def _redirections(values: Values, at: str, flag: str) -> Iterator[str]:
    """Three generations of the chart's values say the same."""
    target = values.get(f"{at}.http.redirections.entryPoint") or values.get(f"{at}.redirections.entryPoint")
    older = values.get(f"{at}.redirectTo")
    if not target and older:
        port = older.get("port") if isinstance(older, dict) else older
        target = {"to": port, "scheme": "https"}
    if target:
        target = dict(target)
        exposed = values.get(f"ports.{target.get('to')}.exposedPort")
        if exposed is not None:
            # The client's port, not the container's.
            target["to"] = f":{exposed}"
        yield from flags(f"{flag}.http.redirections.entrypoint", target)


def container_ports(values: Values) -> list[Object]:
    out: list[Object] = []
    for name in values.names("ports"):
        port: Object = {"name": name, "containerPort": _port(values, name), "protocol": _protocol(values, name)}
        host = values.get(f"ports.{name}.hostPort")
        if host is not None:
            port["hostPort"] = int(host)
        out.append(port)
    return out


def service_ports(values: Values) -> list[Object]:
    out: list[Object] = []
    for name in values.names("ports"):
        expose = values.get(f"ports.{name}.expose")
        exposed = expose.get("default") if isinstance(expose, dict) else expose
        node, number = values.get(f"ports.{name}.nodePort"), values.get(f"ports.{name}.exposedPort")
        if not exposed:
            continue
        port: Object = {
            "name": name,
            "port": int(number if number is not None else _port(values, name)),
            "targetPort": name,
            "protocol": _protocol(values, name),
        }
        if node is not None:
            port["nodePort"] = int(node)
        out.append(port)
    return out


def flags(prefix: str, value: Any) -> Iterator[str]:
    """Traefik's flags for a tree of options: names in lower case, lists of texts joined by commas."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield from flags(f"{prefix}.{str(key).lower()}", child)
    elif isinstance(value, list):
        if any(isinstance(item, dict) for item in value):
            for number, item in enumerate(value):
                yield from flags(f"{prefix}[{number}]", item)
        elif value:
            yield f"--{prefix}={','.join(map(str, value))}"
    elif isinstance(value, bool):
        yield f"--{prefix}={str(value).lower()}"
    elif value is not None and value != "":
        yield f"--{prefix}={value}"


def _port(values: Values, name: str) -> int:
    port = values.get(f"ports.{name}.port")
    if not isinstance(port, int):
        raise BadValues(f"ports.{name}.port: must be a number")
    return port


def _protocol(values: Values, name: str) -> str:
    return str(values.get(f"ports.{name}.protocol", "TCP")).upper()
