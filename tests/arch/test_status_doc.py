"""The table of groups in docs/STATUS.md is what the server advertises and does; verbs that do not work are found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "packaging"))

from status_probe import EXAMPLES, Broken, Probe, discover, running  # noqa: E402


def test_the_document_is_what_the_server_says() -> None:
    command = [sys.executable, "packaging/status_doc.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


async def test_a_verb_that_does_not_work_is_found() -> None:
    examples = yaml.safe_load(EXAMPLES.read_text())
    async with running() as server:
        rows = {row["resource"]: row async for group, _, row in discover(server) if not group}
        claims = {**rows["secrets"], "resource": "nonsense"}
        with pytest.raises(Broken, match="nonsense"):
            await Probe(server, examples, "", "v1", claims).run()
        more = {
            **rows["secrets"],
            "subresources": [{"subresource": "scale", "responseKind": {"kind": "Scale"}, "verbs": ["get"]}],
        }
        with pytest.raises(Broken, match="scale: 404"):
            await Probe(server, examples, "", "v1", more).run()
