"""jsonpatch.escapeKey() in CEL. Source: apiserver/pkg/cel/library/jsonpatch.go."""

from __future__ import annotations


def _escape_key(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


FUNCTIONS = (("jsonpatch.escapeKey", False, ("STRING",), _escape_key),)
