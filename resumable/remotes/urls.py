"""From the URL of a remote to a backend.

One reason to change: how remotes are named on a command line, and found. Nothing here opens a connection or a file.

Invariant: a URL that is taken names a backend, a destination and only options that this backend knows; whatever is
wrong is one line that never repeats a password. The name of a remote doesn't change with its options, since replicas
are recorded under it.

Backends of others are found by the entry point group ``resumable.remotes``: the scheme names a `Scheme`.
"""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from random import Random
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from attrs import field, frozen

from resumable.remotes import keys
from resumable.remotes.filesystem import FileSystem
from resumable.remotes.interfaces import IJournal, IRemoteStorage
from resumable.threads import IPool

GROUP = "resumable.remotes"
BUILT_IN = {
    "file": "resumable.remotes.file:SCHEME",
    "memory": "resumable.remotes.memory_parts:SCHEME",
    "s3": "resumable.remotes.s3:SCHEME",
}

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_YES = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
COMMON = ("required", "name", "key", "overwrite")
"""Options of every remote: ``required=yes|no``, ``name=``, ``key=`` (template), ``overwrite=refuse|replace``."""


class BadRemote(ValueError):
    """The URL names no remote; the message is one line for the operator."""


@frozen
class RemoteSpec:
    """What a remote's URL says.

    ``bucket`` is the host part, empty for schemes without. ``path`` is the absolute directory of a ``file`` URL and
    empty for others; ``prefix`` is what their path says, without slashes around. ``options`` are those of the backend.
    ``name`` is what replicas are recorded under: an option, or the URL without its query. ``replace``: a foreign
    object under the key is replaced, else the replica is parked. ``required``: it counts for "stored".
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

    @property
    def template(self) -> keys.KeyTemplate:
        """How keys are made, prefix included."""
        return keys.parse(self.key, self.prefix)


@frozen
class Means:
    """What the service gives a backend to work with.

    ``reactor`` is a whole one. ``pool`` does blocking calls; it is not the backend's to stop. ``journal`` belongs to
    this remote. ``disk`` blocks. ``now`` is the time in seconds since the epoch.
    """

    reactor: Any
    pool: IPool
    journal: IJournal
    disk: FileSystem
    now: Callable[[], float]
    rng: Random
    environ: Mapping[str, str] = field(factory=dict)


@frozen
class Scheme:
    """A kind of remote.

    ``options`` maps each option of its URLs to one line of help. ``place`` says what the URL must name: "bucket"
    (``s3://bucket/prefix``), "directory" (``file:///mnt/nas``) or "nothing" (``memory://any``). ``check`` raises
    ValueError, in one line, for options whose values are wrong. ``make`` makes the backend.
    """

    name: str
    make: Callable[[RemoteSpec, Means], IRemoteStorage]
    place: str = "bucket"
    options: Mapping[str, str] = field(factory=dict)
    check: Callable[[RemoteSpec], None] = lambda spec: None


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
                raise BadRemote(f'unknown scheme "{_shown(name)}"{_meant(name, known())}')
            found = points[0].load()
    except (ImportError, AttributeError) as error:
        raise BadRemote(f'the backend for "{name}" cannot be loaded: {_shown(str(error))}') from error
    if not isinstance(found, Scheme):
        raise BadRemote(f'the backend for "{name}" is not a resumable.remotes.urls.Scheme')
    return found


def parse(url: str, find: Callable[[str], Scheme] = find) -> RemoteSpec:
    """What the URL says. Raises BadRemote."""
    try:
        parts = urlsplit(url)
        host, secret, fragment = parts.netloc, "@" in parts.netloc, parts.fragment
    except ValueError as error:
        raise BadRemote("remote: not a URL, e.g. s3://bucket/prefix") from error
    if secret:
        raise BadRemote(f"remote {parts.scheme}://...: no credentials in the URL; they come from the environment")
    if not _SCHEME.fullmatch(parts.scheme) or "://" not in url:
        raise BadRemote(f'remote "{_shown(url.partition("?")[0])}": not a URL, e.g. s3://bucket/prefix')
    plain = f"{parts.scheme}://{host}{parts.path}"
    try:
        if fragment or any(not char.isprintable() for char in unquote(plain)):
            raise BadRemote("neither fragments (#) nor control characters; write %23 for a #")
        return _spec(find(parts.scheme), unquote(host), unquote(parts.path), _options(parts.query))
    except ValueError as error:
        raise BadRemote(f"remote {_shown(plain)}: {error}") from error


def parse_all(urls: Iterable[str], find: Callable[[str], Scheme] = find) -> Sequence[RemoteSpec]:
    """What the URLs say, in order. Raises BadRemote, also for two of the same name."""
    specs: list[RemoteSpec] = []
    for url in urls:
        spec = parse(url, find)
        if any(spec.name == other.name for other in specs):
            raise BadRemote(f'two remotes are named "{_shown(spec.name)}"; give one of them ?name=')
        specs.append(spec)
    return specs


def make(spec: RemoteSpec, means: Means, find: Callable[[str], Scheme] = find) -> IRemoteStorage:
    """The backend for what `parse` answered."""
    return find(spec.scheme).make(spec, means)


def flag(options: Mapping[str, str], name: str, default: bool) -> bool:
    """A yes or no among the options of a remote. Raises ValueError."""
    value = options.get(name)
    if value is None:
        return default
    if value.lower() not in _YES:
        raise ValueError(f'{name} is yes or no, not "{_shown(value)}"')
    return _YES[value.lower()]


def _options(query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in options:
            raise BadRemote(f'option "{_shown(name)}" is given twice')
        options[name] = value
    return options


def _spec(scheme: Scheme, host: str, path: str, options: dict[str, str]) -> RemoteSpec:
    for option in options:
        if option not in scheme.options and option not in COMMON:
            raise BadRemote(f'unknown option "{_shown(option)}"{_meant(option, [*scheme.options, *COMMON])}')
    is_directory = scheme.place == "directory"
    if scheme.place == "bucket" and not host:
        raise BadRemote(f"the bucket is missing: {scheme.name}://bucket/prefix")
    if is_directory and (host or not path.strip("/")):
        raise BadRemote(f"name a directory by its absolute path: {scheme.name}:///mnt/nas")
    overwrite = options.get("overwrite", "refuse")
    if overwrite not in ("refuse", "replace"):
        raise BadRemote(f'overwrite is refuse or replace, not "{_shown(overwrite)}"')
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
    )
    if not spec.name.isprintable():
        raise BadRemote("a name has no control characters")
    _ = spec.template  # raises when it isn't safe
    scheme.check(spec)
    return spec


def _meant(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, 1, 0.5)
    return f'; did you mean "{close[0]}"?' if close else f"; known: {', '.join(sorted(names))}"


def _shown(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:200])
