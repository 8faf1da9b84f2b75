"""What a pod refers to by name: secrets, config maps, claims.

Owns: walking a pod spec for references. Called by: authz/node, admission (service_account, node_restriction).
Never does: look the objects up. Source: upstream pkg/api/v1/pod (VisitPodSecretNames, VisitPodConfigmapNames).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from k1s.client.interface import Object

# Volume sources with a `secretRef` of the pod's own namespace, and those that call it otherwise.
_SECRET_REFS = (
    ("cephfs", "secretRef"),
    ("flexVolume", "secretRef"),
    ("rbd", "secretRef"),
    ("scaleIO", "secretRef"),
    ("iscsi", "secretRef"),
    ("storageos", "secretRef"),
    ("csi", "nodePublishSecretRef"),
)


def containers(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for key in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(key) or ()


def secret_names(pod: Object) -> set[str]:
    """Secrets of the pod's namespace that its containers, volumes and image pulls use."""
    spec = pod.get("spec") or {}
    names = {r.get("name") for r in spec.get("imagePullSecrets") or ()}
    names.update(_from_environment(spec, "secretKeyRef", "secretRef"))
    for volume in spec.get("volumes") or ():
        names.add((volume.get("secret") or {}).get("secretName"))
        names.add((volume.get("azureFile") or {}).get("secretName"))
        for kind, key in _SECRET_REFS:
            names.add(((volume.get(kind) or {}).get(key) or {}).get("name"))
        for source in (volume.get("projected") or {}).get("sources") or ():
            names.add((source.get("secret") or {}).get("name"))
    return {str(name) for name in names if name}


def config_map_names(pod: Object) -> set[str]:
    """Config maps of the pod's namespace that its containers and volumes use."""
    spec = pod.get("spec") or {}
    names: set[Any] = set(_from_environment(spec, "configMapKeyRef", "configMapRef"))
    for volume in spec.get("volumes") or ():
        names.add((volume.get("configMap") or {}).get("name"))
        for source in (volume.get("projected") or {}).get("sources") or ():
            names.add((source.get("configMap") or {}).get("name"))
    return {str(name) for name in names if name}


def pod_claims(pod: Object) -> set[str]:
    """Claims that the pod mounts; an ephemeral volume's claim is called <pod>-<volume>."""
    names = set()
    for volume in (pod.get("spec") or {}).get("volumes") or ():
        name = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if name:
            names.add(str(name))
        elif volume.get("ephemeral") is not None:
            names.add(f"{pod['metadata'].get('name', '')}-{volume.get('name')}")
    return names


def service_account_name(pod: Object) -> str:
    return str((pod.get("spec") or {}).get("serviceAccountName") or "")


def _from_environment(spec: dict[str, Any], key_reference: str, whole_reference: str) -> Iterator[Any]:
    for container in containers(spec):
        for variable in container.get("env") or ():
            yield ((variable.get("valueFrom") or {}).get(key_reference) or {}).get("name")
        for source in container.get("envFrom") or ():
            yield (source.get(whole_reference) or {}).get("name")
