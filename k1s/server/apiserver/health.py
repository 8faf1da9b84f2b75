"""/healthz, /livez and /readyz: named checks, one line each.

Owns: Health. Called by: non_resource; parts add checks through ApiServer.add_check. Never does: say why a check failed to whoever
asks (upstream withholds it; the log has it). Source: apiserver/pkg/server/healthz.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from k1s.base.http import Request, Response
from k1s.server.apiserver.answers import page_not_found

log = logging.getLogger("k1s.apiserver.health")

ROOTS = ("/healthz", "/livez", "/readyz")
_TEXT = "text/plain; charset=utf-8"
_NOSNIFF = ("X-Content-Type-Options", "nosniff")

# None, or what is wrong.
Check = Callable[[], str | None]


class Health:
    """`checks` are asked for all three; `ready` only for /readyz."""

    def __init__(self, loaded: Callable[[], bool]) -> None:
        def store() -> str | None:
            return None if loaded() else "the first list of the store is not in yet"

        self.checks: dict[str, Check] = {"ping": _fine, "log": _fine, "etcd": store}
        self.ready: dict[str, Check] = {"etcd-readiness": store, "informer-sync": store}
        self.stopping = False
        self._told: dict[str, str] = {}

    def answer(self, request: Request, root: str, one: str) -> Response:
        """The answer for `root`, or for the check `one` of it. Raises PlainError 404."""
        checks = {**self.checks, **self.ready, "shutdown": self._shutdown} if root == "/readyz" else self.checks
        kind = root.strip("/")
        if one:
            if one not in checks:
                raise page_not_found()
            wrong = self._ask(one, checks[one])
            if wrong is None:
                return _answer(200, "ok")
            return _answer(500, f"internal server error: {wrong}\n")
        left_out = set(request.params("exclude"))
        lines, failed = [], False
        for name, check in checks.items():
            if name in left_out:
                left_out.discard(name)
                lines.append(f"[+]{name} excluded: ok")
                continue
            wrong = self._ask(name, check)
            failed = failed or wrong is not None
            lines.append(f"[+]{name} ok" if wrong is None else f"[-]{name} failed: reason withheld")
        if left_out:
            names = ", ".join(f'"{name}"' for name in sorted(left_out))
            lines.append(f"warn: some health checks cannot be excluded: no matches for {names}")
        if failed:
            return _answer(500, "\n".join([*lines, f"{kind} check failed"]) + "\n")
        if any(key == "verbose" for key, _ in request.query):
            return _answer(200, "\n".join([*lines, f"{kind} check passed"]) + "\n")
        return _answer(200, "ok")

    def _ask(self, name: str, check: Check) -> str | None:
        wrong = check()
        # Once per fault, however often somebody asks.
        if wrong is not None and self._told.get(name) != wrong:
            log.warning("health check %s failed: %s", name, wrong)
        if wrong is None:
            self._told.pop(name, None)
        else:
            self._told[name] = wrong
        return wrong

    def _shutdown(self) -> str | None:
        return "process is shutting down" if self.stopping else None


class Steps:
    """Checks that hold once a step of the start is done: poststarthook/NAME."""

    def __init__(self, add: Callable[[str, Check], None], *names: str) -> None:
        self._done: set[str] = set()
        for name in names:
            add(f"poststarthook/{name}", self._check(name))

    def done(self, *names: str) -> None:
        self._done.update(names)

    def _check(self, name: str) -> Check:
        return lambda: None if name in self._done else "not finished"


def _fine() -> str | None:
    return None


def _answer(status: int, text: str) -> Response:
    return Response(status, text.encode(), _TEXT, [_NOSNIFF])
