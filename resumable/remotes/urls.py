"""Kinds of remotes, their URLs, and how a backend is found and made. Opens no connection.

Backends of others are found by the entry point group ``resumable.remotes``: the scheme names a `Scheme`.

Invariant: a backend is imported when its scheme is used, not before. A URL that is taken names a backend, a destination
and only options that this backend knows. A message about a wrong URL is one line, without anything that might be a
secret. The name of a remote doesn't change with its options, since replicas are recorded under it.
"""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from importlib.metadata import entry_points
from random import Random
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from attrs import field, frozen

from resumable.aio.threads import IPool
from resumable.model import keys
from resumable.remotes import plan
from resumable.remotes.file.filesystem import FileSystem
from resumable.remotes.interfaces import IJournal, IRemoteStorage
from resumable.remotes.object_store import IObjectStore
from resumable.remotes.regions import BodyMemory

GROUP = "resumable.remotes"
BUILT_IN = {
    "az": "resumable.remotes.azure.scheme:SCHEME",
    "file": "resumable.remotes.file.remote:SCHEME",
    "gs": "resumable.remotes.gcs:SCHEME",
    "memory": "resumable.remotes.memory.parts:SCHEME",
    "s3": "resumable.remotes.s3.scheme:SCHEME",
}

_YES = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


class BadRemote(ValueError):
    """The URL names no remote; the message is one line for the operator."""


@frozen
class When:
    """Which uploads a remote takes: those whose metadata has ``name``, with a value that fits the shell ``pattern``."""

    name: str
    pattern: str

    def fits(self, metadata: Mapping[str, bytes]) -> bool:
        """``metadata``: decoded values by their keys."""
        value = metadata.get(self.name)
        return value is not None and fnmatchcase(value.decode("utf-8", "replace"), self.pattern)


@frozen
class RemoteSpec:
    """A remote, as its URL describes it.

    ``bucket`` is the host part, empty for schemes without. ``path`` is the absolute directory of a ``file`` URL and
    empty for others; ``prefix``: their path, without slashes around. ``options`` are those of the backend.
    ``name``: the one that replicas are recorded under: an option, or the URL without its query. ``replace``: a foreign
    object under the key is replaced, else the replica is parked. ``required``: it counts for "stored". ``when``: it
    takes these uploads only.
    """

    scheme: str
    name: str
    bucket: str = ""
    path: str = ""
    prefix: str = ""
    options: Mapping[str, str] = field(factory=dict)
    required: bool = True
    replace: bool = False
    key: str = keys.DEFAULT
    when: When | None = None

    def accepts(self, metadata: Mapping[str, bytes]) -> bool:
        """Whether an upload with this metadata gets a replica here."""
        return self.when is None or self.when.fits(metadata)

    @property
    def template(self) -> keys.KeyTemplate:
        """How keys are made, prefix included."""
        return keys.parse(self.key, self.prefix)


@frozen
class BackendServices:
    """The service's objects that a backend works with.

    ``reactor`` is a whole one. ``pool`` does blocking calls; it is not the backend's to stop. ``journal`` belongs to
    this remote. ``disk`` blocks. ``now`` is the time in seconds since the epoch. ``part_size``: bytes of a part where
    the URL says nothing else. ``timeout``: seconds of silence after which a request is given up. ``parts``: how many
    are written at once at most. ``memory``: of the bodies of all remotes together.
    """

    reactor: Any
    pool: IPool
    journal: IJournal
    disk: FileSystem
    now: Callable[[], float]
    rng: Random
    environ: Mapping[str, str] = field(factory=dict)
    part_size: int = plan.PART_SIZE
    timeout: float = 60.0
    parts: int = 16
    memory: BodyMemory = field(factory=BodyMemory)


@frozen
class Scheme:
    """A kind of remote.

    ``options`` maps each option of its URLs to one line of help. ``place``: the thing that the URL must name: "bucket"
    (``s3://bucket/prefix``), "directory" (``file:///mnt/nas``) or "nothing" (``memory://any``). ``check`` raises
    ValueError, in one line, for options whose values are wrong. ``make`` makes the backend; it may raise the same.
    ``variables`` names environment variables that options are taken from where the URL doesn't have them; the first
    that is set counts. ``make_store`` makes the same place as a spool; None: it can't be one.
    """

    name: str
    make: Callable[[RemoteSpec, BackendServices], IRemoteStorage]
    place: str = "bucket"
    options: Mapping[str, str] = field(factory=dict)
    check: Callable[[RemoteSpec], None] = lambda spec: None
    variables: Mapping[str, Sequence[str]] = field(factory=dict)
    make_store: Callable[[RemoteSpec, BackendServices], IObjectStore] | None = None


