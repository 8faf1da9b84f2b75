"""The rows that need a node: one pod to Ready, a Deployment up and gone.

Owns: the objects it makes and takes away. Called by: __main__. Never does: poll; it watches, and times what the watch tells.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from bench.figures import median
from bench.plane import NAMESPACE
from bench.target import Api, Object

PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
DEPLOYMENTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
REPLICAS = 20
LIMIT_SECONDS = 120.0


class TooSlow(Exception):
    """What was waited for did not come within LIMIT_SECONDS."""


def ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _spec(image: str) -> Object:
    container: Object = {"name": "main", "image": image, "imagePullPolicy": "IfNotPresent"}
    if "busybox" in image:
        # The signal must end it at once, or the grace period would be measured.
        container["command"] = ["sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"]
    return {"containers": [container], "terminationGracePeriodSeconds": 5}


def _until(events: Iterator[Object], began: float, what: str) -> Iterator[Object]:
    for event in events:
        if time.monotonic() - began > LIMIT_SECONDS:
            break
        yield event
    raise TooSlow(f"{what}: not within {LIMIT_SECONDS:.0f} s")


def pod(api: Api, image: str, times: int = 10) -> tuple[float, str]:
    """Median seconds from the POST to the watch event that says Ready; each pod is gone before the next is made."""
    seconds = []
    # The namespace's controllers must have made the default service account.
    _service_account(api)
    for number in range(times + 1):
        name = f"one-{number}"
        body: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": _spec(image)}
        with api.watch(f"{PODS}?fieldSelector=metadata.name%3D{name}") as events:
            began = time.monotonic()
            api.call("POST", PODS, body)
            stream = _until(events, began, f"pod {name}")
            for event in stream:
                if event["type"] in ("ADDED", "MODIFIED") and ready(event["object"]):
                    break
            seconds.append(time.monotonic() - began)
            api.call("DELETE", f"{PODS}/{name}")
            for event in stream:
                if event["type"] == "DELETED":
                    break
    # The first one warms caches: runc and the image's layers.
    kept = seconds[1:]
    return median(kept), f"{len(kept)} pods, {min(kept):.2f} to {max(kept):.2f} s, the first one {seconds[0]:.2f} s"


def _service_account(api: Api) -> None:
    with api.watch(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts") as events:
        for event in _until(events, time.monotonic(), "the default service account"):
            if event["object"]["metadata"]["name"] == "default":
                return


def deployment(api: Api, image: str) -> tuple[float, float, str]:
    """Seconds until all replicas are Ready, and from the DELETE until no pod is left."""
    labels = {"bench": "deployment"}
    body: Object = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "many"},
        "spec": {
            "replicas": REPLICAS,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": _spec(image)},
        },
    }
    _service_account(api)
    up: set[str] = set()
    there: set[str] = set()
    with api.watch(f"{PODS}?labelSelector=bench%3Ddeployment", seconds=300) as events:
        began = time.monotonic()
        api.call("POST", DEPLOYMENTS, body)
        for event in _until(events, began, f"{len(up)} of {REPLICAS} Ready"):
            _note(event, there, up)
            if len(up) == REPLICAS:
                break
        all_up = time.monotonic() - began
        began = time.monotonic()
        api.call("DELETE", f"{DEPLOYMENTS}/many?propagationPolicy=Background")
        for event in _until(events, began, f"{len(there)} of {REPLICAS} left"):
            _note(event, there, up)
            if not there:
                break
        all_gone = time.monotonic() - began
    return all_up, all_gone, f"{REPLICAS / all_up:.1f} pods/s up, {REPLICAS / all_gone:.1f} pods/s down"


def _note(event: Object, there: set[str], up: set[str]) -> None:
    name = event["object"]["metadata"]["name"]
    if event["type"] == "DELETED":
        there.discard(name)
        up.discard(name)
        return
    there.add(name)
    if ready(event["object"]):
        up.add(name)
    else:
        up.discard(name)
