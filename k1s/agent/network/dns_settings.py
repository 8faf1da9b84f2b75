"""What the DNS on this node follows beside Services: ConfigMaps, and the names of nodes.

Owns: watching them and handing on what they say. Called by: network.dns. Never does: read their text (net.dns.settings).

A ConfigMap that cannot be read leaves what was before, with an Event on it and a line in the log. Names of nodes answer with
their addresses, as k3s' NodeHosts do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from k1s.agent.context import AgentContext
from k1s.api.catalog import builtin
from k1s.net.dns.corefile import read_custom
from k1s.net.dns.hosts import HostTable
from k1s.net.dns.settings import CLASSIC, CUSTOM, OURS, Settings, SettingsError, merged, read_classic, read_ours
from k1s.net.dns.wire import Name
from k1s.net.family import parse_address

Object = dict[str, Any]
_NAMESPACE = "kube-system"
# What the first says wins.
_READERS = {OURS: read_ours, CLASSIC: read_classic, CUSTOM: read_custom}
_log = logging.getLogger("k1s.agent.network")


class DnsSettings:
    """`changed(settings)` and `nodes_changed(table)` are called from the informers, the first time with what there is."""

    def __init__(
        self,
        agent: AgentContext,
        own_addresses: frozenset[str],
        changed: Callable[[Settings], None],
        nodes_changed: Callable[[HostTable], None],
    ) -> None:
        self._agent, self._own, self._changed, self._nodes_changed = agent, own_addresses, changed, nodes_changed
        self._found = {name: Settings() for name in _READERS}
        self._nodes: dict[str, tuple[str, ...]] = {}
        self._stale = False

    def start(self) -> None:
        informers = self._agent.informers
        for name in _READERS:
            selector = f"metadata.name={name}"
            config_maps = informers.informer(builtin("ConfigMap"), namespace=_NAMESPACE, field_selector=selector)
            config_maps.add_handler(self._config_map)
        informers.informer(builtin("Node")).add_handler(self._node)

    def _config_map(self, old: Object | None, new: Object | None) -> None:
        obj = new or old or {}
        name = obj["metadata"]["name"]
        if name not in self._found or obj["metadata"].get("namespace") != _NAMESPACE:
            return
        if old is not None and new is not None and old.get("data") == new.get("data"):
            return
        domain = self._agent.config.cluster_domain
        try:
            self._found[name] = _READERS[name]((new or {}).get("data") or {}, self._own, domain)
        except SettingsError as error:
            _log.warning("ConfigMap %s/%s: %s; what was set before stays", _NAMESPACE, name, error)
            self._agent.events.event(obj, "Warning", "InvalidDNSSettings", f"{error}; what was set before stays")
            return
        self._changed(merged(*self._found.values()))

    def _node(self, old: Object | None, new: Object | None) -> None:
        name = (new or old or {})["metadata"]["name"]
        addresses = _addresses(new) if new is not None else ()
        if self._nodes.get(name, ()) == addresses:
            return
        if addresses:
            self._nodes[name] = addresses
        else:
            self._nodes.pop(name, None)
        if not self._stale:
            # The first list brings many at once: one table for all of them.
            self._stale = True
            asyncio.get_running_loop().call_soon(self._tell_nodes)

    def _tell_nodes(self) -> None:
        self._stale = False
        hosts = [(address, [_labels(node)]) for node, found in self._nodes.items() for address in found]
        self._nodes_changed(HostTable(hosts))


def _addresses(node: Object) -> tuple[str, ...]:
    found = (node.get("status") or {}).get("addresses") or ()
    internal = (
        a["address"] for a in found if a.get("type") == "InternalIP" and parse_address(a.get("address") or "") is not None
    )
    return tuple(dict.fromkeys(internal))


def _labels(name: str) -> Name:
    return tuple(name.lower().split("."))
