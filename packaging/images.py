"""Builds small container images as OCI tars, with nothing but the standard library.

Owns: the tar layout that containerd's import takes. Called by: packaging/prepare.sh (pause, busybox), tests.
Never does: pull, push, run. Format: OCI image layout 1.0; the name is in index.json's io.containerd.image.name.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}


def build(
    target: Path,
    name: str,
    files: Mapping[str, bytes],
    *,
    links: Mapping[str, str] | None = None,
    directories: Sequence[str] = (),
    config: Mapping[str, object] | None = None,
) -> None:
    """Write an image of one layer. `files` are executable; `links` are symbolic; paths have no leading slash."""
    layer = _layer(files, links or {}, directories)
    compressed = gzip.compress(layer, 6, mtime=0)
    blobs: dict[str, bytes] = {}

    def blob(data: bytes, media_type: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    image_config = {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], **(config or {})},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
        "history": [{"created_by": "k1s packaging/images.py"}],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(_json(image_config), "application/vnd.oci.image.config.v1+json"),
        "layers": [blob(compressed, "application/vnd.oci.image.layer.v1.tar+gzip")],
    }
    described = blob(_json(manifest), "application/vnd.oci.image.manifest.v1+json")
    described["annotations"] = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [described]}
    partial = target.with_name(target.name + ".partial")
    with tarfile.open(partial, "w") as tar:
        _add(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _add(tar, "index.json", _json(index))
        for digest, data in blobs.items():
            _add(tar, f"blobs/sha256/{digest}", data)
    # Renamed when whole: whoever watches the directory never sees half an image.
    partial.rename(target)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def _add(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    tar.addfile(info, io.BytesIO(data))


def _layer(files: Mapping[str, bytes], links: Mapping[str, str], directories: Sequence[str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in directories:
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(info)
        for name, data in files.items():
            _add(tar, name, data, 0o755)
        for name, link in links.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, link
            tar.addfile(info)
    return out.getvalue()


def build_pause(target: Path, binary: Path) -> None:
    build(target, "k1s.io/pause:1", {"pause": binary.read_bytes()}, config={"Entrypoint": ["/pause"]})


def build_busybox(target: Path, binary: Path, name: str) -> None:
    """Debian's static busybox with all its applets, for machines that reach no registry."""
    import subprocess

    applets = subprocess.run([binary, "--list"], check=True, capture_output=True, text=True).stdout.split()
    build(
        target,
        name,
        {
            "bin/busybox": binary.read_bytes(),
            "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n",
            "etc/group": b"root:x:0:\nnogroup:x:65534:\n",
        },
        links={f"bin/{applet}": "busybox" for applet in applets if applet != "busybox"},
        directories=("bin", "etc", "root", "home", "tmp", "var", "usr", "usr/bin", "usr/sbin", "sbin", "dev", "proc", "sys"),
        config={"Cmd": ["sh"]},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("kind", choices=("pause", "busybox"))
    parser.add_argument("binary", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--name", default="docker.io/library/busybox:1.36")
    arguments = parser.parse_args()
    arguments.target.parent.mkdir(parents=True, exist_ok=True)
    if arguments.kind == "pause":
        build_pause(arguments.target, arguments.binary)
    else:
        build_busybox(arguments.target, arguments.binary, arguments.name)


if __name__ == "__main__":
    main()
