"""Fills Secrets of type kubernetes.io/service-account-token, and removes them with their service account.

Owns: that controller; it lives beside the signing key and not among the controllers, which never see keys.
Called by: server/app as a task. Never does: make such Secrets (users do; nothing in k1s needs them).
Source: upstream pkg/controller/serviceaccount/tokens_controller.go.

Queue: a set of (namespace, name), at most one entry per token Secret; a failed write is tried again with backoff.
It also notes on such a Secret on which day its token was used last (KEP-2799): one write a day and Secret.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable

from k1s.api.catalog import builtin
from k1s.api.clone import clone
from k1s.api.errors import ApiError
from k1s.base.backoff import Backoff, KeyedBackoff
from k1s.base.clock import Clock, rfc3339
from k1s.client.interface import Client, InformerFactory, Object
from k1s.server.apiserver.authn.service_accounts import LAST_USED, TOKEN_SECRET_TYPE, ServiceAccountTokens

log = logging.getLogger("k1s.server.secret-tokens")

TRACKING = "kube-apiserver-legacy-service-account-token-tracking"
_NAME = "kubernetes.io/service-account.name"
_UID = "kubernetes.io/service-account.uid"
_INDEX = "token-secret-account"
_RETRY = Backoff(0.5, 60.0)


class SecretTokens:
    """`run` for as long as the server lives. `ca`: what the Secrets hold as ca.crt."""

    def __init__(
        self, client: Client, informers: InformerFactory, tokens: ServiceAccountTokens, clock: Clock, *, ca: bytes
    ) -> None:
        self._client, self._tokens, self._clock, self._ca = client, tokens, clock, ca
        self._secrets = informers.informer(builtin("Secret"))
        self._accounts = informers.informer(builtin("ServiceAccount"))
        self._due: set[tuple[str, str]] = set()
        tokens.used = self._used
        # Secret -> the day of its token's use; at most one entry per token Secret.
        self._last_use: dict[tuple[str, str], str] = {}
        self._wake = asyncio.Event()
        self._backoff = KeyedBackoff(_RETRY)

    async def run(self, ready: Callable[[], None]) -> None:
        self._secrets.add_index(_INDEX, _account_of)
        self._secrets.add_handler(self._secret_changed)
        self._accounts.add_handler(self._account_changed)
        ready()
        await self._begin_tracking()
        async with asyncio.TaskGroup() as later:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._due:
                    key = self._due.pop()
                    try:
                        await self.reconcile(*key)
                        self._backoff.forget(key)
                    except ApiError as error:
                        delay = self._backoff.next(key)
                        log.warning("secret %s/%s: %s; trying again in %.1f s", *key, error.message, delay)
                        later.create_task(self._again(key, delay))

    async def _begin_tracking(self) -> None:
        """Say since when uses are noted, once and for all: before that day a missing label means nothing."""
        config_maps = builtin("ConfigMap")
        meta = {"name": TRACKING, "namespace": "kube-system"}
        try:
            await self._client.get(config_maps, TRACKING, "kube-system")
        except ApiError as error:
            if error.reason != "NotFound":
                log.warning("configmap %s: %s", TRACKING, error.message)
                return
            since = {"since": rfc3339(self._clock.now())[:10]}
            try:
                await self._client.create(config_maps, {"metadata": meta, "data": since}, "kube-system")
            except ApiError as refused:
                log.warning("configmap %s: %s", TRACKING, refused.message)

    async def reconcile(self, namespace: str, name: str) -> None:
        """Bring one Secret to what its service account says."""
        secret = self._secrets.get(name, namespace)
        if secret is None or secret.get("type") != TOKEN_SECRET_TYPE:
            return
        annotations = secret["metadata"].get("annotations") or {}
        account = self._accounts.get(annotations.get(_NAME, ""), namespace)
        if account is None or annotations.get(_UID, account["metadata"]["uid"]) != account["metadata"]["uid"]:
            await self._remove(secret, annotations)
            return
        wanted = self._filled(secret, account)
        if wanted is not None:
            await self._client.update(self._secrets.resource, wanted)
            return
        day = self._last_use.pop((namespace, name), "")
        if day and (secret["metadata"].get("labels") or {}).get(LAST_USED) != day:
            change = {"metadata": {"uid": secret["metadata"]["uid"], "labels": {LAST_USED: day}}}
            try:
                await self._client.patch(self._secrets.resource, name, namespace, change)
            except ApiError as error:
                if error.reason not in ("NotFound", "Conflict"):
                    raise

    def _filled(self, secret: Object, account: Object) -> Object | None:
        """The Secret with token, ca.crt and namespace; None if it has them."""
        meta, data = secret["metadata"], secret.get("data") or {}
        wanted = {"ca.crt": _encode(self._ca), "namespace": _encode(meta["namespace"].encode())}
        complete = data.get("token") and all(data.get(k) == v for k, v in wanted.items())
        if complete and (meta.get("annotations") or {}).get(_UID) == account["metadata"]["uid"]:
            return None
        out: Object = clone(secret)
        token = data.get("token") or _encode(self._tokens.issue_legacy(account, meta["name"]).encode())
        out["data"] = {**data, **wanted, "token": token}
        out["metadata"].setdefault("annotations", {})[_UID] = account["metadata"]["uid"]
        return out

    async def _remove(self, secret: Object, annotations: dict[str, str]) -> None:
        # One without uid has never had its account: its author may still be about to make it.
        if _UID not in annotations:
            return
        meta = secret["metadata"]
        try:
            await self._client.delete(self._secrets.resource, meta["name"], meta["namespace"], uid=meta["uid"])
        except ApiError as error:
            if error.reason not in ("NotFound", "Conflict"):
                raise

    async def _again(self, key: tuple[str, str], delay: float) -> None:
        await self._clock.sleep(delay)
        self._enqueue(key)

    def _enqueue(self, key: tuple[str, str]) -> None:
        self._due.add(key)
        self._wake.set()

    def _used(self, secret: Object) -> None:
        day = rfc3339(self._clock.now())[:10]
        meta = secret["metadata"]
        key = (meta["namespace"], meta["name"])
        if (meta.get("labels") or {}).get(LAST_USED) != day and self._last_use.get(key) != day:
            self._last_use[key] = day
            self._enqueue(key)

    def _secret_changed(self, _old: Object | None, new: Object | None) -> None:
        if new is not None and new.get("type") == TOKEN_SECRET_TYPE:
            self._enqueue((new["metadata"]["namespace"], new["metadata"]["name"]))

    def _account_changed(self, old: Object | None, new: Object | None) -> None:
        if old is not None and new is not None and old["metadata"]["uid"] == new["metadata"]["uid"]:
            return
        meta = (new or old or {})["metadata"]
        for secret in self._secrets.by_index(_INDEX, f"{meta['namespace']}/{meta['name']}"):
            self._enqueue((meta["namespace"], secret["metadata"]["name"]))


def _account_of(secret: Object) -> tuple[str, ...]:
    if secret.get("type") != TOKEN_SECRET_TYPE:
        return ()
    name = (secret["metadata"].get("annotations") or {}).get(_NAME)
    return (f"{secret['metadata']['namespace']}/{name}",) if name else ()


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()
