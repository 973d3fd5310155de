"""The grammar of values: of flags and variables, and of times and bytes in JSON.

Each parser takes the text as it was given. It returns the value, or raises ValueError whose message continues
the word "expected". Pure. Spec: RFC 3339, RFC 4648 section 4.
"""

from __future__ import annotations

import ipaddress
import os
import re
from base64 import b64encode
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from resumable.masking import has_user

T = TypeVar("T")
Parse = Callable[[str], T]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_SIZE = 2**63 - 1
NONE_WORDS = frozenset({"0", "none", "never", "off"})

_SIZE = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,9})?) ?(?:([kmgtp])(?:i?b)?|b)?", re.IGNORECASE)
_SIZE_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?) ?(ms|s|m|h|d|w)?", re.IGNORECASE)
_DURATION_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_MAX_SECONDS = 100 * 365 * 86400.0
_PATH_SEGMENT = re.compile(r"[A-Za-z0-9._~-]+")
_URL_CHARACTERS = re.compile(r"[A-Za-z0-9._~:/\[\]%-]+")
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

_ENDPOINT_PORT = re.compile(r"(?:tcp6?|ssl):(?:port=)?([0-9]+)")

_NETWORK_WORDS = {
    "loopback": ("127.0.0.0/8", "::1/128"),
    "private": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"),
}


def integer(low: int, high: int, what: str) -> Callable[[str], int]:
    """A parser of whole numbers from ``low`` to ``high``, both included."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 20 and low <= int(text) <= high):
            raise ValueError(f"{what} from {low} to {high}")
        return int(text)

    return parse


def optional_integer(low: int, high: int, what: str) -> Callable[[str], int | None]:
    """As `integer`, with None for ``0``."""
    parse = integer(low, high, what)
    return lambda text: parse(text) or None


def choice(*words: str) -> Callable[[str], str]:
    """A parser of one of these words, in whatever case."""

    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return text.lower()

    return parse


def choices(*words: str) -> Callable[[Sequence[str]], tuple[str, ...]]:
    """As `choice`, of several."""
    parse = choice(*words)

    def parse_all(items: Sequence[str]) -> tuple[str, ...]:
        try:
            return tuple(map(parse, items))
        except ValueError:
            raise ValueError(f"some of {', '.join(words)}") from None

    return parse_all


def size(text: str) -> int:
    """Bytes; ``64M``, ``64MB`` and ``64MiB`` are all 64 x 1024 x 1024."""
    match = _SIZE.fullmatch(text)
    if match:
        number = float(match[1]) if "." in match[1] else int(match[1])
        value = int(number * 1024 ** _SIZE_POWERS[(match[2] or "").lower()])
        if value <= MAX_SIZE:
            return value
    raise ValueError("a size below 8 EiB, like 1048576, 512KiB, 64M or 1.5G")


def size_option(count: int) -> str:
    """Bytes as `size` takes them, short: ``20M``."""
    for power, unit in ((4, "T"), (3, "G"), (2, "M"), (1, "K")):
        if count and count % 1024**power == 0:
            return f"{count // 1024**power}{unit}"
    return str(count)


def optional_size(text: str) -> int | None:
    """Bytes; None for ``0`` and ``none``."""
    return None if text.lower() in NONE_WORDS else size(text) or None


def size_between(low: str, high: str) -> Callable[[str], int]:
    """A parser of sizes from ``low`` to ``high``, both included."""
    least, most = size(low), size(high)

    def parse(text: str) -> int:
        value = size(text)
        if not least <= value <= most:
            raise ValueError(f"a size from {low} to {high}")
        return value

    return parse


def duration(text: str) -> float:
    """Seconds."""
    match = _DURATION.fullmatch(text)
    if match:
        value = float(match[1]) * _DURATION_UNITS[(match[2] or "").lower()]
        if value <= _MAX_SECONDS:
            return value
    raise ValueError("a time of at most a century, like 60, 90s, 5m, 24h or 7d")


def positive_duration(text: str) -> float:
    """Seconds, more than none."""
    value = duration(text)
    if value <= 0:
        raise ValueError("a time longer than 0, like 60, 90s or 5m")
    return value


def duration_between(low: str, high: str) -> Callable[[str], float]:
    """A parser of times from ``low`` to ``high``, both included."""
    least, most = duration(low), duration(high)

    def parse(text: str) -> float:
        value = duration(text)
        if not least <= value <= most:
            raise ValueError(f"a time from {low} to {high}")
        return value

    return parse


def optional_duration(text: str) -> float | None:
    """Seconds; None for ``0`` and ``never``."""
    return None if text.lower() in NONE_WORDS else duration(text) or None


def switch(text: str) -> bool:
    """The value of an environment variable for a flag that takes none."""
    word = text.lower()
    if word in {"1", "true", "yes", "on"}:
        return True
    if word in {"0", "false", "no", "off"}:
        return False
    raise ValueError("one of 1, true, yes, on, 0, false, no, off")


def directory(text: str) -> Path:
    """An absolute path, resolved against the working directory of now: twistd changes it later."""
    if not text or "\0" in text:
        raise ValueError("the path of a directory")
    return Path(os.path.abspath(os.path.expanduser(text)))


def file(text: str) -> Path:
    """The path of a file, resolved as `directory` is. Whether it's there is seen later."""
    if not text or "\0" in text:
        raise ValueError("the path of a file")
    return Path(os.path.abspath(os.path.expanduser(text)))


