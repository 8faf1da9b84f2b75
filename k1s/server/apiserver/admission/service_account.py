"""Every pod runs as a service account, and finds that account's token where client libraries look.

Owns: ServiceAccount (default account, token volume, image pull secrets). Called by: admission/chain.
Never does: issue tokens (the agent asks for them, subresources/token). Source: upstream plugin/pkg/admission/serviceaccount.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable, Iterator

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
# A new namespace's default account is made by its controller: so long a pod that comes right behind the namespace waits.
_DEFAULT_SECONDS = 1.5
_ENFORCE = "kubernetes.io/enforce-mountable-secrets"
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"


class ServiceAccount(Step):
    resources = frozenset({"pods"})
    operations = frozenset({"CREATE", "UPDATE"})

    def __init__(self, client: Client, informers: InformerFactory) -> None:
        self._client = client
        self._accounts = informers.informer(builtin("ServiceAccount"))
        # Namespaces whose default account somebody waits for; an entry lives as long as its waiters.
        self._waiting: dict[str, tuple[asyncio.Event, list[None]]] = {}
        self._accounts.add_handler(self._came)

    def _came(self, old: Object | None, new: Object | None) -> None:
        if new is not None and self._waiting and new["metadata"]["name"] == "default":
            waiting = self._waiting.get(new["metadata"].get("namespace") or "")
            if waiting is not None:
                waiting[0].set()

    async def mutate(self, request: AdmissionRequest) -> None:
        pod = request.obj
        if pod is None or subresource(request) or request.operation != "CREATE":
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
        ephemeral = request.operation == "UPDATE" and subresource(request) == "ephemeralcontainers"
        if pod is None or not (ephemeral or (request.operation == "CREATE" and not subresource(request))):
            return
        if MIRROR in (pod["metadata"].get("annotations") or {}):
            return
        name = pod["spec"].get("serviceAccountName")
        if not name:
            raise refuse(request, f"no service account specified for pod {request.namespace}/{request.name}")
        account = await self._account(request, name)
        if (account["metadata"].get("annotations") or {}).get(_ENFORCE) != "true":
            return
        faults = _ephemeral_faults(pod["spec"], account) if ephemeral else _secret_faults(pod["spec"], account)
        fault = next(iter(faults), None)
        if fault is not None:
            raise refuse(request, fault)

    async def _account(self, request: AdmissionRequest, name: str) -> Object:
        found = self._accounts.get(name, request.namespace)
        if found is not None:
            return found
        try:
            return await self._client.get(self._accounts.resource, name, request.namespace)
        except ApiError as error:
            if error.reason != "NotFound":
                raise
            if name == "default" and await self._wait(request.namespace):
                return await self._client.get(self._accounts.resource, name, request.namespace)
            text = f'error looking up service account {request.namespace}/{name}: serviceaccount "{name}" not found'
            raise refuse(request, text) from error

    async def _wait(self, namespace: str) -> bool:
        """Until the default account is there; False if it does not come."""
        event, waiters = self._waiting.setdefault(namespace, (asyncio.Event(), []))
        waiters.append(None)
        try:
            async with asyncio.timeout(_DEFAULT_SECONDS):
                await event.wait()
            return True
        except TimeoutError:
            return False
        finally:
            waiters.pop()
            if not waiters:
                self._waiting.pop(namespace, None)


def _names(references: Iterable[Object] | None) -> frozenset[str]:
    return frozenset(str(reference.get("name") or "") for reference in references or ())


def _env_faults(kind: str, containers: Iterable[Object] | None, allowed: frozenset[str], account: str) -> Iterator[str]:
    for container in containers or ():
        for env in container.get("env") or ():
            secret = ((env.get("valueFrom") or {}).get("secretKeyRef") or {}).get("name")
            if secret is not None and secret not in allowed:
                yield (
                    f'{kind} {container.get("name")} with envVar {env.get("name")} referencing secret.secretName="{secret}" '
                    f"is not allowed because service account {account} does not reference that secret"
                )


def _ephemeral_faults(spec: Object, account: Object) -> Iterator[str]:
    allowed, name = _names(account.get("secrets")), str(account["metadata"]["name"])
    yield from _env_faults("ephemeral container", spec.get("ephemeralContainers"), allowed, name)


def _secret_faults(spec: Object, account: Object) -> Iterator[str]:
    """An account may say that its pods use no other secrets than those it names."""
    allowed, name = _names(account.get("secrets")), str(account["metadata"]["name"])
    for volume in spec.get("volumes") or ():
        secret = (volume.get("secret") or {}).get("secretName")
        if secret is not None and secret not in allowed:
            yield (
                f'volume with secret.secretName="{secret}" is not allowed because service account {name} '
                "does not reference that secret"
            )
    yield from _env_faults("init container", spec.get("initContainers"), allowed, name)
    yield from _env_faults("container", spec.get("containers"), allowed, name)
    pull = _names(account.get("imagePullSecrets"))
    for index, reference in enumerate(spec.get("imagePullSecrets") or ()):
        if (reference.get("name") or "") not in pull:
            yield (
                f'imagePullSecrets[{index}].name="{reference.get("name") or ""}" is not allowed because service account {name} '
                "does not reference that imagePullSecret"
            )


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
