"""The house rules that a linter does not know."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "k1s").rglob("*.py"))
MAX_LINES = 400
FORBIDDEN_NAMES = ("utils", "util", "helpers", "helper", "common", "misc")
# Tables of data, not code.
DATA = ("k1s/api/catalog.py",)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_file_has_one_job_and_says_which(path: Path) -> None:
    text = path.read_text()
    assert path.stem not in FORBIDDEN_NAMES
    assert name_of(path) in DATA or len(text.splitlines()) <= MAX_LINES
    tree = ast.parse(text)
    docstring = ast.get_docstring(tree)
    assert docstring, "a module opens with a docstring"
    if path.name == "__init__.py":
        assert len(tree.body) == 1, "import the module, not the package"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_error_is_swallowed(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"bare except in line {node.lineno}"


def test_the_cli_starts_without_heavy_imports() -> None:
    heavy = ["aiohttp", "grpc", "grpclib", "sqlalchemy", "cryptography", "yaml", "orjson", "asyncio"]
    code = f"import sys, k1s.cli.main as m; m.main(['k1s', '--help']); print([n for n in sys.modules if n in {heavy!r}])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.splitlines()[-1] == "[]"


def test_every_flag_is_documented() -> None:
    text = (ROOT / "docs" / "flags.md").read_text()
    for file in ("k1s/server/config.py", "k1s/agent/config.py"):
        for flag in re.findall(r'option\(\s*"([a-z0-9-]+)"', (ROOT / file).read_text()):
            assert f"`--{flag}`" in text, f"docs/flags.md does not name --{flag}"


def test_the_changelog_names_this_version() -> None:
    from k1s.version import K1S_VERSION

    assert f"## {K1S_VERSION}" in (ROOT / "CHANGELOG.md").read_text()
    assert f'version = "{K1S_VERSION}"' in (ROOT / "pyproject.toml").read_text()
