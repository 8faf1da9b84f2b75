"""The config.toml of k1s's own containerd.

Owns: rendering for config version 2 (containerd 1.6, 1.7) and 3 (2.x). Called by: containerd.py.
Never does: I/O. Pure, golden-tested.
"""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ContainerdSettings:
    """What differs from machine to machine."""

    root: str
    state: str
    socket: str
    cni_conf_dir: str
    cni_bin_dir: str
    pause_image: str
    snapshotter: str
    registry_config_dir: str
    # Lowering oom_score_adj needs CAP_SYS_RESOURCE; without it every sandbox would fail with a misleading message.
    restrict_oom_score_adj: bool
    runtime_binary: str = ""


def render(settings: ContainerdSettings, *, major: int) -> str:
    """The whole file for containerd `major`.x."""
    return _version_3(settings) if major >= 2 else _version_2(settings)


def _version_2(s: ContainerdSettings) -> str:
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    return _file(
        2,
        s,
        [
            (
                cri,
                {
                    "sandbox_image": s.pause_image,
                    "stream_server_address": "127.0.0.1",
                    "stream_server_port": "0",
                    "enable_selinux": False,
                    "restrict_oom_score_adj": s.restrict_oom_score_adj,
                    "enable_unprivileged_ports": True,
                    "enable_unprivileged_icmp": True,
                    "tolerate_missing_hugetlb_controller": True,
                    # Below our own state directory, so that they go away with it.
                    "netns_mounts_under_state_dir": True,
                    "max_container_log_line_size": 16384,
                },
            ),
            (f"{cri}.cni", {"bin_dir": s.cni_bin_dir, "conf_dir": s.cni_conf_dir}),
            (f"{cri}.containerd", {"snapshotter": s.snapshotter, "default_runtime_name": "runc"}),
            *_runc(cri, s),
            (f"{cri}.registry", {"config_path": s.registry_config_dir}),
        ],
    )


def _version_3(s: ContainerdSettings) -> str:
    runtime, images = "plugins.'io.containerd.cri.v1.runtime'", "plugins.'io.containerd.cri.v1.images'"
    return _file(
        3,
        s,
        [
            (
                runtime,
                {
                    "enable_selinux": False,
                    "restrict_oom_score_adj": s.restrict_oom_score_adj,
                    "enable_unprivileged_ports": True,
                    "enable_unprivileged_icmp": True,
                    "tolerate_missing_hugetlb_controller": True,
                    # Below our own state directory, so that they go away with it.
                    "netns_mounts_under_state_dir": True,
                    "max_container_log_line_size": 16384,
                },
            ),
            (f"{runtime}.cni", {"bin_dir": s.cni_bin_dir, "conf_dir": s.cni_conf_dir}),
            (f"{runtime}.containerd", {"default_runtime_name": "runc"}),
            *_runc(runtime, s),
            (images, {"snapshotter": s.snapshotter}),
            (f"{images}.pinned_images", {"sandbox": s.pause_image}),
            (f"{images}.registry", {"config_path": s.registry_config_dir}),
            ("plugins.'io.containerd.grpc.v1.cri'", {"stream_server_address": "127.0.0.1", "stream_server_port": "0"}),
        ],
    )


def _runc(plugin: str, s: ContainerdSettings) -> list[tuple[str, dict[str, object]]]:
    options: dict[str, object] = {"SystemdCgroup": False}
    if s.runtime_binary:
        options["BinaryName"] = s.runtime_binary
    table = f"{plugin}.containerd.runtimes.runc"
    return [(table, {"runtime_type": "io.containerd.runc.v2"}), (f"{table}.options", options)]


def _file(version: int, s: ContainerdSettings, tables: list[tuple[str, dict[str, object]]]) -> str:
    lines = [
        "# Written by k1s at every start of the agent; changes are lost.",
        f"version = {version}",
        f"root = {_value(s.root)}",
        f"state = {_value(s.state)}",
        # Other snapshotters probe devices and kernel modules at start, for nothing.
        f"disabled_plugins = {_value(list(_UNUSED))}",
        "",
        "[grpc]",
        f"address = {_value(s.socket)}",
    ]
    for name, values in tables:
        lines += ["", f"[{name}]", *(f"{key} = {_value(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


_UNUSED = (
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.tracing",
    "io.containerd.tracing.processor.v1.otlp",
)


def _value(value: object) -> str:
    # TOML's basic strings, booleans, numbers and arrays of strings are written as JSON's.
    return json.dumps(value)
