"""What a start tells people: where uploads are taken, where they go, who may send them, where operators look.

Invariant: no secret is told: a remote by its name, a database without its password. `rows` is the one list of what is
told; another fact is another function there. Pure, but for `own_address`.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Final

from attrs import frozen

from resumable import __version__
from resumable.config.options import Settings, has_page
from resumable.listening.listeners import OpenPort
from resumable.masking import masked, server_of
from resumable.networks import LOOPBACK, belongs

Row = tuple[str, str]
"""A label, empty in further lines of the one before, and a line of text."""
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}
_WARNING: Final = (
    "anybody who can reach {places} may upload and download, because there is no access rule: listen with"
    " --host 127.0.0.1, or set one of the flags of docs/access.md"
)


@frozen
class Started:
    """What has started. ``ports``: for clients; ``admin``: for operators. Bound ones only."""

    settings: Settings
    ports: Sequence[OpenPort]
    admin: Sequence[OpenPort]


def block(found: Sequence[Row]) -> str:
    """The rows below each other, aligned, under a line that names the program; ends with an empty line."""
    width = max(len(label) for label, _ in found) + 2
    lines = [f"  {label:<{width}}{text}".rstrip() for label, text in found]
    return "\n".join([f"resumable {__version__}", "", *lines, "", ""])


def rows(started: Started, address: Callable[[str], str | None]) -> list[Row]:
    """All that is told of a server. ``address``: see `own_address`."""
    settings, found = started.settings, urls(started, address)
    return [
        *_labelled("uploads", found),
        *_labelled("page", [url for url in found[:1] if "://" in url and has_page(settings)]),
        *_labelled("send", [f"resumable put FILE {url}" for url in found[:1] if "://" in url]),
        *_places(settings),
        ("access", f"{who_may(started)} may upload"),
        *_operators(started, found),
    ]


def _labelled(label: str, texts: Sequence[str]) -> Iterator[Row]:
    yield from zip([label, *[""] * len(texts)], texts, strict=False)


def urls(started: Started, address: Callable[[str], str | None]) -> list[str]:
    """Where clients send uploads. ``address``: see `own_address`."""
    settings = started.settings
    found = [] if settings.public_url is None else [settings.public_url]
    for each in started.ports:
        for place in _reached(each, address):
            scheme = "https" if each.tls else "http"
            url = f"{scheme}://{place}{settings.base_path}" if each.host is not None else place
            found.append(f"{url} (with the PROXY protocol)" if each.proxied else url)
    return list(dict.fromkeys(found))


def _reached(port: OpenPort, address: Callable[[str], str | None]) -> list[str]:
    """Host and port as they stand in URLs; for a port of every interface, this machine's own address too."""
    if port.host not in _EVERYWHERE:
        return [port.place]
    number, own = port.place.rpartition(":")[2], address(port.host)
    hosts = [_EVERYWHERE[port.host], *([] if own is None else [f"[{own}]" if ":" in own else own])]
    return [f"{host}:{number}" for host in hosts]


def own_address(everywhere: str) -> str | None:
    """This machine's address towards others, in the family of ``0.0.0.0`` or ``::``; None without one. It asks the
    kernel for a route to an address that nobody has (RFC 5737, RFC 3849); nothing is sent."""
    family, other = (socket.AF_INET6, "2001:db8::1") if ":" in everywhere else (socket.AF_INET, "192.0.2.1")
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((other, 9))
        return str(probe.getsockname()[0])
    return None


def _places(settings: Settings) -> Iterator[Row]:
    if settings.spool is not None:
        yield "spool", masked(settings.spool.name)
    else:
        yield "directory", str(settings.upload_dir)
    if settings.catalog is not None:
        yield "catalog", masked(settings.catalog)
    remotes = [f"{masked(each.name)}{'' if each.required else ' (best effort)'}" for each in settings.remotes]
    yield from _labelled("remotes", remotes or ["none: uploads stay where they are"])


def _operators(started: Started, found: Sequence[str]) -> Iterator[Row]:
    places = [each.place if each.host is None else f"{_url(each)}/metrics" for each in started.admin]
    if any(each.host is None for each in started.admin):
        places[0] += " (resumable ls, metrics)"
    if started.settings.admin_on_public:
        places += [f"{url.removesuffix(started.settings.base_path)}/admin/ for admins" for url in found if "://" in url]
    yield from _labelled("operators", places or ["not answered (--admin-listen none)"])


def _url(port: OpenPort) -> str:
    (place, *_) = _reached(port, lambda _: None)
    return f"{'https' if port.tls else 'http'}://{place}"


def who_may(started: Started) -> str:
    """Who may upload, in words that "may upload" follows."""
    settings, access = started.settings, started.settings.access
    ways = {
        "a signed URL": access.signed_keys,
        "a token": access.tokens,
        "a client certificate": access.certificate_part,
        "a JWT": access.jwt,
        "a password": access.htpasswd,
    }
    things = [words for words, given in ways.items() if given is not None]
    people = [f"who has {' or '.join(things)}"] if things else []
    if access.forward is not None:
        people.append(f"whom {server_of(access.forward.url)} lets in")
    if not people:
        people = [_without_rule(started)]
    guards = [each.name for each in settings.hooks.guards]
    asked = ", if the guard agrees," if guards == ["guard"] else ""
    if guards and not asked:
        words = f"the guards {', '.join(guards)} agree" if len(guards) > 1 else f"the guard {guards[0]} agrees"
        asked = f", if {words},"
    return " or ".join(people) + asked


def _without_rule(started: Started) -> str:
    if started.ports and all(_is_verified(started.settings, each) for each in started.ports):
        return "who has a client certificate"
    return "anybody who can connect" if reachable(started.ports) else "anybody on this machine"


def reachable(ports: Sequence[OpenPort]) -> list[str]:
    """Those of the ports that other machines may reach."""
    return [each.place for each in ports if each.host is not None and not belongs(each.host, LOOPBACK)]


def _is_verified(settings: Settings, port: OpenPort) -> bool:
    """Whether nobody can connect to the port without a certificate of the operator's authority."""
    return port.tls and settings.tls_client_ca is not None and not settings.tls_client_optional


def has_rule(settings: Settings) -> bool:
    """Whether anything but the network decides who may upload: a way to authenticate, or a guard."""
    access = settings.access
    ways = (access.signed_keys, access.tokens, access.certificate_part, access.jwt, access.htpasswd, access.forward)
    return any(each is not None for each in ways) or bool(settings.hooks.guards)


def open_to_all(settings: Settings, ports: Sequence[OpenPort]) -> str | None:
    """The warning, where other machines can connect and everybody may do everything; None where all is well."""
    places = [] if has_rule(settings) else reachable([each for each in ports if not _is_verified(settings, each)])
    return _WARNING.format(places=", ".join(places)) if places else None
