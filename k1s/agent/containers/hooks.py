"""postStart and preStop.

Owns: running one lifecycle handler. Called by: pods/start, pods/terminate. Never does: decide what follows a failure.
"""

from __future__ import annotations

from typing import Any

from k1s.agent.containers.http_get import ActionFailed, http_get, tcp_connect
from k1s.base.clock import Clock
from k1s.cri.errors import RuntimeFailure
from k1s.cri.runtime import Runtime
from k1s.version import KUBERNETES_MAJOR, KUBERNETES_MINOR

Object = dict[str, Any]
_HTTP_SECONDS = 30.0
USER_AGENT = f"kube-lifecycle/{KUBERNETES_MAJOR}.{KUBERNETES_MINOR}"


class HookFailed(Exception):
    """The handler did not succeed."""


async def run(handler: Object, container: Object, container_id: str, *, host: str, runtime: Runtime, clock: Clock) -> None:
    """Run to the end. Raises HookFailed."""
    try:
        if handler.get("exec"):
            command = handler["exec"].get("command") or []
            result = await runtime.exec_sync(container_id, command, 0)
            if result.exit_code != 0:
                said = (result.stdout + result.stderr).decode(errors="replace")[:1024]
                raise HookFailed(f"command '{' '.join(command)}' exited with {result.exit_code}: {said}")
        elif handler.get("httpGet"):
            # Whatever the server answers, it has heard: kubelet does not look at a hook's status code.
            await http_get(handler["httpGet"], container, host, _HTTP_SECONDS, USER_AGENT, any_status=True)
        elif handler.get("tcpSocket"):
            await tcp_connect(handler["tcpSocket"], container, host, _HTTP_SECONDS)
        elif handler.get("sleep"):
            await clock.sleep(float(handler["sleep"].get("seconds") or 0))
    except (ActionFailed, RuntimeFailure) as error:
        raise HookFailed(str(error)) from error
