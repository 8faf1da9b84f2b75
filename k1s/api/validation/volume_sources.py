"""Sources of volumes that pods and persistent volumes have in common, and those whose drivers are gone.

SOURCES: source -> check(errs, field path, source). Called by: volumes.py (pods), persistent_volumes.py.
Never does: what only a pod can have (config maps, projections).
Source: upstream pkg/apis/core/validation, validate<Type>VolumeSource.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from k1s.api import names
from k1s.api.errors import invalid_value, not_supported, required, too_long
from k1s.api.meta import Object
from k1s.api.validation.mounts import local_path, no_backsteps
from k1s.api.validation.rules import Errors, named, one_of, strings

Check = Callable[[Errors, str, Object], None]

_HOST_PATH_TYPES = ("", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket")
_IQN = re.compile(r"iqn\.\d{4}-\d{2}\.([a-zA-Z0-9\-.]+)(:[^,;*&$|\s]+)\Z")
_EUI, _NAA = re.compile(r"eui.[a-zA-Z0-9]{16}\Z"), re.compile(r"naa.[a-zA-Z0-9]{32}\Z")
_INITIATORS = {"iqn": _IQN, "eui": _EUI, "naa": _NAA}
_RESERVED = "kubernetes.io and k8s.io namespaces are reserved"
_MANAGED_DISK = "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"
_BLOB_DISK = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"


def needs(*keys: str) -> Check:
    """A source whose only rule is that these fields stand."""

    def check(errs: Errors, field: str, source: Object) -> None:
        for key in keys:
            if not source.get(key):
                errs.append(required(f"{field}.{key}"))

    return check


def _host_path(errs: Errors, field: str, source: Object) -> None:
    path = source.get("path")
    if not path:
        errs.append(required(f"{field}.path"))
        return
    no_backsteps(errs, f"{field}.path", path)
    kind = source.get("type")
    if kind is not None and kind not in _HOST_PATH_TYPES:
        errs.append(not_supported(f"{field}.type", kind, _HOST_PATH_TYPES))


def _nfs(errs: Errors, field: str, source: Object) -> None:
    needs("server", "path")(errs, field, source)
    if not (source.get("path") or "").startswith("/"):
        errs.append(invalid_value(f"{field}.path", source.get("path") or "", "must be an absolute path"))


def csi_name(errs: Errors, field: str, name: str) -> None:
    """The name of a CSI driver: a subdomain, of any case, at most 63 characters."""
    if not name:
        errs.append(required(field))
    if len(name) > 63:
        errs.append(too_long(field, 63))
    errs.extend(invalid_value(field, name, message) for message in names.dns1123_subdomain(name.lower()))


def initiator(errs: Errors, field: str, value: str, *, plain: bool) -> None:
    """An iSCSI qualified name; `plain`: persistent volumes say less about what is wrong."""
    prefix = value[:3]
    if prefix not in _INITIATORS:
        text = "must be valid format" if plain else "must be valid format starting with iqn, eui, or naa"
        errs.append(invalid_value(field, value, text))
    elif not _INITIATORS[prefix].search(value):
        errs.append(invalid_value(field, value, "must be valid format"))


def iscsi(errs: Errors, field: str, source: Object, *, plain: bool = False) -> None:
    if not source.get("targetPortal"):
        errs.append(required(f"{field}.targetPortal"))
    if not source.get("iqn"):
        errs.append(required(f"{field}.iqn"))
    else:
        initiator(errs, f"{field}.iqn", source["iqn"], plain=plain)
    lun = source.get("lun") or 0
    if not 0 <= lun <= 255:
        errs.append(invalid_value(f"{field}.lun", lun, names.inclusive_range(0, 255)))
    if (source.get("chapAuthDiscovery") or source.get("chapAuthSession")) and source.get("secretRef") is None:
        errs.append(required(f"{field}.secretRef"))
    if plain and source.get("secretRef") is not None and not source["secretRef"].get("name"):
        errs.append(required(f"{field}.secretRef.name"))
    if source.get("initiatorName") is not None:
        initiator(errs, f"{field}.initiatorname", source["initiatorName"], plain=plain)


def _fibre_channel(errs: Errors, field: str, source: Object) -> None:
    worldwide, ids = source.get("targetWWNs") or [], source.get("wwids") or []
    if not worldwide and not ids:
        errs.append(required(f"{field}.targetWWNs", "must specify either targetWWNs or wwids, but not both"))
    if worldwide and ids:
        text = "targetWWNs and wwids can not be specified simultaneously"
        errs.append(invalid_value(f"{field}.targetWWNs", worldwide, text))
    if worldwide:
        lun = source.get("lun")
        if lun is None:
            errs.append(required(f"{field}.lun", "lun is required if targetWWNs is specified"))
        elif not 0 <= lun <= 255:
            errs.append(invalid_value(f"{field}.lun", lun, names.inclusive_range(0, 255)))


def _disk(id_key: str) -> Check:
    def check(errs: Errors, field: str, source: Object) -> None:
        # Upstream says persistentDisk where the field is gcePersistentDisk.
        at = field.replace("gcePersistentDisk", "persistentDisk")
        needs(id_key)(errs, at, source)
        partition = source.get("partition") or 0
        if not 0 <= partition <= 255:
            errs.append(invalid_value(f"{at}.partition", partition, names.inclusive_range(1, 255)))

    return check


def _git_repo(errs: Errors, field: str, source: Object) -> None:
    needs("repository")(errs, field, source)
    local_path(errs, f"{field}.directory", source.get("directory") or "")


def _quobyte(errs: Errors, field: str, source: Object) -> None:
    registry, text = source.get("registry") or "", "must be a host:port pair or multiple pairs separated by commas"
    if not registry:
        errs.append(required(f"{field}.registry", text))
    elif len(source.get("tenant") or "") >= 65:
        errs.append(required(f"{field}.tenant", "must be a UUID and may not exceed a length of 64 characters"))
    else:
        for pair in registry.split(","):
            if not re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]*):[^:]*", pair):
                errs.append(invalid_value(f"{field}.registry", registry, text))
    needs("volume")(errs, field, source)


def _flocker(errs: Errors, field: str, source: Object) -> None:
    name, uid = source.get("datasetName") or "", source.get("datasetUUID")
    if not name and not uid:
        errs.append(required(field, "one of datasetName and datasetUUID is required"))
    if name and uid:
        errs.append(invalid_value(field, "resource", "datasetName and datasetUUID can not be specified simultaneously"))
    if "/" in name:
        errs.append(invalid_value(f"{field}.datasetName", name, "must not contain '/'"))


def _flex(errs: Errors, field: str, source: Object) -> None:
    needs("driver")(errs, field, source)
    for key in source.get("options") or {}:
        if f".{key.partition('/')[0].lower()}".endswith((".kubernetes.io", ".k8s.io")):
            errs.append(invalid_value(f"{field}.options[{key}]", key, _RESERVED))


def _azure_disk(errs: Errors, field: str, source: Object) -> None:
    needs("diskName", "diskURI")(errs, field, source)
    one_of(errs, f"{field}.cachingMode", source.get("cachingMode"), ("None", "ReadOnly", "ReadWrite"))
    kind, uri = source.get("kind"), source.get("diskURI") or ""
    one_of(errs, f"{field}.kind", kind, ("Dedicated", "Managed", "Shared"))
    if kind == "Managed" and not uri.startswith("/subscriptions/"):
        errs.append(not_supported(f"{field}.diskURI", uri, (_MANAGED_DISK,)))
    if kind is not None and kind != "Managed" and not uri.startswith("https://"):
        errs.append(not_supported(f"{field}.diskURI", uri, (_BLOB_DISK,)))


def _storage_os(errs: Errors, field: str, source: Object) -> None:
    named(errs, f"{field}.volumeName", source.get("volumeName"), names.dns1123_label)
    if source.get("volumeNamespace"):
        strings(errs, f"{field}.volumeNamespace", source["volumeNamespace"], names.dns1123_label)
    _secret_name(errs, field, source)


def _secret_name(errs: Errors, field: str, source: Object) -> None:
    if source.get("secretRef") is not None and not source["secretRef"].get("name"):
        errs.append(required(f"{field}.secretRef.name"))


def _cinder(errs: Errors, field: str, source: Object) -> None:
    needs("volumeID")(errs, field, source)
    _secret_name(errs, field, source)


# The order is upstream's: of two sources the earlier one is checked, the later one refused.
SOURCES: dict[str, Check] = {
    "hostPath": _host_path,
    "gitRepo": _git_repo,
    "gcePersistentDisk": _disk("pdName"),
    "awsElasticBlockStore": _disk("volumeID"),
    "nfs": _nfs,
    "iscsi": iscsi,
    "glusterfs": needs("endpoints", "path"),
    "flocker": _flocker,
    "rbd": needs("monitors", "image"),
    "cinder": _cinder,
    "cephfs": needs("monitors"),
    "quobyte": _quobyte,
    "fc": _fibre_channel,
    "flexVolume": _flex,
    "azureFile": needs("secretName", "shareName"),
    "vsphereVolume": needs("volumePath"),
    "photonPersistentDisk": needs("pdID"),
    "portworxVolume": needs("volumeID"),
    "azureDisk": _azure_disk,
    "storageos": _storage_os,
    "scaleIO": needs("gateway", "system", "volumeName"),
}
