"""Every pod runs as a service account, and finds that account's token where client libraries look.

Owns: ServiceAccount (default account, token volume, image pull secrets). Called by: admission/chain.
Never does: issue tokens (the agent asks for them, subresources/token). Source: upstream plugin/pkg/admission/serviceaccount.
"""

from __future__ import annotations

import secrets

from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.client.interface import Client, InformerFactory, Object
from k1s.server.apiserver.admission.step import Step, refuse, subresource
from k1s.server.apiserver.attributes import AdmissionRequest
from k1s.server.apiserver.authn.service_accounts import PROJECTED_SECONDS
from k1s.server.apiserver.authz.references import config_map_names, pod_claims, secret_names

MIRROR = "kubernetes.io/config.mirror"
MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
_PREFIX = "kube-api-access-"
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"


class ServiceAccount(Step):
    resources = frozenset({"pods"})
    operations = frozenset({"CREATE"})

    def __init__(self, client: Client, informers: InformerFactory) -> None:
        self._client = client
        self._accounts = informers.informer(builtin("ServiceAccount"))

    async def mutate(self, request: AdmissionRequest) -> None:
        pod = request.obj
        if pod is None or subresource(request):
            return
        if MIRROR in (pod["metadata"].get("annotations") or {}):
            _check_mirror(request, pod)
            return
        spec = pod["spec"]
        name = spec.get("serviceAccountName") or "default"
        spec["serviceAccountName"] = spec["serviceAccount"] = name
        account = await self._account(request, name)
        if _wants_token(spec, account):
            _mount_token(spec)
        if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
            spec["imagePullSecrets"] = [dict(reference) for reference in account["imagePullSecrets"]]

    async def validate(self, request: AdmissionRequest) -> None:
        pod = request.obj
        if pod is None or subresource(request) or MIRROR in (pod["metadata"].get("annotations") or {}):
            return
        name = pod["spec"].get("serviceAccountName")
        if not name:
            raise refuse(request, "no service account specified for pod")
        await self._account(request, name)

    async def _account(self, request: AdmissionRequest, name: str) -> Object:
        found = self._accounts.get(name, request.namespace)
        if found is not None:
            return found
        try:
            return await self._client.get(self._accounts.resource, name, request.namespace)
        except ApiError as error:
            if error.reason != "NotFound":
                raise
            text = f'error looking up service account {request.namespace}/{name}: serviceaccount "{name}" not found'
            raise refuse(request, text) from error


def _wants_token(spec: Object, account: Object) -> bool:
    for holder in (spec, account):
        if holder.get("automountServiceAccountToken") is not None:
            return bool(holder["automountServiceAccountToken"])
    return True


def _mount_token(spec: Object) -> None:
    volumes = spec.get("volumes") or []
    name = next((v["name"] for v in volumes if str(v.get("name", "")).startswith(_PREFIX)), "")
    made = not name
    if made:
        name = _PREFIX + "".join(secrets.choice(_LETTERS) for _ in range(5))
    needed = False
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        mounts = container.get("volumeMounts") or []
        if any(mount.get("mountPath") == MOUNT_PATH for mount in mounts):
            continue
        container["volumeMounts"] = [*mounts, {"name": name, "readOnly": True, "mountPath": MOUNT_PATH}]
        needed = True
    if needed and made:
        spec["volumes"] = [*volumes, _volume(name)]


def _volume(name: str) -> Object:
    namespace = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    sources = [
        {"serviceAccountToken": {"expirationSeconds": PROJECTED_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [namespace]}},
    ]
    return {"name": name, "projected": {"sources": sources, "defaultMode": 0o644}}


def _check_mirror(request: AdmissionRequest, pod: Object) -> None:
    """A mirror pod shows a static pod, which must not depend on the API."""
    spec = pod["spec"]
    if spec.get("serviceAccountName"):
        raise refuse(request, "a mirror pod may not reference service accounts")
    if secret_names(pod):
        raise refuse(request, "a mirror pod may not reference secrets")
    if config_map_names(pod):
        raise refuse(request, "a mirror pod may not reference configmaps")
    if pod_claims(pod):
        raise refuse(request, "a mirror pod may not reference persistentvolumeclaims")
    for volume in spec.get("volumes") or ():
        if any(source.get("serviceAccountToken") for source in (volume.get("projected") or {}).get("sources") or ()):
            raise refuse(request, "a mirror pod may not use ServiceAccountToken volume projections")
