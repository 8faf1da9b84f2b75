"""$(VAR) in commands, arguments and values.

Owns: Kubernetes' expansion syntax. Called by: env, config, volumes/subpath. Never does: shell anything.
Source: third_party/forked/golang/expansion.
"""

from __future__ import annotations

from collections.abc import Mapping


def expand(text: str, values: Mapping[str, str]) -> str:
    """$(NAME) becomes its value; unknown names stay as they are; $$ is one $, so $$(NAME) is the literal $(NAME)."""
    out: list[str] = []
    index = 0
    while index < len(text):
        char = text[index]
        if char != "$" or index + 1 >= len(text):
            out.append(char)
            index += 1
            continue
        following = text[index + 1]
        if following == "$":
            out.append("$")
            index += 2
        elif following == "(":
            end = text.find(")", index + 2)
            if end < 0:
                out.append("$(")
                index += 2
                continue
            name = text[index + 2 : end]
            out.append(values.get(name, f"$({name})"))
            index = end + 1
        else:
            out.append("$" + following)
            index += 2
    return "".join(out)


def missing(text: str, values: Mapping[str, str]) -> list[str]:
    """Names that `expand` would leave standing."""
    probe: list[str] = []

    class _Recorder(dict[str, str]):
        def get(self, name: str, default: str = "") -> str:  # type: ignore[override]
            if name not in values:
                probe.append(name)
                return default
            return values[name]

    expand(text, _Recorder())
    return probe
