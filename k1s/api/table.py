"""Printer columns: what `kubectl get` shows, as the server's Table answer carries it.

columns(resource) -> TableColumnDefinitions | cells(resource, obj, now) -> one cell per column | row_conditions for finished pods
Owns: the table of printers. Called by: apiserver (negotiation of as=Table). Never does: build the Table object, paging.
Custom resources print what register_printer was given (printers/custom.py makes it), else Name and Age.
"""

from __future__ import annotations

from typing import Any

from k1s.api.catalog import Resource
from k1s.api.meta import Object
from k1s.api.printers import cluster, core, network, pods, storage, workloads
from k1s.api.printers.columns import Printer

_PRINTERS: dict[tuple[str, str], Printer] = {
    **core.PRINTERS,
    **pods.PRINTERS,
    **workloads.PRINTERS,
    **network.PRINTERS,
    **storage.PRINTERS,
    **cluster.PRINTERS,
}


# Bounded by the CRDs that are installed: the apiserver registers and forgets them.
_custom: dict[tuple[str, str, str], Printer] = {}


def register_printer(resource: Resource, printer: Printer) -> None:
    """What printers/custom.py made for one version of a custom resource."""
    _custom[resource.group, resource.version, resource.plural] = printer


def forget_printer(resource: Resource) -> None:
    _custom.pop((resource.group, resource.version, resource.plural), None)


def _printer(resource: Resource) -> Printer:
    if resource.custom:
        return _custom.get((resource.group, resource.version, resource.plural), core.DEFAULT)
    return _PRINTERS.get((resource.group, resource.kind), core.DEFAULT)


def columns(resource: Resource) -> list[dict[str, Any]]:
    """metav1.TableColumnDefinition of each column; priority 1 shows with -o wide only."""
    return [dict(column) for column in _printer(resource).columns]


def cells(resource: Resource, obj: Object, now: float) -> list[Any]:
    """The row of one object at the moment `now` (seconds since the epoch)."""
    return _printer(resource).cells(obj, now)


def row_conditions(resource: Resource, obj: Object) -> list[dict[str, str]]:
    """metav1.TableRow.conditions: set for pods that have finished."""
    return pods.row_conditions(obj) if (resource.group, resource.kind) == ("", "Pod") else []
