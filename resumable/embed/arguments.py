"""The settings of an embedded server, from keyword arguments with the names of the flags.

Invariants: an argument means what the flag of that name means, and is checked as it is; the process's environment sets
nothing, as its variables may be meant for another server. No port is opened that wasn't asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, Final

from attrs import evolve
from twisted.python import usage

from resumable.config import BY_FLAG
from resumable.config.option import PREFIX, Option, did_you_mean, mentioned_variables, nearest_name
from resumable.config.options import Options, Settings
from resumable.masking import masked
from resumable.model.errors import StartupError

_PORTS: Final = {"port", "listen", "host"}
_NOT_HERE: Final[Mapping[str, str]] = {
    "check": "it tests remotes and ends: call `twistd resumable --check`",
    "workers": "they are processes of their own: run `twistd resumable`, or several of your programs",
    "log_format": "your program says where and how it logs",
    "log_level": "your program says where and how it logs",
}


def settings_of(given: Mapping[str, Any]) -> Settings:
    """The settings for these arguments. Raises StartupError, in the words of the command line."""
    arguments = [each for name, value in given.items() for each in _flags(name, value)]
    if "admin_listen" not in given:
        arguments.append("--admin-listen=none")
    if "page" not in given:
        arguments.append("--page=off")
    options = Options(_environment(given))
    try:
        options.parseOptions(arguments)
    except usage.UsageError as problem:
        raise StartupError(masked(str(problem))) from None
    except SystemExit as problem:
        raise StartupError(str(problem.code).removeprefix("resumable: ")) from None
    settings = options.settings()
    if _PORTS & given.keys():
        return settings
    for name in ("tls_cert", "tls_key"):
        if given.get(name) is not None:
            raise StartupError(f"{name} is for port or listen; your own ports have certificates of their own")
    return evolve(settings, listen=())


def _flags(name: str, value: Any) -> Iterator[str]:
    """The argument as the command line has it. Raises StartupError."""
    option = BY_FLAG.get(name.replace("_", "-"))
    if option is None or "-" in name:
        meant = nearest_name(name, (flag.replace("-", "_") for flag in BY_FLAG))
        raise StartupError(f"there is no option {name}{did_you_mean(meant)}")
    if name in _NOT_HERE and not (name == "workers" and value in (1, "1")):
        raise StartupError(f"{name} has no meaning within another program: {_NOT_HERE[name]}")
    if value is None or (option.is_switch and value is False):
        return
    if option.is_switch:
        if value is not True:
            raise StartupError(f"{name}={value!r}: expected True or False")
        yield f"--{option.flag}"
        return
    several = isinstance(value, (list, tuple))
    if several and not option.separator:
        raise StartupError(f"{name}: expected one value, not several")
    for each in value if several else [value]:
        yield f"--{option.flag}={_text(name, option, each)}"


def _text(name: str, option: Option, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float, os.PathLike)):
        shown = "" if option.secret else f"={value!r}"
        raise StartupError(f"{name}{shown}: expected text, a number or a path")
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


def _environment(given: Mapping[str, Any]) -> dict[str, str]:
    """Credentials of stores and what a remote's URL names, without the variables that would set an option."""
    urls = [url for name in ("remote", "spool") for url in _listed(given.get(name))]
    named = mentioned_variables(urls)
    return {
        name: value
        for name, value in os.environ.items()
        if name in named or not (name.startswith(PREFIX) or name == "AWS_S3_BUCKET")
    }


def _listed(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, (list, tuple)) else [str(value or "")]
