"""POST serviceaccounts/<name>/token: TokenRequest.

Owns: its validation and binding. Called by: apiserver/registry. Never does: sign (authn/service_accounts).
Source: upstream pkg/registry/core/serviceaccount/storage/token.go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from k1s.api.catalog import builtin
from k1s.api.errors import ApiError, FieldError, bad_request, conflict, invalid, invalid_value, not_found
from k1s.api.schema import schema_for_kind
from k1s.base.clock import rfc3339
from k1s.base.http import Answer, Request, Response
from k1s.client.interface import InformerFactory
from k1s.server.apiserver.attributes import AdmissionRequest, RequestInfo, UserInfo
from k1s.server.apiserver.authn.service_accounts import Bound
from k1s.server.apiserver.authz.references import service_account_name
from k1s.server.apiserver.call import Call, decode_body
from k1s.server.apiserver.negotiation import body_form

if TYPE_CHECKING:
    from k1s.server.apiserver.app import ApiServer
    from k1s.server.apiserver.authn.service_accounts import ServiceAccountTokens

Object = dict[str, Any]

GROUP, VERSION, KIND = "authentication.k8s.io", "v1", "TokenRequest"
_DEFAULT_SECONDS, _LEAST, _MOST = 3600, 600, 1 << 32


class TokenHandler:
    """`handle` has the shape of every subresource handler."""

    def __init__(self, tokens: ServiceAccountTokens, informers: InformerFactory) -> None:
        self._tokens = tokens
        self._accounts = informers.informer(builtin("ServiceAccount"))
        self._informers = informers

    async def handle(self, request: Request, info: RequestInfo, user: UserInfo, server: ApiServer) -> Answer:
        call = Call(request, info, user, server)
        call.options("CreateOptions")
        obj, duplicates = decode_body(await call.body(), body_form(request))
        _check_kind(obj)
        call.typed(obj, call.resource, duplicates, schema_for_kind(GROUP, VERSION, KIND))
        _check_names(obj, info)
        account = self._accounts.get(info.name, info.namespace)
        if account is None:
            raise not_found("serviceaccounts", "", info.name)
        seconds = self._seconds(obj)
        if server.admission is not None:
            admission = AdmissionRequest(
                "CREATE", call.resource, call.subresource, info.namespace, info.name, obj, None, user, call.dry_run
            )
            await server.admission.mutate(admission)
            await server.admission.validate(admission)
            call.warnings += admission.warnings
        longest = self._tokens.longest
        if longest and seconds > longest:
            call.warnings.append(f"requested expiration of {seconds} seconds shortened to {longest} seconds")
        answer = self.issue(account, obj, dry_run=call.dry_run)
        answer["metadata"]["creationTimestamp"] = rfc3339(server.clock.now())
        return Response(201, orjson.dumps(answer), headers=call.warning_headers())

    def issue(self, account: Object, obj: Object, *, dry_run: bool = False) -> Object:
        """The request with its status filled in. Raises ApiError 400, 404, 409, 422."""
        meta, spec = account["metadata"], obj.get("spec") or {}
        seconds = self._seconds(obj)
        if self._tokens.longest:
            seconds = min(seconds, self._tokens.longest)
        bound, node = self._bound(account, spec.get("boundObjectRef"))
        audiences = spec.get("audiences") or list(self._tokens.audiences)
        token, expiry = self._tokens.issue(account, audiences=audiences, seconds=seconds, bound=bound, node=node)
        return {
            "kind": KIND,
            "apiVersion": f"{GROUP}/{VERSION}",
            "metadata": {"name": meta["name"], "namespace": meta["namespace"]},
            "spec": {**spec, "audiences": audiences, "expirationSeconds": seconds},
            "status": {"token": "" if dry_run else token, "expirationTimestamp": rfc3339(expiry)},
        }

    @staticmethod
    def _seconds(obj: Object) -> int:
        seconds = (obj.get("spec") or {}).get("expirationSeconds")
        seconds = _DEFAULT_SECONDS if seconds is None else seconds
        faults = list(_faults(seconds))
        if faults:
            raise invalid(KIND, GROUP, "", faults)
        return int(seconds)

    def _bound(self, account: Object, reference: Object | None) -> tuple[Bound | None, Bound | None]:
        """The object that the token is to be bound to, and the node that a bound pod runs on."""
        if not reference:
            return None, None
        kind, name = str(reference.get("kind") or ""), str(reference.get("name") or "")
        group, _, version = str(reference.get("apiVersion") or "").rpartition("/")
        if kind not in ("Pod", "Secret", "Node") or group:
            raise bad_request(f"cannot bind token to object of type {group}/{version}, Kind={kind}")
        resource = builtin(kind)
        namespace = "" if kind == "Node" else account["metadata"]["namespace"]
        found = self._informers.informer(resource).get(name, namespace)
        if found is None:
            raise not_found(resource.plural, "", name)
        if kind == "Pod":
            self._check_account(account, found)
        uid = found["metadata"]["uid"]
        if reference.get("uid") and reference["uid"] != uid:
            raise _other_uid(kind, name, str(reference["uid"]))
        return Bound(kind, name, uid), self._node_of(found) if kind == "Pod" else None

    def _check_account(self, account: Object, pod: Object) -> None:
        wanted = account["metadata"]["name"]
        if service_account_name(pod) != wanted:
            raise bad_request(
                f'cannot bind token for serviceaccount "{wanted}" to pod running with different serviceaccount name.'
            )

    def _node_of(self, pod: Object) -> Bound | None:
        name = (pod.get("spec") or {}).get("nodeName")
        if not name:
            return None
        node = self._informers.informer(builtin("Node")).get(name)
        # The pod may outlive its node for a while: the token then tells the name alone.
        return Bound("Node", str(name), node["metadata"]["uid"] if node is not None else "")


def _faults(seconds: Any) -> list[FieldError]:
    path = "spec.expirationSeconds"
    if seconds < _LEAST:
        return [invalid_value(path, seconds, "may not specify a duration less than 10 minutes")]
    if seconds > _MOST:
        return [invalid_value(path, seconds, "may not specify a duration larger than 2^32 seconds")]
    return []


def _check_kind(obj: Object) -> None:
    version = f"{GROUP}/{VERSION}"
    given = (obj.get("apiVersion") or version, obj.get("kind") or KIND)
    if given != (version, KIND):
        raise bad_request(f"{given[1]} in version {given[0]!r} cannot be handled as a {KIND}".replace("'", '"'))
    obj["apiVersion"], obj["kind"] = given


def _check_names(obj: Object, info: RequestInfo) -> None:
    for key, wanted in (("name", info.name), ("namespace", info.namespace)):
        given = (obj.get("metadata") or {}).get(key)
        if given and given != wanted:
            fault = invalid_value(f"metadata.{key}", given, f"must match the service account {key} if specified")
            raise invalid(KIND, GROUP, info.name, [fault])


def _other_uid(kind: str, name: str, wanted: str) -> ApiError:
    return conflict(
        kind,
        "",
        name,
        f"the UID in the bound object reference ({wanted}) does not match the UID in record. "
        "The object might have been deleted and then recreated",
    )
