"""find() and findAll() in CEL. Source: apiserver/pkg/cel/library/regex.go."""

from __future__ import annotations

from k1s.api.regex import compiled


def _find(text: str, pattern: str) -> str:
    match = compiled(pattern).search(text)
    return str(match.group(0)) if match is not None else ""


def _find_all(text: str, pattern: str, most: int = -1) -> list[str]:
    found: list[str] = []
    for match in compiled(pattern).finditer(text):
        if len(found) == most:
            break
        found.append(match.group(0))
    return found


FUNCTIONS = (
    ("find", True, ("STRING", "STRING"), _find),
    ("findAll", True, ("STRING", "STRING"), _find_all),
    ("findAll", True, ("STRING", "STRING", "INT"), _find_all),
)
