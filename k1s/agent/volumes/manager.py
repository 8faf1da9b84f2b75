"""A pod's volumes: made before its containers, refreshed while it runs, taken down after it.

Owns: which type prepares which volume, the sub paths of mounts. Called by: pods/start, pods/worker, pods/terminate.
Never does: know how a type works. Each type is a file beside this one.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from k1s.agent.containers.paths import PodPaths
from k1s.agent.pods.model import Object
from k1s.agent.volumes import claim, empty_dir, host_path, mounts, payload
from k1s.agent.volumes.interface import Prepare, VolumeFault, VolumeRequest

if TYPE_CHECKING:
    from k1s.agent.context import AgentContext

# The key of a volume in the spec names its type.
TYPES: dict[str, Prepare] = {
    "configMap": payload.config_map,
    "downwardAPI": payload.downward,
    "emptyDir": empty_dir.prepare,
    "ephemeral": claim.prepare,
    "hostPath": host_path.prepare,
    "persistentVolumeClaim": claim.prepare,
    "projected": payload.projected,
    "secret": payload.secret,
}
# Types whose files follow what they were made from.
LIVE = ("configMap", "downwardAPI", "projected", "secret")


def volume_type(volume: Object) -> str:
    return next((key for key in volume if key != "name"), "emptyDir")


async def prepare_all(agent: AgentContext, pod: Object, paths: PodPaths, pod_ips: tuple[str, ...] = ()) -> dict[str, Path]:
    """Volume name -> what to mount. Idempotent. Raises VolumeFault for the first that cannot be had."""
    out: dict[str, Path] = {}
    for volume in pod["spec"].get("volumes") or []:
        out[volume["name"]] = await _prepare(agent, pod, paths, volume, pod_ips)
    return out


async def refresh(agent: AgentContext, pod: Object, paths: PodPaths, pod_ips: tuple[str, ...]) -> None:
    """Bring the files of live volumes up to date. Raises VolumeFault."""
    for volume in pod["spec"].get("volumes") or []:
        if volume_type(volume) in LIVE:
            await _prepare(agent, pod, paths, volume, pod_ips)


def has_live(pod: Object) -> bool:
    return any(volume_type(v) in LIVE for v in pod["spec"].get("volumes") or [])


async def _prepare(agent: AgentContext, pod: Object, paths: PodPaths, volume: Object, pod_ips: tuple[str, ...]) -> Path:
    kind = volume_type(volume)
    prepare = TYPES.get(kind)
    if prepare is None:
        raise VolumeFault(f'MountVolume.SetUp failed for volume "{volume["name"]}" : {kind} is not supported by this node yet')
    try:
        return await prepare(VolumeRequest(agent, pod, volume, paths, pod_ips))
    except VolumeFault as error:
        raise VolumeFault(f'MountVolume.SetUp failed for volume "{volume["name"]}" : {error}') from error
    except OSError as error:
        raise VolumeFault(f'MountVolume.SetUp failed for volume "{volume["name"]}" : {error}') from error


async def tear_down(paths: PodPaths) -> None:
    """Unmount and delete everything of the pod below its directory. Idempotent."""
    await asyncio.to_thread(mounts.remove_tree, paths.root)
