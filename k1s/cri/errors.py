"""What a runtime refuses, as a handful of exceptions.

RuntimeFailure
 +- NotFound | AlreadyExists | InvalidArgument | Unimplemented
 +- DeadlineExceeded | Unavailable (the runtime does not answer: try again) | PullFailed

Owns: the tree and the one translation from gRPC. Called by: containerd.py, events.py, images.py, fake.py.
Never does: import grpc (the fake needs none).
"""

from __future__ import annotations


class RuntimeFailure(Exception):
    """The runtime said no; the message is the runtime's own."""


class NotFound(RuntimeFailure):
    """No such sandbox, container or image."""


class AlreadyExists(RuntimeFailure):
    """The name is taken."""


class InvalidArgument(RuntimeFailure):
    """The runtime cannot make sense of what it was asked."""


class Unimplemented(RuntimeFailure):
    """This runtime does not have that verb."""


class DeadlineExceeded(RuntimeFailure):
    """It took longer than allowed."""


class Unavailable(RuntimeFailure):
    """The runtime does not answer; it may come back."""


class PullFailed(RuntimeFailure):
    """The image could not be fetched."""


_BY_CODE: dict[str, type[RuntimeFailure]] = {
    "NOT_FOUND": NotFound,
    "ALREADY_EXISTS": AlreadyExists,
    "INVALID_ARGUMENT": InvalidArgument,
    "UNIMPLEMENTED": Unimplemented,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "UNAVAILABLE": Unavailable,
}


def from_grpc(code: str, details: str) -> RuntimeFailure:
    """The exception for a gRPC status code's name, worded as kubelet prints it."""
    kind = _BY_CODE.get(code, RuntimeFailure)
    return kind(f"rpc error: code = {_go_name(code)} desc = {details}")


def _go_name(code: str) -> str:
    return "".join(part.capitalize() for part in code.split("_"))
