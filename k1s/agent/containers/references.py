"""Image names.

Owns: parsing, docker's short names, the default pull policy. Called by: containers/images, pods/start. Never does: I/O. Pure.
Source: distribution/reference grammar.
"""

from __future__ import annotations

import re

_DOMAIN = (
    r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*(?::[0-9]+)?"
)
_PATH = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"^(?:(?:{_DOMAIN}|\[[0-9a-fA-F:]+\](?::[0-9]+)?)/)?{_PATH}(?:/{_PATH})*$")
_TAG = re.compile(r"^[\w][\w.-]{0,127}$")
_DIGEST = re.compile(r"^[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}$")


class InvalidImageName(ValueError):
    """Not an image reference; the message is kubelet's."""


def with_default_tag(image: str) -> str:
    """`image` with `:latest` if it has neither tag nor digest. Raises InvalidImageName."""
    name, at, digest = image.partition("@")
    head, slash, last = name.rpartition("/")
    bare, colon, tag = last.partition(":")
    path = f"{head}{slash}{bare}"
    wrong = not _NAME.match(path) or (colon and not _TAG.match(tag)) or (at and not _DIGEST.match(digest)) or len(path) > 255
    if wrong:
        detail = (
            "repository name must be lowercase"
            if path != path.lower() and _NAME.match(path.lower())
            else "invalid reference format"
        )
        if detail != "invalid reference format":
            detail = f"invalid reference format: {detail}"
        raise InvalidImageName(f'Failed to apply default image tag "{image}": couldn\'t parse image name "{image}": {detail}')
    return image if colon or at else f"{image}:latest"


def registry_of(image: str) -> str:
    """The host whose credentials a pull uses."""
    head, slash, _ = image.partition("/")
    if slash and ("." in head or ":" in head or head == "localhost"):
        return head
    return "index.docker.io"


def default_pull_policy(image: str) -> str:
    """Always for `latest`, else IfNotPresent, where the pod does not say."""
    if "@" in image:
        return "IfNotPresent"
    return "Always" if with_default_tag(image).endswith(":latest") else "IfNotPresent"
