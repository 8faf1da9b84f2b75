"""`k1s agent`: a node.

Owns: its flags and what is checked before anything is touched. Called by: cli/main, and by a server for its own node.
Never does: start parts (agent/app).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from k1s.agent.config import AgentConfig
from k1s.base import log
from k1s.base.config import load
from k1s.base.pid_file import running as pid_file_running
from k1s.base.pid_file import write as write_pid_file
from k1s.cli import check_config, ranges
from k1s.cli.errors import EXIT_FAULT, UserError
from k1s.cli.runner import run_until_signal
from k1s.cli.steps import Steps

CONFIG_FILE = Path("/etc/k1s/config.yaml")


def run(words: Sequence[str]) -> int:
    """Run the node until SIGTERM or SIGINT; its containers go on."""
    config = load(
        AgentConfig, words[1:], program="k1s agent", description="Run a node of a k1s cluster.", config_file=CONFIG_FILE
    )
    log.configure(debug=config.debug)
    config = dataclasses.replace(config, node_ip=ranges.node_addresses(config.node_ip))
    if not config.fake_runtime:
        for finding in check_config.missing_for_agent():
            raise UserError(f"{finding.name}: {finding.remedy}")
    from k1s.agent import app

    pid_file = config.run_dir / "node.json"
    other = pid_file_running(pid_file)
    if other:
        raise UserError(f"an agent runs already (pid {other}) with {config.run_dir}; end it with: k1s stop")
    write_pid_file(pid_file)
    steps = Steps()
    try:
        run_until_signal(app.run(config, step=steps.done, ready=steps.ready))
    except app.StartError as error:
        raise UserError(str(error)) from error
    except Exception:
        import logging

        logging.getLogger("k1s").exception("the agent ended by a fault")
        return EXIT_FAULT
    finally:
        pid_file.unlink(missing_ok=True)
    return 0
