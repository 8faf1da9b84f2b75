"""Writes docs/flags.md from the options themselves, so that it is true.

Called by: `make fix`. `--check` only compares (make check). Never does: document what an option does not say of itself.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

from k1s.agent.config import AgentConfig
from k1s.server.config import ServerConfig

TARGET = Path(__file__).resolve().parents[1] / "docs" / "flags.md"
HEAD = """# Flags

Made from the code by `make fix`; do not edit. Each flag is also a key of `/etc/k1s/config.yaml` (without the dashes);
`/etc/k1s/config.yaml.d/*.yaml` are read after it, in alphabetical order. Order of precedence: flag, environment, file, default.
`k1s server` takes the agent's flags too and hands them to the agent it runs.
"""


def table(title: str, config: type[Any]) -> str:
    lines = [f"\n## {title}\n", "| flag | default | environment | meaning |", "| --- | --- | --- | --- |"]
    for field in dataclasses.fields(config):
        meta = field.metadata
        if "flag" not in meta:
            continue
        short = f", `-{meta['short']}`" if meta["short"] else ""
        short = (f", `--{meta['alias']}`" if meta["alias"] else "") + short
        default = ",".join(field.default) if isinstance(field.default, tuple) else str(field.default)
        env = f"`{meta['env']}`" if meta["env"] else ""
        lines.append(f"| `--{meta['flag']}`{short} | {f'`{default}`' if default else ''} | {env} | {meta['help']} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    text = HEAD + table("k1s server", ServerConfig) + table("k1s agent", AgentConfig)
    if "--check" in sys.argv:
        if TARGET.read_text() != text:
            print("docs/flags.md is not what the code says: run 'make fix'", file=sys.stderr)
            return 1
        return 0
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
