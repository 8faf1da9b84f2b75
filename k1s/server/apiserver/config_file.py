"""Configuration files of the API server: objects of apiserver.config.k8s.io, read strictly, and read again when they change.

Owns: load_object (kind, version, unknown fields), WatchedFile. Called by: authn/configuration, authz/configuration.
Never does: know what a field means; poll: a file is looked at when somebody needs it, at most once a second.
Bound: a file of MAX_BYTES.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from k1s.api.errors import FieldError
from k1s.base.clock import Clock

log = logging.getLogger("k1s.apiserver.config")

Object = dict[str, Any]
T = TypeVar("T")
# Field -> what may stand in it: a table of fields, the same in a list, or None (any value).
Fields = Mapping[str, Any]

MAX_BYTES = 1024 * 1024
_LOOK_SECONDS = 1.0


class ConfigFileError(ValueError):
    """A file that cannot be used; the message names it and says all that is wrong, with the paths of fields."""


def load_object(path: Path, kind: str, versions: Iterable[str], fields: Fields) -> Object:
    """The object in a YAML or JSON file, of one of `versions` of its group, without unknown fields. Raises ConfigFileError."""
    import yaml

    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigFileError(f"{path}: larger than {MAX_BYTES} bytes")
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigFileError(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigFileError(f"{path}: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigFileError(f"{path}: not an object")
    known = [f"apiserver.config.k8s.io/{version}" for version in versions]
    if content.get("kind") != kind or content.get("apiVersion") not in known:
        shown = f"{content.get('apiVersion')}, Kind={content.get('kind')}"
        raise ConfigFileError(f"{path}: expected a {kind} of {' or '.join(known)}, got {shown}")
    faults = list(_unknown(content, {"kind": None, "apiVersion": None, **fields}, ""))
    if faults:
        raise ConfigFileError(f"{path}: strict decoding error: {', '.join(faults)}")
    return content


def check(path: Path, faults: list[FieldError]) -> None:
    """Raises ConfigFileError with all faults, worded as upstream's aggregate."""
    if not faults:
        return
    texts = [str(fault) for fault in faults]
    raise ConfigFileError(f"{path}: {texts[0] if len(texts) == 1 else '[' + ', '.join(texts) + ']'}")


def _unknown(value: Any, fields: Fields, at: str) -> Iterable[str]:
    if not isinstance(value, dict):
        yield f'"{at}" must be an object'
        return
    for key, item in value.items():
        where = f"{at}.{key}" if at else str(key)
        if key not in fields:
            yield f'unknown field "{where}"'
            continue
        inner = fields[key]
        if inner is None or item is None:
            continue
        if isinstance(inner, list):
            if not isinstance(item, list):
                yield f'"{where}" must be a list'
                continue
            for index, element in enumerate(item):
                yield from _unknown(element, inner[0], f"{where}[{index}]")
        else:
            yield from _unknown(item, inner, where)


class WatchedFile(Generic[T]):
    """What `parse` makes of a file, made anew when the file has changed. What is wrong then is logged; the old value holds.

    The first reading raises what `parse` raises: a server does not start with a configuration that it cannot use.
    """

    def __init__(self, path: Path, parse: Callable[[Path], T], clock: Clock) -> None:
        self._path, self._parse, self._clock = path, parse, clock
        self._stamp = self._look()
        self._value = parse(path)
        self._due = clock.monotonic() + _LOOK_SECONDS
        self.changed: Callable[[T], None] = lambda value: None

    def value(self) -> T:
        now = self._clock.monotonic()
        if now >= self._due:
            self._due = now + _LOOK_SECONDS
            stamp = self._look()
            if stamp is not None and stamp != self._stamp:
                self._stamp = stamp
                self._reload()
        return self._value

    def _reload(self) -> None:
        try:
            self._value = self._parse(self._path)
        except ConfigFileError as error:
            log.error("%s: what was read before holds", error)
            return
        log.info("%s: read again", self._path)
        self.changed(self._value)

    def _look(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
