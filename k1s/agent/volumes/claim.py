"""persistentVolumeClaim and ephemeral: the directory of the node that its volume names.

Owns: claim -> volume -> path, for volumes of type hostPath and local. Called by: volumes/manager. Never does: bind claims (a
controller does), provision, speak to CSI drivers: such a volume is refused by name.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from k1s.agent.pods.model import Object
from k1s.agent.volumes.interface import VolumeFault, VolumeRequest
from k1s.api.catalog import Resource, builtin
from k1s.api.errors import ApiError


async def prepare(request: VolumeRequest) -> Path:
    source = request.volume.get("persistentVolumeClaim")
    # A generic ephemeral volume has a claim of its own, made by a controller and named after pod and volume.
    name = source["claimName"] if source else f"{request.pod['metadata']['name']}-{request.name}"
    claim = await _get(request, builtin("PersistentVolumeClaim"), name, request.pod["metadata"]["namespace"])
    volume_name = claim["spec"].get("volumeName")
    if not volume_name or (claim.get("status") or {}).get("phase") != "Bound":
        raise VolumeFault(f'persistentvolumeclaim "{name}" is not bound to a volume yet')
    volume = await _get(request, builtin("PersistentVolume"), volume_name, "")
    bound = volume["spec"].get("claimRef") or {}
    if bound.get("uid") != claim["metadata"]["uid"]:
        raise VolumeFault(f'persistentvolume "{volume_name}" is bound to another claim')
    return await asyncio.to_thread(_directory, request, volume)


async def _get(request: VolumeRequest, resource: Resource, name: str, namespace: str) -> Object:
    try:
        return await request.agent.client.get(resource, name, namespace)
    except ApiError as error:
        raise VolumeFault(str(error)) from error


def _directory(request: VolumeRequest, volume: Object) -> Path:
    spec = volume["spec"]
    if spec.get("hostPath"):
        path = Path(spec["hostPath"]["path"])
        if spec["hostPath"].get("type") in (None, "", "DirectoryOrCreate"):
            path.mkdir(parents=True, exist_ok=True)
    elif spec.get("local"):
        path = Path(spec["local"]["path"])
        if request.fs_group is not None and path.is_dir():
            give_to_group(path, request.fs_group)
    else:
        kind = next((k for k in spec if isinstance(spec[k], dict) and k not in _NOT_SOURCES), "its type")
        raise VolumeFault(f'persistentvolume "{volume["metadata"]["name"]}": {kind} is not supported by this node yet')
    if not path.exists():
        raise VolumeFault(f"path {path} of the volume does not exist on this node")
    return path


_NOT_SOURCES = ("capacity", "claimRef", "nodeAffinity")


def give_to_group(root: Path, group: int) -> None:
    """fsGroup: everything below belongs to the group and may be written by it. Done once: the root tells whether it was."""
    state = root.stat()
    if state.st_gid == group and state.st_mode & 0o2070 == 0o2070:
        return
    for directory, _, files in os.walk(root, topdown=False):
        for name in files:
            path = os.path.join(directory, name)
            os.lchown(path, -1, group)
            if not os.path.islink(path):
                os.chmod(path, os.stat(path).st_mode | 0o060)
        os.lchown(directory, -1, group)
        os.chmod(directory, os.stat(directory).st_mode | 0o2070)
