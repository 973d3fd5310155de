"""The grammar that ``put`` and ``get`` share, and what the library is told by it.

Invariants: what makes no sense ends the process with status 2 and one line, before any request. No message repeats a
token.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from resumable.cli.boards import Board, JsonBoard, LineBoard, complain, say
from resumable.cli.line_parser import LineParser, value
from resumable.cli.windows import DayWindow, day_window, seconds_until
from resumable.client import ClientOptions
from resumable.model import values

T = TypeVar("T")
TOKEN: Final = "RESUMABLE_TOKEN"
_HEADER: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*")


def retry_time(text: str) -> float:
    """Seconds; ``forever`` has no end."""
    return math.inf if text.lower() == "forever" else values.duration(text)


def header(text: str) -> tuple[str, str]:
    """Name and value of a header field. The text may hold a secret."""
    match = _HEADER.fullmatch(text)
    if match is None or not match[2].isprintable():
        raise ValueError("a field like 'X-Project: 7'")
    return match[1], match[2]


def rate(text: str) -> int:
    """Bytes per second, more than none."""
    found = values.size(text.removesuffix("/s"))
    if not found:
        raise ValueError("bytes per second, like 512K or 10M")
    return found


def web_address(text: str) -> str:
    """An http or https URL; it may have a user and a password."""
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good or not text.isprintable() or " " in text:
        raise ValueError("a URL like https://up.example/files/")
    return text


def add_common(parser: argparse.ArgumentParser) -> None:
    """The options of both commands."""
    add = parser.add_argument_group("the server").add_argument
    add("--token-file", metavar="PATH", help=f"with the token that the server asks for (or set {TOKEN})")
    add("-H", "--header", metavar="'NAME: VALUE'", type=_header, action="append", default=[], help="with each request")
    add("--ca-file", metavar="PATH", help="certificates to trust, instead of the system's")
    add("--insecure", action="store_true", help="take any certificate: whoever is in between can read everything")
    add = parser.add_argument_group("when and how fast").add_argument
    retry = value(retry_time)
    add(
        "--retry-for", metavar="TIME", type=retry, default=3600.0, help="try again for so long after it last moved [1h]"
    )
    window = value(day_window)
    add("--only-at", metavar="FROM-TO", type=window, action="append", default=[], help="only then, as 22:00-06:00")
    add("--limit-rate", metavar="RATE", type=value(rate), help="bytes per second for all together, as 10M")
    add = parser.add_argument_group("what it shows").add_argument
    add("--json", action="store_true", help="an object a line, for programs")
    add("-v", "--verbose", action="store_true", help="without a terminal: lines on the way, too")


def _header(text: str) -> tuple[str, str]:
    try:
        return header(text)
    except ValueError as problem:  # the text isn't repeated: it may hold a secret
        raise argparse.ArgumentTypeError(f"expected {problem}") from problem


def client_options(parser: LineParser, given: Namespace, environ: Mapping[str, str], **more: Any) -> ClientOptions:
    """What the library is told."""
    return ClientOptions(
        headers=dict(given.header),
        token=_token(parser, given, environ),
        ca_file=None if given.ca_file is None else _readable(parser, "--ca-file", Path(given.ca_file)),
        insecure=given.insecure,
        retry_for=given.retry_for,
        limit_rate=given.limit_rate,
        may_send=_gate(given.only_at) if given.only_at else None,
        **more,
    )


def _gate(windows: list[DayWindow]) -> Callable[[], float]:
    return lambda: seconds_until(windows, time.time())


def _readable(parser: LineParser, flag: str, path: Path) -> Path:
    try:
        path.read_bytes()
    except OSError as error:
        parser.error(f"{flag} {path}: {error.strerror or error}")
    return path


def _token(parser: LineParser, given: Namespace, environ: Mapping[str, str]) -> str | Path | None:
    """The file is read anew for each request: it may be renewed in the days that an upload takes."""
    if given.token_file is not None:
        path = Path(given.token_file)
        try:
            good = _is_token(path.read_text(encoding="ascii").strip())
        except (OSError, ValueError) as error:
            parser.error(f"--token-file {path}: {getattr(error, 'strerror', None) or 'expected one line with a token'}")
        if not good:
            parser.error(f"--token-file {path}: expected one line with a token")
        return path.absolute()
    token = environ.get(TOKEN, "").strip()
    if token and not _is_token(token):
        parser.error(f"{TOKEN}: expected a token, without blanks")
    return token or None


def _is_token(text: str) -> bool:
    return bool(text) and text.isascii() and text.isprintable() and " " not in text


def bars_fit(given: Namespace, environ: Mapping[str, str], aside: bool = False) -> bool:
    """Whether the output is a terminal in which lines can be drawn anew."""
    stream = sys.stderr if aside else sys.stdout
    return not given.json and stream.isatty() and environ.get("TERM", "") not in ("dumb", "unknown")


def board(given: Namespace, environ: Mapping[str, str], few: bool, aside: bool = False) -> Board:
    """The one that is asked for. ``few``: whether there are few files, with room for a receipt each. ``aside``:
    standard output has the file itself."""
    if given.json:
        return JsonBoard(time.time)
    if not bars_fit(given, environ, aside):
        return LineBoard(given.verbose, complain if aside else say)
    from resumable.cli.bars import BarBoard, terminal

    return BarBoard(terminal(aside), few)
