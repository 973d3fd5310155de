"""From the URL of a remote to what it says.

One reason to change: how remotes are named on a command line. Nothing here opens a connection or a file.

Invariant: a URL that is taken names a backend, a destination and only options that this backend knows; whatever is
wrong is one line that never repeats a password. The name of a remote doesn't change with its options, since replicas
are recorded under it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from resumable.model import keys
from resumable.remotes.schemes import (
    BadRemote,
    Means,
    RemoteSpec,
    Scheme,
    When,
    find,
    flag,
    known,
    make,
    meant,
    shown,
)

__all__ = [
    "COMMON",
    "BadRemote",
    "Means",
    "RemoteSpec",
    "Scheme",
    "When",
    "check_names",
    "find",
    "flag",
    "known",
    "make",
    "parse",
]

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
COMMON: Mapping[str, str] = {
    "required": "`no`: an upload counts as stored, and its local copy may go, without this remote (default `yes`)",
    "name": "what the remote is called in status, logs and the catalog (default the URL without its options)",
    "key": "how objects are named: `{id}`, `{date}`, `{year}`, `{month}`, `{day}`, `{metadata[name]}` and text"
    " (default `{id}`)",
    "overwrite": "`replace`: replace what another has put under the key; `refuse`: park (default `--overwrite`)",
    "when": "`name:pattern`: only uploads whose metadata value of that name fits the pattern, as `filetype:image/*`",
}
"""Options of every remote, each with one line of help."""
_SECRETIVE = re.compile(r"secret|password|token|credential|access.?key", re.IGNORECASE)


def parse(
    url: str,
    find: Callable[[str], Scheme] = find,
    *,
    overwrite: str = "refuse",
    environ: Mapping[str, str] | None = None,
) -> RemoteSpec:
    """What the URL says; ``overwrite`` where it doesn't say. Raises BadRemote."""
    try:
        parts = urlsplit(url)
        host, secret, fragment = parts.netloc, "@" in parts.netloc, parts.fragment
    except ValueError as error:
        raise BadRemote("remote: not a URL, e.g. s3://bucket/prefix") from error
    if secret:
        raise BadRemote(f"remote {parts.scheme}://...: no credentials in the URL; they come from the environment")
    if not _SCHEME.fullmatch(parts.scheme) or "://" not in url:
        plain = url.partition("?")[0]
        named = f'remote "{shown(plain)}"' if "@" not in plain else "remote"  # it may hold a password
        raise BadRemote(f"{named}: not a URL, e.g. s3://bucket/prefix")
    plain = f"{parts.scheme}://{host}{parts.path}"
    try:
        if fragment or any(not char.isprintable() for char in unquote(plain)):
            raise BadRemote("neither fragments (#) nor control characters; write %23 for a #")
        scheme, options = find(parts.scheme), _options(parts.query)
        _check_known(scheme, options)
        options = {"overwrite": overwrite, **_from(environ or {}, scheme), **options}
        return _spec(scheme, unquote(host), unquote(parts.path), options)
    except ValueError as error:
        raise BadRemote(f"remote {shown(plain)}: {error}") from error


def check_names(specs: Iterable[RemoteSpec]) -> None:
    """Raises BadRemote for two of the same name."""
    seen: set[str] = set()
    for spec in specs:
        if spec.name in seen:
            raise BadRemote(f"remote {shown(spec.name)}: two have this name; give one of them ?name=")
        seen.add(spec.name)


def _options(query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in options:
            raise BadRemote(f'option "{shown(name)}" is given twice')
        options[name] = value
    return options


def _check_known(scheme: Scheme, options: Mapping[str, str]) -> None:
    for option in options:
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
