"""Defaults of the pod spec: what every template gets, and what only a Pod gets.

Called by: table.py (Pod, PodTemplate), apps.py, batch.py, core.py (templates). Never does: admission (service account, priority).
"""

from __future__ import annotations

from k1s.api.defaults.containers import container
from k1s.api.defaults.resources import canonical_list, canonical_requirements, pod_level, requests_from_limits
from k1s.api.defaults.volumes import volume
from k1s.api.meta import Object

CONTAINER_LISTS = ("containers", "initContainers", "ephemeralContainers")


def pod_spec(spec: Object) -> None:
    """The part that templates get too."""
    if not spec.get("dnsPolicy"):
        spec["dnsPolicy"] = "ClusterFirst"
    if not spec.get("restartPolicy"):
        spec["restartPolicy"] = "Always"
    if spec.get("securityContext") is None:
        spec["securityContext"] = {}
    if spec.get("terminationGracePeriodSeconds") is None:
        spec["terminationGracePeriodSeconds"] = 30
    if not spec.get("schedulerName"):
        spec["schedulerName"] = "default-scheduler"
    _service_account(spec)
    for key in CONTAINER_LISTS:
        for item in spec.get(key) or ():
            container(item)
    for item in spec.get("volumes") or ():
        volume(item)
    if spec.get("overhead"):
        canonical_list(spec["overhead"])
    if spec.get("resources"):
        canonical_requirements(spec["resources"])


def _service_account(spec: Object) -> None:
    # serviceAccount is the old name of serviceAccountName; upstream shows both, the new one wins.
    name = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if name:
        spec["serviceAccountName"] = name
        spec["serviceAccount"] = name


def template(holder: Object) -> None:
    """`holder.template`, a PodTemplateSpec."""
    value = holder.get("template")
    if value is None:
        value = holder["template"] = {}
    if value.get("metadata") is None:
        value["metadata"] = {}
    if value.get("spec") is None:
        value["spec"] = {}
    pod_spec(value["spec"])


def pod_template(obj: Object) -> None:
    template(obj)


def pod(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    pod_spec(spec)
    for key in ("containers", "initContainers"):
        for item in spec.get(key) or ():
            requests_from_limits(item["resources"])
    pod_level(spec)
    if spec.get("enableServiceLinks") is None:
        spec["enableServiceLinks"] = True
    if spec.get("hostNetwork"):
        _host_ports(spec)
    obj.setdefault("status", {})


def _host_ports(spec: Object) -> None:
    for key in ("containers", "initContainers"):
        for item in spec.get(key) or ():
            for port in item.get("ports") or ():
                if not port.get("hostPort") and port.get("containerPort"):
                    port["hostPort"] = port["containerPort"]