def known() -> list[str]:
    """The schemes there are, without loading them."""
    return sorted({*BUILT_IN, *(point.name for point in entry_points(group=GROUP))})


def find(name: str) -> Scheme:
    """The backend for a scheme; our own come first. Raises BadRemote."""
    try:
        if name in BUILT_IN:
            module, _, attribute = BUILT_IN[name].partition(":")
            found = getattr(importlib.import_module(module), attribute)
        else:
            points = list(entry_points(group=GROUP, name=name))
            if not points:
                raise BadRemote(f'unknown scheme "{shown(name)}"{meant(name, known())}')
            found = points[0].load()
    except (ImportError, AttributeError) as error:
        raise BadRemote(f'the backend for "{name}" cannot be loaded: {shown(str(error))}') from error
    if not isinstance(found, Scheme):
        raise BadRemote(f'the backend for "{name}" is not a resumable.remotes.urls.Scheme')
    return found


def make(spec: RemoteSpec, services: BackendServices, find: Callable[[str], Scheme] = find) -> IRemoteStorage:
    """The backend for an answer of `parse`. Raises BadRemote; may read files, so before the reactor runs."""
    try:
        return find(spec.scheme).make(spec, services)
    except ValueError as error:
        raise BadRemote(f"remote {shown(spec.name)}: {error}") from error


def make_store(spec: RemoteSpec, services: BackendServices, find: Callable[[str], Scheme] = find) -> IObjectStore:
    """The store for an answer of `parse_spool`. As `make`."""
    scheme = find(spec.scheme)
    if scheme.make_store is None:
        raise BadRemote(f"spool {shown(spec.name)}: {NO_SPOOL}")
    try:
        return scheme.make_store(spec, services)
    except ValueError as error:
        raise BadRemote(f"spool {shown(spec.name)}: {error}") from error


def flag(options: Mapping[str, str], name: str, default: bool) -> bool:
    """A yes or no among the options of a remote. Raises ValueError."""
    value = options.get(name)
    if value is None:
        return default
    if value.lower() not in _YES:
        raise ValueError(f'{name} is yes or no, not "{shown(value)}"')
    return _YES[value.lower()]


def part_size(options: Mapping[str, str], default: int, bytes_of: Callable[[str], int]) -> int:
    """Bytes of a part, as the option ``part-size`` says. Raises ValueError, as ``bytes_of`` does."""
    text = options.get("part-size")
    try:
        return bytes_of(text) if text else default
    except ValueError as error:
        raise ValueError(f"part-size is {error}") from None


def meant(name: str, names: Sequence[str]) -> str:
    """The end of a message: the name that was probably meant, or all names."""
    close = difflib.get_close_matches(name, names, 1, 0.5)
    return f'; did you mean "{close[0]}"?' if close else f"; known: {', '.join(sorted(names))}"


def shown(text: str) -> str:
    """A foreign text, fit for a line of a message."""
    return "".join(char if char.isprintable() else "?" for char in text[:200])


__all__ = [
    "COMMON",
    "BackendServices",
    "BadRemote",
    "RemoteSpec",
    "Scheme",
    "When",
    "check_names",
    "find",
    "flag",
    "known",
    "make",
    "make_store",
    "parse",
    "parse_spool",
]

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
COMMON: Mapping[str, str] = {
    "required": "`no`: an upload is stored, and its local copy may be removed, without this remote (default `yes`)",
    "name": "name of the remote in status, logs and the catalog (default the URL without its options)",
    "key": "template for the names of objects: `{id}`, `{date}`, `{year}`, `{month}`, `{day}`,"
    " `{metadata[name]}` and text (default `{id}`)",
    "overwrite": "`replace`: replace an object of somebody else that has the key; `refuse`: park the replica"
    " (default `--overwrite`)",
    "when": "`name:pattern`: only uploads whose metadata value of this name matches the pattern, as `filetype:image/*`",
}
"""Options of every remote, each with one line of help."""
NO_SPOOL = "uploads can't live there; a spool is in s3://, az:// or gs://"
NOT_OF_A_SPOOL: Mapping[str, str] = {
    "required": "every upload is there",
    "when": "every upload is there",
    "key": "objects are named by the ids of uploads",
    "overwrite": "no object of somebody else is ever replaced",
    "name": "a spool is known by its URL",
}
"""Options of every remote that a spool doesn't have, and why."""
_SECRETIVE = re.compile(r"secret|password|token|credential|access.?key", re.IGNORECASE)


