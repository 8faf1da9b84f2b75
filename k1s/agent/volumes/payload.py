"""configMap, secret, downwardAPI and projected volumes: files out of the API, kept current.

Owns: which files such a volume holds, and writing them. Called by: volumes/manager. Never does: watch (volumes/objects does).
Source: pkg/volume/{configmap,secret,downwardapi,projected}.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from pathlib import Path

from k1s.agent.containers.fields import FieldUnknown, field_value, resource_value
from k1s.agent.pods.model import Object, containers
from k1s.agent.volumes import atomic_writer, mounts
from k1s.agent.volumes.atomic_writer import FileContent
from k1s.agent.volumes.interface import VolumeFault, VolumeRequest
from k1s.agent.volumes.objects import ObjectUnavailable
from k1s.agent.volumes.tokens import TokenFault

_DEFAULT_MODE = 0o644


async def config_map(request: VolumeRequest) -> Path:
    source = request.volume["configMap"]
    files = await _from_object(request, "ConfigMap", source.get("name", ""), source, _mode(source))
    return await _write(request, "configmap", files)


async def secret(request: VolumeRequest) -> Path:
    source = request.volume["secret"]
    files = await _from_object(request, "Secret", source.get("secretName", ""), source, _mode(source))
    return await _write(request, "secret", files, in_memory=True)


async def downward(request: VolumeRequest) -> Path:
    source = request.volume["downwardAPI"] or {}
    return await _write(request, "downward-api", _downward(request, source, _mode(source)))


async def projected(request: VolumeRequest) -> Path:
    volume = request.volume["projected"]
    mode = _mode(volume)
    files: dict[str, FileContent] = {}
    for source in volume.get("sources") or []:
        if source.get("configMap") is not None:
            files.update(await _from_object(request, "ConfigMap", source["configMap"].get("name", ""), source["configMap"], mode))
        elif source.get("secret") is not None:
            files.update(await _from_object(request, "Secret", source["secret"].get("name", ""), source["secret"], mode))
        elif source.get("downwardAPI") is not None:
            files.update(_downward(request, source["downwardAPI"], mode))
        elif source.get("serviceAccountToken") is not None:
            path, content = await _token(request, source["serviceAccountToken"], mode)
            files[path] = content
        else:
            raise VolumeFault(f"projected source {', '.join(source)} is not supported by this node yet")
    return await _write(request, "projected", files, in_memory=True)


def _mode(source: Object) -> int:
    value = source.get("defaultMode")
    return _DEFAULT_MODE if value is None else int(value)


async def _from_object(request: VolumeRequest, kind: str, name: str, source: Object, mode: int) -> dict[str, FileContent]:
    namespace = request.pod["metadata"]["namespace"]
    try:
        found = await request.agent.objects.get(kind, namespace, name)
    except ObjectUnavailable as error:
        raise VolumeFault(str(error)) from error
    optional = bool(source.get("optional"))
    if found is None:
        if not optional:
            raise VolumeFault(f'{kind.lower()} "{name}" not found')
        return {}
    data = _bytes(kind, found)
    items = source.get("items")
    if not items:
        return {key: FileContent(value, mode) for key, value in data.items()}
    out: dict[str, FileContent] = {}
    for item in items:
        if item["key"] not in data:
            if optional:
                continue
            raise VolumeFault(f"references non-existent {'config' if kind == 'ConfigMap' else 'secret'} key: {item['key']}")
        out[item["path"]] = FileContent(data[item["key"]], mode if item.get("mode") is None else int(item["mode"]))
    return out


def _bytes(kind: str, obj: Object) -> dict[str, bytes]:
    if kind == "Secret":
        return {key: base64.b64decode(value or "") for key, value in (obj.get("data") or {}).items()}
    binary = {key: base64.b64decode(value or "") for key, value in (obj.get("binaryData") or {}).items()}
    return {**{key: value.encode() for key, value in (obj.get("data") or {}).items()}, **binary}


def _downward(request: VolumeRequest, source: Object, mode: int) -> dict[str, FileContent]:
    out: dict[str, FileContent] = {}
    machine = request.agent.machine
    allocatable = {"cpu": machine.cpus * 1000, "memory": machine.memory, "ephemeral-storage": machine.ephemeral_storage}
    for item in source.get("items") or []:
        try:
            if item.get("fieldRef"):
                path = item["fieldRef"]["fieldPath"]
                text = field_value(request.pod, path, host_ips=request.agent.node_ips, pod_ips=request.pod_ips)
            else:
                first = containers(request.pod)[0]["name"]
                text = resource_value(request.pod, first, item["resourceFieldRef"], allocatable)
        except FieldUnknown as error:
            raise VolumeFault(str(error)) from error
        out[item["path"]] = FileContent(text.encode(), mode if item.get("mode") is None else int(item["mode"]))
    return out


async def _token(request: VolumeRequest, source: Object, mode: int) -> tuple[str, FileContent]:
    try:
        token = await request.agent.tokens.get(request.pod, source)
    except TokenFault as error:
        raise VolumeFault(str(error)) from error
    # A container that runs as somebody else must be able to read it: by group if there is one, else by owner.
    user = _single_user(request.pod)
    if request.fs_group is not None:
        return source["path"], FileContent(token.encode(), 0o640 if mode == _DEFAULT_MODE else mode | 0o040)
    if user is not None:
        return source["path"], FileContent(token.encode(), 0o600, uid=user)
    return source["path"], FileContent(token.encode(), mode)


def _single_user(pod: Object) -> int | None:
    """The uid all containers run as, if it is the same for all."""
    level = (pod["spec"].get("securityContext") or {}).get("runAsUser")
    everyone = [*containers(pod), *(pod["spec"].get("initContainers") or [])]
    users = {(c.get("securityContext") or {}).get("runAsUser", level) for c in everyone}
    return users.pop() if len(users) == 1 else None


async def _write(request: VolumeRequest, plugin: str, files: Mapping[str, FileContent], *, in_memory: bool = False) -> Path:
    path = request.paths.volume(plugin, request.name)
    await asyncio.to_thread(_write_now, path, dict(files), request.fs_group, in_memory)
    return path


def _write_now(path: Path, files: dict[str, FileContent], group: int | None, in_memory: bool) -> None:
    if not path.is_dir():
        path.mkdir(parents=True)
    if in_memory and not mounts.is_mounted(path):
        # Secrets must not reach the disk.
        mounts.mount("tmpfs", path, "tmpfs", data="size=16m,mode=0755")
    if group is not None:
        files = {p: FileContent(c.data, c.mode | (c.mode & 0o400) >> 3, c.uid) for p, c in files.items()}
    try:
        atomic_writer.write(path, files, group=group)
    except ValueError as error:
        raise VolumeFault(str(error)) from error
