"""Making sure that a container's image is there.

Owns: pull policies, pull backoff, the words of image events. Called by: pods/start, node/images. Never does: garbage collection.
Bounds: PARALLEL pulls at once, the same image once; one backoff entry per failing (pod, image), dropped with the pod.
Source: pkg/kubelet/images/image_manager.go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from k1s.agent.containers import references
from k1s.agent.pods.model import Object, pod_uid
from k1s.base.clock import Clock
from k1s.client.events import EventRecorder
from k1s.cri.errors import RuntimeFailure
from k1s.cri.runtime import Config, Image, RegistryAuth, Runtime

PARALLEL = 3
_INITIAL, _MAXIMUM = 10.0, 300.0
_SHOWN = 2.0  # seconds


class ImageFault(Exception):
    """The container waits with `reason`; it may be tried again at `until`."""

    def __init__(self, reason: str, message: str, until: float) -> None:
        super().__init__(message)
        self.reason, self.message, self.until = reason, message, until


class ImageManager:
    """One for the agent."""

    def __init__(self, runtime: Runtime, events: EventRecorder, clock: Clock) -> None:
        self._runtime, self._events, self._clock = runtime, events, clock
        self._slots = asyncio.Semaphore(PARALLEL)
        self._locks: dict[str, asyncio.Lock] = {}
        self._backoff: dict[tuple[str, str], tuple[float, float, str]] = {}  # (uid, image) -> (delay, until, why)
        self._appeared: list[Callable[[], None]] = []

    def on_appeared(self, handler: Callable[[], None]) -> None:
        """Called when images came in by another way than a pull: who waits for one may try again."""
        self._appeared.append(handler)

    def appeared(self) -> None:
        self._backoff.clear()
        for handler in self._appeared:
            handler()

    def forget(self, uid: str) -> None:
        for key in [k for k in self._backoff if k[0] == uid]:
            del self._backoff[key]

    async def ensure(
        self, pod: Object, container: Object, auths: Sequence[RegistryAuth], sandbox_config: Config, *, field_path: str
    ) -> Image:
        """The image, pulled if policy and absence ask for it. Raises ImageFault."""
        name = container.get("image", "")
        try:
            full = references.with_default_tag(name)
        except references.InvalidImageName as error:
            self._event(pod, "Warning", "InspectFailed", str(error), field_path)
            raise ImageFault("InvalidImageName", str(error), self._clock.now() + _MAXIMUM) from error
        policy = container.get("imagePullPolicy") or references.default_pull_policy(name)
        present = await self._inspect(pod, full, field_path)
        if present is not None and policy != "Always":
            self._event(pod, "Normal", "Pulled", f'Container image "{name}" already present on machine', field_path)
            return present
        if policy == "Never":
            message = f'Container image "{name}" is not present with pull policy of Never'
            self._event(pod, "Warning", "ErrImageNeverPull", message, field_path)
            raise ImageFault("ErrImageNeverPull", message, self._clock.now() + _INITIAL)
        self._check_backoff(pod, name, field_path)
        return await self._pull(pod, name, full, auths, sandbox_config, field_path)

    async def _inspect(self, pod: Object, full: str, field_path: str) -> Image | None:
        try:
            return await self._runtime.image_status(full)
        except RuntimeFailure as error:
            message = f'Failed to inspect image "{full}": {error}'
            self._event(pod, "Warning", "InspectFailed", message, field_path)
            raise ImageFault("ImageInspectError", message, self._clock.now() + _INITIAL) from error

    def _check_backoff(self, pod: Object, name: str, field_path: str) -> None:
        entry = self._backoff.get((pod_uid(pod), name))
        if entry is not None and entry[1] > self._clock.now():
            message = f'Back-off pulling image "{name}"'
            self._event(pod, "Normal", "BackOff", message, field_path)
            raise ImageFault("ImagePullBackOff", f"{message}: ErrImagePull: {entry[2]}", entry[1])

    async def _pull(
        self, pod: Object, name: str, full: str, auths: Sequence[RegistryAuth], sandbox_config: Config, field_path: str
    ) -> Image:
        asked = self._clock.monotonic()
        lock = self._locks.setdefault(full, asyncio.Lock())
        try:
            async with lock, self._slots:
                self._event(pod, "Normal", "Pulling", f'Pulling image "{name}"', field_path)
                started = self._clock.monotonic()
                reference = await self._try(full, auths, sandbox_config)
        except RuntimeFailure as error:
            raise self._failed(pod, name, error, field_path) from error
        finally:
            if not lock.locked():
                self._locks.pop(full, None)
        self._backoff.pop((pod_uid(pod), name), None)
        image = await self._inspect(pod, full, field_path) or Image(id=reference)
        took, waited = self._clock.monotonic() - started, self._clock.monotonic() - asked
        message = f'Successfully pulled image "{name}" in {took:.3g}s ({waited:.3g}s including waiting).'
        self._event(pod, "Normal", "Pulled", f"{message} Image size: {image.size} bytes.", field_path)
        return image

    async def _try(self, full: str, auths: Sequence[RegistryAuth], sandbox_config: Config) -> str:
        """With each credential that fits, in order; without any if there is none."""
        failure: RuntimeFailure | None = None
        candidates: list[RegistryAuth | None] = [*auths] or [None]
        for auth in candidates:
            try:
                return await self._runtime.pull_image(full, auth, sandbox_config)
            except RuntimeFailure as error:
                failure = error
        assert failure is not None
        raise failure

    def _failed(self, pod: Object, name: str, error: RuntimeFailure, field_path: str) -> ImageFault:
        key = (pod_uid(pod), name)
        delay = min(self._backoff[key][0] * 2, _MAXIMUM) if key in self._backoff else _INITIAL
        until = self._clock.now() + delay
        message = f'failed to pull and unpack image "{name}": {error}'
        self._backoff[key] = (delay, until, message)
        self._event(pod, "Warning", "Failed", f'Failed to pull image "{name}": {error}', field_path)
        # Shown for a moment; the next look finds the backoff and says so, as kubelet's next sync does.
        return ImageFault("ErrImagePull", message, min(until, self._clock.now() + _SHOWN))

    def _event(self, pod: Object, kind: str, reason: str, message: str, field_path: str) -> None:
        self._events.event(pod, kind, reason, message, field_path=field_path)