def parse(
    url: str,
    find: Callable[[str], Scheme] = find,
    *,
    overwrite: str = "refuse",
    environ: Mapping[str, str] | None = None,
    what: str = "remote",
    refused: Mapping[str, str] | None = None,
) -> RemoteSpec:
    """The remote that the URL describes; ``overwrite``: the value of that option where the URL has none. Raises
    BadRemote. ``what``: it is called in messages. ``refused``: options that it doesn't have, and why."""
    try:
        parts = urlsplit(url)
        host, secret, fragment = parts.netloc, "@" in parts.netloc, parts.fragment
    except ValueError as error:
        raise BadRemote(f"{what}: not a URL, e.g. s3://bucket/prefix") from error
    if secret:
        raise BadRemote(f"{what} {parts.scheme}://...: no credentials in the URL; they come from the environment")
    if not _SCHEME.fullmatch(parts.scheme) or "://" not in url:
        plain = url.partition("?")[0]
        named = f'{what} "{shown(plain)}"' if "@" not in plain else what  # it may hold a password
        raise BadRemote(f"{named}: not a URL, e.g. s3://bucket/prefix")
    plain = f"{parts.scheme}://{host}{parts.path}"
    try:
        if fragment or any(not char.isprintable() for char in unquote(plain)):
            raise BadRemote("neither fragments (#) nor control characters; write %23 for a #")
        scheme, options = find(parts.scheme), _options(parts.query)
        _check_known(scheme, options, refused or {})
        options = {"overwrite": overwrite, **_from(environ or {}, scheme), **options}
        return _spec(scheme, unquote(host), unquote(parts.path), options)
    except ValueError as error:
        raise BadRemote(f"{what} {shown(plain)}: {error}") from error


def parse_spool(
    url: str, find: Callable[[str], Scheme] = find, *, environ: Mapping[str, str] | None = None
) -> RemoteSpec:
    """The store that holds acknowledged bytes. Raises BadRemote."""
    spec = parse(url, find, environ=environ, what="spool", refused=NOT_OF_A_SPOOL)
    if find(spec.scheme).make_store is None:
        raise BadRemote(f"spool {shown(spec.name)}: {NO_SPOOL}")
    return spec


def check_names(specs: Iterable[RemoteSpec]) -> None:
    """Raises BadRemote for two of the same name."""
    names: set[str] = set()
    for spec in specs:
        if spec.name in names:
            raise BadRemote(f"remote {shown(spec.name)}: two have this name; give one of them ?name=")
        names.add(spec.name)


def _options(query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in options:
            raise BadRemote(f'option "{shown(name)}" is given twice')
        options[name] = value
    return options


def _check_known(scheme: Scheme, options: Mapping[str, str], refused: Mapping[str, str]) -> None:
    for option in options:
        if option in refused:
            raise BadRemote(f'leave out "{option}": {refused[option]}')
        if option in scheme.options or option in COMMON:
            continue
        if _SECRETIVE.search(option):
            raise BadRemote(f'"{shown(option)}" is no option; credentials come from the environment')
        raise BadRemote(f'unknown option "{shown(option)}"{meant(option, [*scheme.options, *COMMON])}')


def _from(environ: Mapping[str, str], scheme: Scheme) -> dict[str, str]:
    """Options that variables of the environment give."""
    given = {}
    for option, variables in scheme.variables.items():
        value = next((environ[name].strip() for name in variables if environ.get(name, "").strip()), None)
        if value is not None:
            given[option] = value
    return given


def _when(text: str | None) -> When | None:
    if text is None:
        return None
    name, colon, pattern = text.partition(":")
    if not (name and colon and pattern):
        raise BadRemote(f'when is the name of a metadata value, a colon and a pattern, not "{shown(text)}"')
    return When(name, pattern)


def _spec(scheme: Scheme, host: str, path: str, options: dict[str, str]) -> RemoteSpec:
    is_directory = scheme.place == "directory"
    if scheme.place == "bucket" and not host:
        raise BadRemote(f"the bucket is missing: {scheme.name}://bucket/prefix")
    if is_directory and (host or not path.strip("/")):
        raise BadRemote(f"name a directory by its absolute path: {scheme.name}:///mnt/nas")
    overwrite = options["overwrite"]
    if overwrite not in ("refuse", "replace"):
        raise BadRemote(f'overwrite is refuse or replace, not "{shown(overwrite)}"')
    prefix = path.strip("/")
    spec = RemoteSpec(
        scheme=scheme.name,
        name=options.get("name") or f"{scheme.name}://{quote(host)}{quote('/' + prefix if prefix else '')}",
        bucket=host,
        path="/" + prefix if is_directory else "",
        prefix="" if is_directory else prefix,
        options={name: value for name, value in options.items() if name not in COMMON},
        required=flag(options, "required", True),
        replace=overwrite == "replace",
        key=options.get("key", keys.DEFAULT),
        when=_when(options.get("when")),
    )
    if not spec.name.isprintable():
        raise BadRemote("a name has no control characters")
    _ = spec.template  # raises when it isn't safe
    scheme.check(spec)
    return spec
