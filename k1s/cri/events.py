"""containerd's own event stream as RuntimeEvents.

Owns: the descriptors of containerd.services.events.v1 (only the fields that are read) and the reconnecting subscription.
Called by: containerd.py. Never does: interpret an event beyond its kind.

CRI has GetContainerEvents, but containerd has it from 1.7 on only; Events.Subscribe is there in every release. The
messages stand in a descriptor pool of their own, so that they clash with nobody's generated code.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from functools import cache
from typing import Any

from k1s.base.backoff import Backoff
from k1s.cri.channel import Channel
from k1s.cri.errors import RuntimeFailure, Unavailable, Unimplemented
from k1s.cri.runtime import EventKind, RuntimeEvent

log = logging.getLogger("k1s.cri.events")

_PUBLISH = "/containerd.services.events.v1.Events/Publish"
_SUBSCRIBE = "/containerd.services.events.v1.Events/Subscribe"
# CRI keeps its containers in this namespace; anybody else's tasks are not ours.
_MARKER = "/k1s/subscribed"
_FILTERS = ('namespace==k8s.io,topic~="^/tasks/(start|exit|oom|delete)$"', f'namespace==k8s.io,topic=="{_MARKER}"')
_RECONNECT = Backoff(initial=0.1, maximum=5.0)
_MARKER_AGAIN = Backoff(initial=0.02, maximum=1.0)
_KINDS: dict[str, EventKind] = {
    "/tasks/start": "started",
    "/tasks/exit": "exited",
    "/tasks/oom": "oom",
    "/tasks/delete": "deleted",
}


async def subscribe(channel: Channel) -> AsyncIterator[RuntimeEvent]:
    """Events for ever. A `resync` comes first and after every break, because what happened meanwhile is lost."""
    messages = _messages()
    failures = 0
    while True:
        stream = channel.stream(_SUBSCRIBE, messages["SubscribeRequest"](filters=_FILTERS), messages["Envelope"])
        marker = asyncio.create_task(_publish_marker(channel, messages), name="cri-events-marker")
        live = False
        try:
            async for envelope in stream:
                if envelope.topic == _MARKER:
                    if not live:
                        live, failures = True, 0
                        marker.cancel()
                        yield RuntimeEvent("resync")
                elif live:
                    event = _decode(envelope, messages)
                    if event is not None:
                        yield event
        except Unimplemented as error:
            raise Unavailable("this runtime has no containerd event stream") from error
        except RuntimeFailure as error:
            expected = failures or channel.closed
            log.log(logging.DEBUG if expected else logging.WARNING, "event stream broke: %s", error)
        finally:
            marker.cancel()
            await stream.aclose()
        failures += 1
        await asyncio.sleep(_RECONNECT.delay(failures))


async def _publish_marker(channel: Channel, messages: dict[str, Any]) -> None:
    """Publish an event of our own until it is seen (the caller cancels): only that tells when a subscription took hold."""
    request = messages["PublishRequest"](topic=_MARKER, event={"type_url": "k1s/subscribed"})
    space = {"containerd-namespace": "k8s.io"}
    tries = 0
    while True:
        tries += 1
        try:
            await channel.call(_PUBLISH, request, messages["Empty"], timeout=10, metadata=space)
        except RuntimeFailure:
            pass  # the stream fails too, and reports it
        await asyncio.sleep(_MARKER_AGAIN.delay(tries))


def _decode(envelope: Any, messages: dict[str, Any]) -> RuntimeEvent | None:
    kind = _KINDS.get(envelope.topic)
    if kind is None:
        return None
    task = messages["TaskEvent" + ("Delete" if kind == "deleted" else "Exit")].FromString(envelope.event.value)
    if kind in ("exited", "deleted") and task.id and task.id != task.container_id:
        return None  # an exec inside the container ended
    at = envelope.timestamp.seconds + envelope.timestamp.nanos / 1e9
    return RuntimeEvent(kind, task.container_id, task.exit_status if kind in ("exited", "deleted") else 0, at)


_STRING, _UINT32, _INT64, _INT32, _BYTES, _MESSAGE = 9, 13, 3, 5, 12, 11
# message -> (field, number, type, type name). TaskStart and TaskOOM carry container_id in field 1 like TaskExit.
_FIELDS: dict[str, tuple[tuple[str, int, int, str], ...]] = {
    "Timestamp": (("seconds", 1, _INT64, ""), ("nanos", 2, _INT32, "")),
    "Any": (("type_url", 1, _STRING, ""), ("value", 2, _BYTES, "")),
    "SubscribeRequest": (("filters", 1, _STRING, "repeated"),),
    "PublishRequest": (("topic", 1, _STRING, ""), ("event", 2, _MESSAGE, "Any")),
    "Empty": (),
    "Envelope": (
        ("timestamp", 1, _MESSAGE, "Timestamp"),
        ("namespace", 2, _STRING, ""),
        ("topic", 3, _STRING, ""),
        ("event", 4, _MESSAGE, "Any"),
    ),
    "TaskEventExit": (("container_id", 1, _STRING, ""), ("id", 2, _STRING, ""), ("exit_status", 4, _UINT32, "")),
    "TaskEventDelete": (("container_id", 1, _STRING, ""), ("exit_status", 3, _UINT32, ""), ("id", 5, _STRING, "")),
}


@cache
def _messages() -> dict[str, Any]:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="k1s/containerd_events.proto", package="k1s.containerd", syntax="proto3")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field, number, kind, extra in fields:
            row = message.field.add(name=field, number=number, type=kind, label=3 if extra == "repeated" else 1)
            if kind == _MESSAGE:
                row.type_name = f".k1s.containerd.{extra}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"k1s.containerd.{name}")) for name in _FIELDS}