def permissions(needed: int, allowed: int, what: str) -> Callable[[str], int]:
    """A parser of octal permissions that include ``needed`` and nothing but ``allowed``."""

    def parse(text: str) -> int:
        mode = int(text, 8) if re.fullmatch("[0-7]{3,5}", text) else 0
        if mode & needed != needed or mode & ~allowed:
            raise ValueError(what)
        return mode

    return parse


def text(text: str) -> str:
    """Anything but nothing."""
    if not text.strip():
        raise ValueError("a text")
    return text


def word(text: str) -> str:
    """Something without blanks."""
    if not text or not text.isprintable() or " " in text:
        raise ValueError("something without blanks")
    return text


def words(items: Sequence[str]) -> tuple[str, ...]:
    """As `word`, several times."""
    return tuple(map(word, items))


def names(items: Sequence[str]) -> tuple[str, ...]:
    """The name of an identity."""
    if not all(item and item.isprintable() and item == item.strip() for item in items):
        raise ValueError("a name that can be read")
    return tuple(items)


def optional_field_name(text: str) -> str | None:
    """The lower-case name of a header field; None for ``none`` and the like."""
    return None if text.lower() in NONE_WORDS else field_names([text])[0]


def field_names(items: Sequence[str]) -> tuple[str, ...]:
    """Lower-case names of header fields."""
    if not all(_FIELD_NAME.fullmatch(item) for item in items):
        raise ValueError("names of header fields like X-Session")
    return tuple(item.lower() for item in items)


def catalog_url(text: str) -> str | None:
    """The URL of a PostgreSQL database; None for ``sqlite``."""
    if text.lower() == "sqlite":
        return None
    if not text.startswith(("postgresql://", "postgres://")) or not text.isprintable() or " " in text:
        raise ValueError("sqlite, or a URL like postgresql://resumable@db.example.org/resumable")
    return text


def workers(text: str) -> int | None:
    """How many processes; None for ``auto``."""
    return None if text.lower() == "auto" else integer(1, 256, "auto, or a number")(text)


def web_url(text: str) -> str:
    """An http or https URL, without user and password."""
    good = text.isascii() and text.isprintable() and " " not in text
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018  (raises for a port out of range)
    except ValueError:
        good = False
    if good and has_user(text):
        raise ValueError("a URL without user and password; its path and query may hold a secret, and are never shown")
    if not good or parts.scheme not in {"http", "https"} or not parts.hostname or parts.fragment:
        raise ValueError("an http or https URL like https://login.example.org/keys")
    return text


