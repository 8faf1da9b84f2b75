"""volumeMounts and volumeDevices of a container, against the pod's volumes.

Called by: containers.py. Never does: the volumes themselves (volumes.py).
"""

from __future__ import annotations

from typing import Any

from k1s.api.errors import forbidden_field, invalid_value, not_found_field, required
from k1s.api.meta import Object
from k1s.api.validation.rules import Errors, one_of


def local_path(errs: Errors, field: str, path: str, *, relative: bool = True) -> None:
    """A path inside a volume: relative, and it stays there."""
    if relative and path.startswith("/"):
        errs.append(invalid_value(field, path, "must be a relative path"))
    no_backsteps(errs, field, path)


def no_backsteps(errs: Errors, field: str, path: str) -> None:
    if ".." in path.replace("\\", "/").split("/"):
        errs.append(invalid_value(field, path, "must not contain '..'"))


def _device_paths(container: Object) -> set[Any]:
    return {d.get("devicePath") for d in container.get("volumeDevices") or ()}


def volume_mounts(errs: Errors, field: str, container: Object, volumes: dict[str, Object]) -> None:
    seen: set[str] = set()
    devices = {d.get("name") for d in container.get("volumeDevices") or ()}
    privileged = bool((container.get("securityContext") or {}).get("privileged"))
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        at = f"{field}[{index}]"
        name, path = mount.get("name"), mount.get("mountPath")
        if not name:
            errs.append(required(f"{at}.name"))
        elif name in devices:
            errs.append(invalid_value(f"{at}.name", name, "must not already exist in volumeDevices"))
        elif name not in volumes:
            errs.append(not_found_field(f"{at}.name", name))
        if not path:
            errs.append(required(f"{at}.mountPath"))
        elif path in seen:
            errs.append(invalid_value(f"{at}.mountPath", path, "must be unique"))
        elif path in _device_paths(container):
            errs.append(invalid_value(f"{at}.mountPath", path, "must not already exist as a path in volumeDevices"))
        seen.add(path or "")
        _mount_options(errs, at, mount, privileged)


def _mount_options(errs: Errors, at: str, mount: Object, privileged: bool) -> None:
    if mount.get("subPath"):
        local_path(errs, f"{at}.subPath", mount["subPath"])
    if mount.get("subPathExpr"):
        if mount.get("subPath"):
            text = "subPathExpr and subPath are mutually exclusive"
            errs.append(invalid_value(f"{at}.subPathExpr", mount["subPathExpr"], text))
        local_path(errs, f"{at}.subPathExpr", mount["subPathExpr"])
    propagation = mount.get("mountPropagation")
    one_of(errs, f"{at}.mountPropagation", propagation, ("Bidirectional", "HostToContainer", "None"))
    if propagation == "Bidirectional" and not privileged:
        text = "Bidirectional mount propagation is available only to privileged containers"
        errs.append(forbidden_field(f"{at}.mountPropagation", text))
    recursive = mount.get("recursiveReadOnly")
    one_of(errs, f"{at}.recursiveReadOnly", recursive, ("Disabled", "Enabled", "IfPossible"))
    if recursive in ("Enabled", "IfPossible"):
        if not mount.get("readOnly"):
            errs.append(forbidden_field(f"{at}.recursiveReadOnly", "may only be specified when readOnly is true"))
        if propagation not in (None, "None"):
            text = "may only be specified when mountPropagation is None or not specified"
            errs.append(forbidden_field(f"{at}.recursiveReadOnly", text))


def volume_devices(errs: Errors, field: str, container: Object, volumes: dict[str, Object]) -> None:
    names: set[str] = set()
    paths: set[str] = set()
    mounted = {m.get("name") for m in container.get("volumeMounts") or ()}
    mount_paths = {m.get("mountPath") for m in container.get("volumeMounts") or ()}
    for index, device in enumerate(container.get("volumeDevices") or ()):
        at = f"{field}[{index}]"
        name, path = device.get("name"), device.get("devicePath")
        if not name:
            errs.append(required(f"{at}.name"))
        elif name in names:
            errs.append(invalid_value(f"{at}.name", name, "must be unique"))
        elif name in mounted:
            errs.append(invalid_value(f"{at}.name", name, "must not already exist in volumeMounts"))
        elif name not in volumes:
            errs.append(not_found_field(f"{at}.name", name))
        elif not any(volumes[name].get(key) is not None for key in ("persistentVolumeClaim", "ephemeral")):
            text = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"
            errs.append(invalid_value(f"{at}.name", name, text))
        if not path:
            errs.append(required(f"{at}.devicePath"))
        elif path in paths:
            errs.append(invalid_value(f"{at}.devicePath", path, "must be unique"))
        elif ".." in path.split("/"):
            errs.append(invalid_value(f"{at}.devicePath", path, "can not contain backsteps ('..')"))
        elif path in mount_paths:
            errs.append(invalid_value(f"{at}.devicePath", path, "must not already exist as a path in volumeMounts"))
        names.add(name or "")
        paths.add(path or "")
