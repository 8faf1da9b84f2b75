"""volumeMounts and volumeDevices of a container, against the pod's volumes.

Called by: containers.py; paths inside volumes: volumes.py, volume_sources.py, projections.py. Never does: the volumes themselves.
Source: upstream ValidateVolumeMounts and ValidateVolumeDevices, with its field paths (subPath has no index).
"""

from __future__ import annotations

from typing import Any

from k1s.api.errors import forbidden_field, invalid_value, not_found_field, required
from k1s.api.meta import Object
from k1s.api.validation.rules import Errors, one_of


def local_path(errs: Errors, field: str, path: str) -> None:
    """A path inside a volume: relative, and it stays there."""
    if path.startswith("/"):
        errs.append(invalid_value(field, path, "must be a relative path"))
    no_backsteps(errs, field, path)


def no_backsteps(errs: Errors, field: str, path: str) -> None:
    if ".." in path.split("/"):
        errs.append(invalid_value(field, path, "must not contain '..'"))


def file_path(errs: Errors, field: str, path: str) -> None:
    """The path of a file that the agent writes: names that begin with two dots are its own."""
    local_path(errs, field, path)
    if path.startswith("..") and not path.startswith("../"):
        errs.append(invalid_value(field, path, "must not start with '..'"))


def volume_mounts(errs: Errors, field: str, container: Object, volumes: dict[str, Object]) -> None:
    seen: set[str] = set()
    devices = container.get("volumeDevices") or ()
    device_names = {d.get("name") for d in devices}
    device_paths = {d.get("devicePath") for d in devices}
    privileged = bool((container.get("securityContext") or {}).get("privileged"))
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        at = f"{field}[{index}]"
        name, path = mount.get("name") or "", mount.get("mountPath") or ""
        if not name:
            errs.append(required(f"{at}.name"))
        if name not in volumes:
            errs.append(not_found_field(f"{at}.name", name))
        if not path:
            errs.append(required(f"{at}.mountPath"))
        if path in seen:
            errs.append(invalid_value(f"{at}.mountPath", path, "must be unique"))
        seen.add(path)
        if name in device_names:
            errs.append(invalid_value(f"{at}.name", name, "must not already exist in volumeDevices"))
        if path in device_paths:
            errs.append(invalid_value(f"{at}.mountPath", path, "must not already exist as a path in volumeDevices"))
        _mount_options(errs, field, at, mount, privileged)


def _mount_options(errs: Errors, field: str, at: str, mount: Object, privileged: bool) -> None:
    if mount.get("subPath"):
        local_path(errs, f"{field}.subPath", mount["subPath"])
    if mount.get("subPathExpr"):
        if mount.get("subPath"):
            text = "subPathExpr and subPath are mutually exclusive"
            errs.append(invalid_value(f"{at}.subPathExpr", mount["subPathExpr"], text))
        local_path(errs, f"{field}.subPathExpr", mount["subPathExpr"])
    propagation = mount.get("mountPropagation")
    one_of(errs, f"{field}.mountPropagation", propagation, ("Bidirectional", "HostToContainer", "None"))
    if propagation == "Bidirectional" and not privileged:
        text = "Bidirectional mount propagation is available only to privileged containers"
        errs.append(forbidden_field(f"{field}.mountPropagation", text))
    recursive = mount.get("recursiveReadOnly")
    one_of(errs, f"{field}.recursiveReadOnly", recursive, ("Disabled", "Enabled", "IfPossible"))
    if recursive in ("Enabled", "IfPossible"):
        if not mount.get("readOnly"):
            errs.append(forbidden_field(f"{field}.recursiveReadOnly", "may only be specified when readOnly is true"))
        if propagation not in (None, "None"):
            text = "may only be specified when mountPropagation is None or not specified"
            errs.append(forbidden_field(f"{field}.recursiveReadOnly", text))


def volume_devices(errs: Errors, field: str, container: Object, volumes: dict[str, Object]) -> None:
    names: set[str] = set()
    paths: set[str] = set()
    mounts = container.get("volumeMounts") or ()
    mounted, mount_paths = {m.get("name") for m in mounts}, {m.get("mountPath") for m in mounts}
    for index, device in enumerate(container.get("volumeDevices") or ()):
        at = f"{field}[{index}]"
        name, path = device.get("name") or "", device.get("devicePath") or ""
        _device_name(errs, f"{at}.name", name, names, volumes)
        if not path:
            errs.append(required(f"{at}.devicePath"))
        if path in paths:
            errs.append(invalid_value(f"{at}.devicePath", path, "must be unique"))
        if ".." in path.split("/"):
            errs.append(invalid_value(f"{at}.devicePath", path, "can not contain backsteps ('..')"))
        else:
            paths.add(path)
        if name in mounted:
            errs.append(invalid_value(f"{at}.name", name, "must not already exist in volumeMounts"))
        if path in mount_paths:
            errs.append(invalid_value(f"{at}.devicePath", path, "must not already exist as a path in volumeMounts"))
        if name:
            names.add(name)


def _device_name(errs: Errors, field: str, name: str, taken: set[str], volumes: dict[str, Any]) -> None:
    if not name:
        errs.append(required(field))
    if name in taken:
        errs.append(invalid_value(field, name, "must be unique"))
    volume = volumes.get(name)
    if volume is None:
        errs.append(not_found_field(field, name))
    elif volume.get("persistentVolumeClaim") is None and volume.get("ephemeral") is None:
        text = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"
        errs.append(invalid_value(field, name, text))