def base_path(text: str) -> str:
    """A URL path that begins and ends with a slash."""
    segments = text.strip("/").split("/") if text.strip("/") else []
    if not text or any(s in {".", ".."} or not _PATH_SEGMENT.fullmatch(s) for s in segments):
        raise ValueError("a path like /files/ made of letters, digits and . _ ~ - between single slashes")
    return "/".join(["", *segments, ""])


def optional_segment(text: str) -> str | None:
    """One segment of a URL path; None for ``none`` and the like."""
    if text.lower() in NONE_WORDS:
        return None
    if text in {".", ".."} or not _PATH_SEGMENT.fullmatch(text):
        raise ValueError("a name made of letters, digits and . _ ~ -, or none")
    return text


def public_url(text: str) -> str | None:
    """An absolute http or https URL that ends with a slash; None for the empty text."""
    if not text:
        return None
    parts = None
    try:
        if _URL_CHARACTERS.fullmatch(text):
            parts = urlsplit(text)
            parts.port  # noqa: B018  (raises for a port out of range)
    except ValueError:
        parts = None
    if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("an http or https URL without user, password and query, like https://example.org/files/")
    return text if text.endswith("/") else text + "/"


def endpoints(items: Sequence[str]) -> tuple[str, ...]:
    """Twisted endpoint strings that parse; nothing is listened on yet, and the files of ``ssl:`` aren't read."""
    from twisted.internet.endpoints import serverFromString

    for item in items:
        inner = item.removeprefix("haproxy:")
        try:
            if (match := _ENDPOINT_PORT.match(inner)) and int(match[1]) > 65535:
                raise ValueError(f"there is no port {match[1]}")
            if not inner.startswith("ssl:"):
                serverFromString(None, inner)
        except LookupError as problem:
            if not inner.startswith("systemd:"):  # its sockets are there when the daemon starts
                raise ValueError("a Twisted endpoint like tcp:8080:interface=127.0.0.1") from problem
        except Exception as problem:  # endpoint parsers have no common class of errors
            reason = " ".join(str(problem).split()) or type(problem).__name__
            raise ValueError(
                f"a Twisted endpoint like tcp:8080:interface=127.0.0.1 or unix:/run/resumable.sock ({reason})"
            ) from problem
    return tuple(items)


def admin_endpoints(items: Sequence[str]) -> tuple[str, ...]:
    """`endpoints`, or the word ``socket`` among them; none of any for the word ``none``."""
    if tuple(items) == ("none",):
        return ()
    if "none" in items:
        raise ValueError("none, or endpoints, not both")
    endpoints([item for item in items if item != "socket"])
    return tuple(dict.fromkeys(items))


def host(text: str) -> str:
    """An IP address to listen on, in its usual form; ``localhost`` is 127.0.0.1, brackets round IPv6 are left out."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return str(ipaddress.ip_address("127.0.0.1" if bare.lower() == "localhost" else bare))
    except ValueError:
        raise ValueError("an IP address like 127.0.0.1 or ::1; :: is every interface") from None


def networks(items: Sequence[str]) -> tuple[Network, ...]:
    """The addresses that the words, IPs and CIDR blocks name."""
    found: list[Network] = []
    for item in items:
        try:
            found.extend(ipaddress.ip_network(text) for text in _NETWORK_WORDS.get(item.lower(), (item,)))
        except ValueError as problem:
            raise ValueError(
                f"IP addresses, CIDR blocks, or the words {' and '.join(_NETWORK_WORDS)} ({problem})"
            ) from problem
    return tuple(found)


def json_time(seconds: float) -> str:
    """Seconds since the epoch in UTC, to the millisecond: ``2026-01-31T23:59:59.000Z``."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def json_text(value: bytes) -> str | dict[str, str]:
    """A client's bytes; bytes that aren't UTF-8 stay in Base64, and are marked as such."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(value).decode()}
