"""What an admission step is.

Owns: the Step base class and refusals shared by steps. Called by: chain and every step. Never does: admit anything itself.
"""

from __future__ import annotations

from k1s.api.errors import ApiError, forbidden
from k1s.server.apiserver.attributes import AdmissionRequest


class Step:
    """Sees the requests for `resources` ("pods", "ingresses.networking.k8s.io"; None: all) of `operations`.

    `mutate` changes `request.obj` in place, `validate` only looks; either may refuse with an ApiError.
    """

    resources: frozenset[str] | None = None
    operations: frozenset[str] = frozenset({"CREATE", "UPDATE", "DELETE", "CONNECT"})

    async def mutate(self, request: AdmissionRequest) -> None:
        """Default: nothing."""

    async def mutate_again(self, request: AdmissionRequest) -> None:
        """A webhook has changed the object since."""
        await self.mutate(request)

    async def validate(self, request: AdmissionRequest) -> None:
        """Default: nothing."""

    def mutates(self) -> bool:
        return type(self).mutate is not Step.mutate

    def validates(self) -> bool:
        return type(self).validate is not Step.validate


def refuse(request: AdmissionRequest, message: str) -> ApiError:
    """403: `pods "x" is forbidden: <message>`."""
    return forbidden(
        request.resource.plural, request.resource.group, request.name or generated_name(request) or "Unknown", message
    )


def generated_name(request: AdmissionRequest) -> str:
    """What stands for a name that is not chosen yet: generateName."""
    meta = (request.obj or {}).get("metadata") or {}
    return str(meta.get("name") or meta.get("generateName") or "")


def subresource(request: AdmissionRequest) -> str:
    return request.subresource.name if request.subresource is not None else ""
