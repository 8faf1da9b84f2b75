"""The volumes of a pod: unique names, exactly one source, and each source's own fields.

Called by: pod.py; sources shared with persistent volumes: storage.py. Never does: mounts (mounts.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from k1s.api import names
from k1s.api.errors import duplicate, forbidden_field, invalid_value, required
from k1s.api.meta import Object
from k1s.api.validation.claims import claim_spec
from k1s.api.validation.env import VOLUME_FIELDS, field_ref, resource_field_ref
from k1s.api.validation.mounts import local_path, no_backsteps
from k1s.api.validation.object_meta import template_meta
from k1s.api.validation.rules import Errors, named, non_negative, one_of, quantities, strings

_MODE = "must be a number between 0 and 0777 (octal), both inclusive"
_HOST_PATH_TYPES = (
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
)
_PROJECTIONS = ("secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate")


def _mode(errs: Errors, field: str, value: Any) -> None:
    if isinstance(value, int) and not 0 <= value <= 0o777:
        errs.append(invalid_value(field, value, _MODE))


def _needs(*keys: str) -> Callable[[Errors, str, Object], None]:
    """A source whose only rule is that these fields stand."""

    def check(errs: Errors, field: str, source: Object) -> None:
        for key in keys:
            if source.get(key) in (None, "", []):
                errs.append(required(f"{field}.{key}"))

    return check


def _items(errs: Errors, field: str, items: Any) -> None:
    for index, item in enumerate(items or ()):
        at = f"{field}[{index}]"
        if not item.get("key"):
            errs.append(required(f"{at}.key"))
        if not item.get("path"):
            errs.append(required(f"{at}.path"))
        else:
            local_path(errs, f"{at}.path", item["path"])
        _mode(errs, f"{at}.mode", item.get("mode"))


def _secret(errs: Errors, field: str, source: Object) -> None:
    _needs("secretName")(errs, field, source)
    _mode(errs, f"{field}.defaultMode", source.get("defaultMode"))
    _items(errs, f"{field}.items", source.get("items"))


def _config_map(errs: Errors, field: str, source: Object) -> None:
    _needs("name")(errs, field, source)
    _mode(errs, f"{field}.defaultMode", source.get("defaultMode"))
    _items(errs, f"{field}.items", source.get("items"))


def _downward_items(errs: Errors, field: str, items: Any) -> None:
    for index, item in enumerate(items or ()):
        at = f"{field}[{index}]"
        if not item.get("path"):
            errs.append(required(f"{at}.path"))
        else:
            local_path(errs, f"{at}.path", item["path"])
        ref, resource = item.get("fieldRef"), item.get("resourceFieldRef")
        if ref is not None:
            field_ref(errs, f"{at}.fieldRef", ref, VOLUME_FIELDS)
            if resource is not None:
                errs.append(invalid_value(at, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously"))
        elif resource is not None:
            resource_field_ref(errs, f"{at}.resourceFieldRef", resource, volume=True)
        else:
            errs.append(required(f"{at}.fieldRef", "one of fieldRef and resourceFieldRef is required"))
        _mode(errs, f"{at}.mode", item.get("mode"))


def _downward(errs: Errors, field: str, source: Object) -> None:
    _mode(errs, f"{field}.defaultMode", source.get("defaultMode"))
    _downward_items(errs, f"{field}.items", source.get("items"))


def _token(errs: Errors, field: str, token: Object) -> None:
    at, seconds = f"{field}.expirationSeconds", token.get("expirationSeconds")
    if isinstance(seconds, int):
        if seconds < 600:
            errs.append(invalid_value(at, seconds, "may not specify a duration less than 10 minutes"))
        elif seconds > 1 << 32:
            errs.append(
                invalid_value(f"{field}.expirationSeconds", seconds, "may not specify a duration larger than 2^32 seconds")
            )
    _needs("path")(errs, field, token)


def _trust_bundle(errs: Errors, field: str, source: Object) -> None:
    by_name, by_signer = source.get("name"), source.get("signerName")
    if by_name and by_signer:
        errs.append(invalid_value(field, None, "only one of name and signerName may be used"))
    elif not by_name and not by_signer:
        errs.append(required(field, "either name or signerName must be specified"))
    _needs("path")(errs, field, source)


def _projected(errs: Errors, field: str, source: Object) -> None:
    _mode(errs, f"{field}.defaultMode", source.get("defaultMode"))
    paths: set[str] = set()
    for index, part in enumerate(source.get("sources") or ()):
        at = f"{field}.sources[{index}]"
        given = [key for key in _PROJECTIONS if part.get(key) is not None]
        if not given:
            errs.append(required(at, "must specify a projected volume source"))
        for extra in given[1:]:
            errs.append(forbidden_field(f"{at}.{extra}", "may not specify more than 1 volume type"))
        for kind in given[:1]:
            _projection(errs, f"{at}.{kind}", kind, part[kind])
            for path in _projected_paths(part[kind]):
                if path in paths:
                    errs.append(invalid_value(field, path, "conflicting duplicate paths"))
                paths.add(path)


def _projection(errs: Errors, at: str, kind: str, source: Object) -> None:
    if kind in ("secret", "configMap"):
        _needs("name")(errs, at, source)
        _items(errs, f"{at}.items", source.get("items"))
    elif kind == "downwardAPI":
        _downward_items(errs, f"{at}.items", source.get("items"))
    elif kind == "serviceAccountToken":
        _token(errs, at, source)
    elif kind == "clusterTrustBundle":
        _trust_bundle(errs, at, source)
    else:
        _needs("signerName", "keyType")(errs, at, source)


def _projected_paths(source: Object) -> list[str]:
    return [i["path"] for i in source.get("items") or () if i.get("path")] or [p for p in (source.get("path"),) if p]


def _host_path(errs: Errors, field: str, source: Object) -> None:
    path = source.get("path")
    if not path:
        errs.append(required(f"{field}.path"))
        return
    no_backsteps(errs, f"{field}.path", path)
    kind = source.get("type")
    if kind:
        one_of(errs, f"{field}.type", kind, _HOST_PATH_TYPES[1:])


def _empty_dir(errs: Errors, field: str, source: Object) -> None:
    if source.get("sizeLimit") is not None:
        found: Errors = []
        if not quantities(found, field, source["sizeLimit"]):
            errs.append(forbidden_field(f"{field}.sizeLimit", "SizeLimit field must be a valid resource quantity"))


def _nfs(errs: Errors, field: str, source: Object) -> None:
    _needs("server", "path")(errs, field, source)
    if source.get("path") and not source["path"].startswith("/"):
        errs.append(invalid_value(f"{field}.path", source["path"], "must be an absolute path"))


def _csi(errs: Errors, field: str, source: Object) -> None:
    named(errs, f"{field}.driver", source.get("driver"), csi_driver_name)
    secret = source.get("nodePublishSecretRef")
    if secret is not None and not secret.get("name"):
        errs.append(required(f"{field}.nodePublishSecretRef.name"))


def csi_driver_name(value: str) -> list[str]:
    """A subdomain, of any case, at most 63 characters."""
    return ["must be no more than 63 characters"] if len(value) > 63 else names.dns1123_subdomain(value.lower())


def _ephemeral(errs: Errors, field: str, source: Object) -> None:
    template = source.get("volumeClaimTemplate")
    if template is None:
        errs.append(required(f"{field}.volumeClaimTemplate"))
        return
    template_meta(errs, f"{field}.volumeClaimTemplate.metadata", template.get("metadata"))
    claim_spec(errs, f"{field}.volumeClaimTemplate.spec", template.get("spec") or {})


def _image(errs: Errors, field: str, source: Object) -> None:
    _needs("reference")(errs, field, source)
    one_of(errs, f"{field}.pullPolicy", source.get("pullPolicy"), ("Always", "IfNotPresent", "Never"))


def _iscsi(errs: Errors, field: str, source: Object) -> None:
    _needs("targetPortal", "iqn")(errs, field, source)
    iqn = source.get("iqn") or ""
    if iqn and not iqn.startswith(("iqn", "eui", "naa")):
        errs.append(invalid_value(f"{field}.iqn", iqn, "must be valid format starting with iqn, eui, or naa"))
    lun = source.get("lun")
    if isinstance(lun, int) and not 0 <= lun <= 255:
        errs.append(invalid_value(f"{field}.lun", lun, names.inclusive_range(0, 255)))


def _partition(errs: Errors, field: str, source: Object) -> None:
    _needs("pdName" if "pdName" in source else "volumeID")(errs, field, source)
    non_negative(errs, f"{field}.partition", source.get("partition"))


# Source -> its check; the keys are also the list of what counts as a source.
SOURCES: dict[str, Callable[[Errors, str, Object], None]] = {
    "awsElasticBlockStore": _partition,
    "azureDisk": _needs("diskName", "diskURI"),
    "azureFile": _needs("secretName", "shareName"),
    "cephfs": _needs("monitors"),
    "cinder": _needs("volumeID"),
    "configMap": _config_map,
    "csi": _csi,
    "downwardAPI": _downward,
    "emptyDir": _empty_dir,
    "ephemeral": _ephemeral,
    "fc": _needs(),
    "flexVolume": _needs("driver"),
    "flocker": _needs(),
    "gcePersistentDisk": _partition,
    "gitRepo": _needs("repository"),
    "glusterfs": _needs("endpoints", "path"),
    "hostPath": _host_path,
    "image": _image,
    "iscsi": _iscsi,
    "local": _needs("path"),
    "nfs": _nfs,
    "persistentVolumeClaim": _needs("claimName"),
    "photonPersistentDisk": _needs("pdID"),
    "portworxVolume": _needs("volumeID"),
    "projected": _projected,
    "quobyte": _needs("registry", "volume"),
    "rbd": _needs("monitors", "image"),
    "scaleIO": _needs("gateway", "system", "volumeName"),
    "secret": _secret,
    "storageos": _needs(),
    "vsphereVolume": _needs("volumePath"),
}


def one_source(errs: Errors, field: str, holder: Object, *, check: bool = True) -> str:
    """Exactly one source in `holder`; its name."""
    given = [key for key in SOURCES if holder.get(key) is not None]
    if not given:
        errs.append(required(field, "must specify a volume type"))
        return ""
    for extra in given[1:]:
        errs.append(forbidden_field(f"{field}.{extra}", "may not specify more than 1 volume type"))
    if check:
        SOURCES[given[0]](errs, f"{field}.{given[0]}", holder[given[0]])
    return given[0]


def volumes(errs: Errors, field: str, items: Any) -> dict[str, Object]:
    """spec.volumes; the volumes by name."""
    found: dict[str, Object] = {}
    for index, volume in enumerate(items or ()):
        at = f"{field}[{index}]"
        before = len(errs)
        name = volume.get("name")
        if not name:
            errs.append(required(f"{at}.name"))
        else:
            strings(errs, f"{at}.name", name, names.dns1123_label)
        if name in found:
            errs.append(duplicate(f"{at}.name", name))
        one_source(errs, at, volume)
        if len(errs) == before or name:
            found.setdefault(name or "", volume)
    return found
