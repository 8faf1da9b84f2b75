"""What controllers, scheduler and agent use to read and write the API.

Owns: the Client and Informer protocols. Implemented by: client/rest.py (over any transport), client/informer.py (a cache fed
by a watch) and server/apiserver/watch_cache (a view of the server's own cache: no second copy).
Never does: know who implements it. Objects are plain dicts; those that come out of an Informer are read-only: clone to change.
Errors are api.errors.ApiError everywhere.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any, Protocol

from k1s.api.catalog import Resource
from k1s.api.selectors import LabelSelector

Object = dict[str, Any]

# Called with (old, new): (None, new) added, (old, new) modified, (old, None) deleted. Must be quick and must not await.
ChangeHandler = Callable[[Object | None, Object | None], None]

MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


class Client(Protocol):
    """The verbs on plain dicts. `resource` is a catalog row: builtin("Pod")."""

    async def get(self, resource: Resource, name: str, namespace: str = "") -> Object: ...

    async def list(
        self, resource: Resource, namespace: str = "", *, label_selector: str = "", field_selector: str = ""
    ) -> list[Object]: ...

    async def create(
        self, resource: Resource, obj: Object, namespace: str = "", *, subresource: str = "", name: str = "", cause: int = 0
    ) -> Object:
        """`namespace` defaults to the object's own. With `subresource` and `name`: binding, eviction, token."""

    async def pause(self, seconds: float) -> None:
        """Wait before another try: so long, or until servers that were away are back."""

    async def update(self, resource: Resource, obj: Object, *, subresource: str = "", cause: int = 0) -> Object: ...

    async def patch(
        self,
        resource: Resource,
        name: str,
        namespace: str,
        patch: Any,
        *,
        content_type: str = MERGE_PATCH,
        subresource: str = "",
        field_manager: str = "",
        force: bool = False,
        cause: int = 0,
    ) -> Object: ...

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        *,
        propagation: str = "",
        uid: str = "",
        resource_version: str = "",
        grace_period_seconds: int | None = None,
        cause: int = 0,
    ) -> Object:
        """`uid` and `resource_version` are preconditions (409 if they do not hold); `propagation` a DeletionPropagation."""

    async def delete_collection(self, resource: Resource, namespace: str = "", *, label_selector: str = "") -> None: ...

    def watch(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        resource_version: str = "",
        label_selector: str = "",
        field_selector: str = "",
        timeout_seconds: int = 0,
        initial_events: bool = False,
    ) -> AsyncGenerator[tuple[str, Object], None]:
        """(type, object) pairs: ADDED, MODIFIED, DELETED, BOOKMARK. An ERROR event raises its ApiError.

        `initial_events`: first everything that is there, as ADDED; then a BOOKMARK that says so in its annotations (KEP-3157).
        """

    async def raw(self, method: str, path: str, body: bytes = b"", content_type: str = "application/json") -> bytes:
        """Any path, for what the verbs do not cover (tokens, join, discovery). Raises ApiError on >= 400."""


class Informer(Protocol):
    """A local, current view of one resource. Reads never wait and never decode an object twice."""

    @property
    def resource(self) -> Resource: ...

    async def synced(self) -> None:
        """Return once the first full list is in."""

    def get(self, name: str, namespace: str = "") -> Object | None: ...

    def list(self, namespace: str = "", selector: LabelSelector | None = None) -> Iterable[Object]: ...

    def by_index(self, index: str, value: str) -> Iterable[Object]:
        """Objects for which the index function of that name gave `value`."""

    def add_index(self, name: str, values: Callable[[Object], Iterable[str]]) -> None:
        """Idempotent by name: the same name must mean the same function."""

    def add_handler(self, handler: ChangeHandler) -> None:
        """Called for every change from now on, and once per object that is there already, as added."""


class InformerFactory(Protocol):
    """Hands out one shared Informer per resource (and selector), made at first use."""

    def informer(self, resource: Resource, *, namespace: str = "", field_selector: str = "") -> Informer: ...
