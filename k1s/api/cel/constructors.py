"""Object{...} and JSONPatch{...}: what mutating policies write, made plain maps before the runtime sees it.

Owns: plain(), jsonpatch.escapeKey. Called by: program (for every expression; one that constructs nothing stays as it is), and
library.
Never does: check the fields of what is constructed: the object that comes out of it is checked as a whole.
"""

from __future__ import annotations

import re

from k1s.api.cel.values import unescaped

_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*)
    |(?P<string>[rRbB]{0,2}(?:\"{3}.*?\"{3}|'{3}.*?'{3}|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'))
    |(?P<type>(?:Object|JSONPatch)\b(?:\s*\.\s*[A-Za-z_]\w*)*(?=\s*\{))
    |(?P<name>[A-Za-z_]\w*)
    |(?P<number>\d[\w.]*)
    |(?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_OPEN, _CLOSE = "([{", ")]}"


def plain(expression: str) -> str:
    """The expression with constructors as maps: `Object.spec{replicas: 1}` as `{"replicas": 1}`."""
    if "Object" not in expression and "JSONPatch" not in expression:
        return expression
    out: list[str] = []
    # Of every open bracket: whether it holds the fields of a constructor.
    inside: list[bool] = []
    constructs = key = False
    previous = ""
    for match in _TOKEN.finditer(expression):
        kind, text = match.lastgroup, match.group()
        if kind == "type" and previous != ".":
            constructs = True
            continue
        if kind == "name" and key:
            text = f'"{unescaped(text)}"'
        if text in _OPEN:
            inside.append(constructs)
            constructs = False
        elif text in _CLOSE and inside:
            inside.pop()
        if kind != "space":
            # A field's name follows the bracket or a comma, maybe behind the mark of an optional one.
            begins = text in ("{", ",") or (text == "?" and key)
            key = begins and bool(inside) and inside[-1]
            previous = text
        out.append(text)
    return "".join(out)


def _escape_key(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


FUNCTIONS = (("jsonpatch.escapeKey", False, ("STRING",), "STRING", _escape_key),)
