"""What a server with given options needs of its surroundings: paths, ports, files, secrets, and time to stop.

Invariant: no value that may be a secret is in the plan, only the names of those options. Pure, but for a look at who
owns the upload directory.
"""

from __future__ import annotations

import math
import os
import pwd
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from attrs import frozen

from resumable.config import OPTIONS, Option
from resumable.config.file import CONFIG, holds_secret
from resumable.config.options import Options, Settings
from resumable.daemon.children import HOOKS_GRACE
from resumable.daemon.supervised import GRACE
from resumable.listening.endpoints import PROXIED, split_endpoint

OF_STORES: Final = ("remote", "spool", "catalog")
_PATHS: Final = ("upload-dir", "run-dir", "place-dir")
"""Directories that each kind of file places by itself."""
_FILES: Final = ("FILE", "PATH")


@frozen
class TcpPort:
    """A port for clients. ``interface``: empty for all."""

    number: int
    interface: str
    tls: bool

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        return self.interface.startswith("127.") or self.interface in ("::1", "localhost")


@frozen
class ServicePlan:
    """``values``: variables that were given as flags or variables, and their texts. ``secrets``: variables that must be
    set elsewhere. ``files``: those that options name, by flag. ``config``: the configuration file, and ``config_files``
    those that it takes values from. ``upload_dir``: None where none was given, or none is used. ``ports``: those on
    TCP; ``others``: endpoints of other kinds."""

    settings: Settings
    values: Mapping[str, str]
    secrets: tuple[str, ...]
    files: Mapping[str, Path]
    config: Path | None
    config_files: tuple[str, ...]
    upload_dir: Path | None
    place_dir: Path | None
    ports: tuple[TcpPort, ...]
    others: tuple[str, ...]

    @property
    def stop_seconds(self) -> int:
        """Time within which a server ends, whatever is under way."""
        return math.ceil(2 * self.settings.shutdown_timeout + HOOKS_GRACE + 2 * GRACE) + 5

    @property
    def file_remotes(self) -> tuple[Path, ...]:
        """Directories of remotes."""
        return tuple(Path(each.path) for each in self.settings.remotes if each.scheme == "file")

    @property
    def socket_directories(self) -> tuple[Path, ...]:
        """Directories in which sockets are bound, those for operators too."""
        bound = (*self.others, *self.settings.admin_listen)
        return tuple(Path(each.split(":")[1]).parent for each in bound if each.startswith("unix:/"))

    @property
    def uses_s3(self) -> bool:
        """Whether it needs credentials of S3."""
        return any(each is not None and each.scheme == "s3" for each in (*self.settings.remotes, self.settings.spool))

    @property
    def is_shared(self) -> bool:
        """Whether several servers may share the uploads."""
        return self.settings.catalog is not None


def plan_of(options: Options) -> ServicePlan:
    """The plan of parsed options."""
    settings = options.settings()
    values, secrets, files = {}, [], {}
    for option in OPTIONS:
        given = options.given(option)
        if given is None or option == CONFIG or option.flag in (*_PATHS, "check"):
            continue
        source, texts = given
        if option.metavar in _FILES and option.flag != "base-path":
            files[option.flag] = Path(str(option.parse(texts[0])))
        elif source.endswith(f" in {options.config.name}") and options.config.name:
            continue
        elif is_secret(option, texts):
            secrets.append(option.variable)
        else:
            values[option.variable] = (option.separator or " ").join(texts)
    config = options.given(CONFIG)
    placed = None if settings.placing.template is None else settings.placing.directory
    has_directory = settings.spool is None and options.given(_option("upload-dir")) is not None
    ports = [_tcp(each) for each in settings.listen]
    return ServicePlan(
        settings=settings,
        values=values,
        secrets=(*secrets, *sorted(options.config.variables)),
        files=files,
        config=None if config is None else Path(str(CONFIG.parse(config[1][0]))),
        config_files=tuple(sorted(options.config.files)),
        upload_dir=settings.upload_dir if has_directory else None,
        place_dir=placed if options.given(_option("place-dir")) is not None else None,
        ports=tuple(filter(None, ports)),
        others=tuple(each for each, port in zip(settings.listen, ports, strict=True) if port is None),
    )


def _option(flag: str) -> Option:
    return next(each for each in OPTIONS if each.flag == flag)


def is_secret(option: Option, texts: list[str]) -> bool:
    """Whether these texts don't belong into a file that others may read. Paths of hooks may be secrets, too."""
    if not option.secret:
        return False
    return any(holds_secret(option, text) or (option.flag not in OF_STORES and "://" in text) for text in texts)


def _tcp(endpoint: str) -> TcpPort | None:
    kind, arguments, named = split_endpoint(endpoint.removeprefix(PROXIED))
    if kind not in ("tcp", "tcp4", "tcp6", "ssl"):
        return None
    number = named.get("port") or (arguments[0] if arguments else "0")
    at = 4 if kind == "ssl" else 1
    interface = named.get("interface") or (arguments[at] if len(arguments) > at else "")
    return TcpPort(int(number), interface, kind == "ssl") if number.isdigit() else None


def owner_of_directory(path: Path) -> tuple[int, int, str] | None:
    """User, group and the user's name of a directory that isn't root's; None where there is none, or it has no name."""
    try:
        found = os.stat(path)
        return None if found.st_uid == 0 else (found.st_uid, found.st_gid, pwd.getpwuid(found.st_uid).pw_name)
    except (OSError, KeyError):
        return None


def below(path: Path, *directories: str) -> bool:
    """Whether it is in one of these, or is one of them."""
    return any(path.is_relative_to(each) for each in directories)


def paths(plan: ServicePlan) -> Iterator[Path]:
    """All that the server reads by name."""
    yield from plan.files.values()
    yield from map(Path, plan.config_files)
    if plan.config is not None:
        yield plan.config
