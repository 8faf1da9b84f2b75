"""Flags and YAML into one frozen dataclass.

Owns: `option` (declares a flag on a dataclass field) and `load` (command line over environment over config file over defaults).
Called by: cli/server, cli/agent. Never does: decide what an option means.

A config file is YAML; each key is a flag's name without dashes in front (as k3s does); `<file>.d/*.yaml` follow in
alphabetical order, later wins. A list may be a YAML list or a comma-separated string.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class ConfigError(Exception):
    """A flag or key that cannot be used; the message is one line that says what to do."""


def option(
    flag: str,
    default: Any,
    text: str,
    *,
    env: str = "",
    short: str = "",
    alias: str = "",
    metavar: str = "",
    secret: bool = False,
) -> Any:
    """A dataclass field that is also the flag `--<flag>` and the config key `<flag>`; `alias` is another name for both."""
    metadata = {"flag": flag, "help": text, "env": env, "short": short, "alias": alias, "metavar": metavar, "secret": secret}
    if isinstance(default, list):
        raise TypeError("use a tuple: configs are frozen")
    return dataclasses.field(default=default, metadata=metadata)


def load(
    kind: type[T],
    argv: Sequence[str],
    *,
    program: str,
    description: str,
    config_file: Path,
    environ: Mapping[str, str] = os.environ,
) -> T:
    """Build `kind` from the command line, the environment and the config file. Raises ConfigError.

    `--config` names another file; the default one may be absent, a named one may not.
    """
    config: T = load_all((kind,), argv, program=program, description=description, config_file=config_file, environ=environ)[0]
    return config


def load_all(
    kinds: Sequence[type[Any]],
    argv: Sequence[str],
    *,
    program: str,
    description: str,
    config_file: Path,
    environ: Mapping[str, str] = os.environ,
) -> list[Any]:
    """The same for several dataclasses whose flags are taken together; a flag that two of them have sets both."""
    fields = _fields(kinds)
    given = vars(_parser(fields, program, description, config_file).parse_args(argv))
    named = given.pop("config", None)
    values = _read_files(fields, Path(named) if named else config_file, must_exist=named is not None)
    for flag, (wanted, field) in fields.items():
        env = field.metadata.get("env")
        if env and environ.get(env):
            values[flag] = _convert(flag, wanted, environ[env], f"${env}")
    for flag, value in given.items():
        values[flag] = _convert(flag, fields[flag][0], value, "the command line")
    return [
        kind(**{field.name: values[flag] for field in _own(kind) if (flag := field.metadata["flag"]) in values}) for kind in kinds
    ]


def as_flags(config: Any) -> list[str]:
    """The command-line flags that give this config again; secrets are left out, they do not belong into an argv."""
    out: list[str] = []
    for field in _own(type(config)):
        value = getattr(config, field.name)
        if value != field.default and not field.metadata["secret"]:
            text = _show(value) if not isinstance(value, bool) else str(value).lower()
            out.append(f"--{field.metadata['flag']}={text}")
    return out


_Fields = dict[str, tuple[Any, "dataclasses.Field[Any]"]]


def _own(kind: type[Any]) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(kind) if "flag" in field.metadata]


def _fields(kinds: Sequence[type[Any]]) -> _Fields:
    """Flag -> (type, field), in order; of a flag that stands twice the first counts."""
    out: _Fields = {}
    for kind in kinds:
        hints = typing.get_type_hints(kind)
        for field in _own(kind):
            out.setdefault(field.metadata["flag"], (hints[field.name], field))
    return out


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> typing.NoReturn:
        raise ConfigError(f"{message} (see '{self.prog} --help')")


def _parser(fields: _Fields, program: str, description: str, config_file: Path) -> argparse.ArgumentParser:
    parser = _Parser(prog=program, description=description, argument_default=argparse.SUPPRESS, allow_abbrev=False)
    parser.add_argument("--config", "-c", metavar="FILE", help=f"config file, each key a flag (default {config_file})")
    for flag, (wanted, field) in fields.items():
        meta = field.metadata
        names = [f"--{name}" for name in (flag, meta["alias"]) if name] + [f"-{meta['short']}" for _ in meta["short"]]
        shown = "" if field.default in ("", (), None, False) or meta["secret"] else f" (default {_show(field.default)})"
        env = f" [${meta['env']}]" if meta["env"] else ""
        text = (meta["help"] + shown + env).replace("%", "%%")
        action = "append" if _is_list(wanted) else "store"
        if wanted is bool:
            parser.add_argument(*names, dest=flag, nargs="?", const="true", metavar="BOOL", help=text)
        else:
            parser.add_argument(*names, dest=flag, action=action, metavar=meta["metavar"] or "VALUE", help=text)
    return parser


def _show(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _read_files(fields: _Fields, path: Path, *, must_exist: bool) -> dict[str, Any]:
    files = [path] if path.exists() else []
    if must_exist and not files:
        raise ConfigError(f"config file {path} does not exist")
    directory = path.with_name(path.name + ".d")
    if directory.is_dir():
        files += sorted(directory.glob("*.yaml"))
    values: dict[str, Any] = {}
    aliases = {alias: flag for flag, (_, field) in fields.items() if (alias := field.metadata["alias"])}
    for file in files:
        for written, value in _read_yaml(file).items():
            key = aliases.get(written, written)
            if key not in fields:
                raise ConfigError(f"{file}: unknown key {key!r} (each key is a flag of '--help')")
            values[key] = _convert(key, fields[key][0], value, str(file))
    return values


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {' '.join(str(error).split())}") from error
    if not text:  # /dev/null, of the agent beside a server: a megabyte saved
        return {}
    import yaml

    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: cannot be read: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: must be a YAML mapping of flags to values")
    return content


def _is_list(wanted: Any) -> bool:
    origin: Any = typing.get_origin(wanted)
    return origin is tuple


_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


def _convert(flag: str, wanted: Any, value: Any, source: str) -> Any:
    """A value in its field's type; ConfigError names the flag and where the value came from."""
    fault = ConfigError(f"--{flag}: {value!r} (from {source}) is not {_TYPE_NAMES.get(wanted, 'a valid value')}")
    if _is_list(wanted):
        items = value if isinstance(value, list) else [value]
        return tuple(part.strip() for item in items for part in str(item).split(",") if part.strip())
    if isinstance(value, list | dict):
        raise fault
    if wanted is bool:
        text = str(value).lower()
        if text not in _TRUE + _FALSE:
            raise fault
        return text in _TRUE
    if wanted is int:
        try:
            return int(str(value))
        except ValueError as error:
            raise fault from error
    if wanted is Path:
        return Path(str(value))
    return str(value)


_TYPE_NAMES = {bool: "true or false", int: "a whole number"}
