"""The help of everything that takes the server's options: the usual ones first, all of them by subject on demand.

An option has the subject of its table. `USUAL` are those of ``--help``, in a few words each, so that they fit a
terminal; ``--help-all`` has what the docs have. Pure.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from resumable.config import BY_FLAG, OPTIONS
from resumable.config.access import LIMITS, WAYS
from resumable.config.hooks import HOOKS
from resumable.config.operators import OPERATORS
from resumable.config.option import Option, help_line
from resumable.config.remotes import REMOTES
from resumable.config.serving import PLACING, SERVING
from resumable.config.web import WEB

_TABLES: Final[Mapping[str, Sequence[Option]]] = {
    "Serving": SERVING,
    "Places of finished files": PLACING,
    "Remotes": REMOTES,
    "HTTP and browsers": WEB,
    "Access": WAYS,
    "Limits": LIMITS,
    "Hooks": HOOKS,
    "Operators": OPERATORS,
}
USUAL: Final[Mapping[str, Mapping[str, str]]] = {
    "Where it listens": {
        "port": "TCP port",
        "host": "its address, as 127.0.0.1 or ::1 [every IPv4 one]",
        "tls-cert": "certificate (PEM): that port then speaks TLS",
        "base-path": "path of the uploads",
        "public-url": "URL of that path as clients see it",
        "behind-proxy": "proxies whose X-Forwarded-* fields are trusted",
    },
    "Where uploads go": {
        "upload-dir": "directory of the uploads",
        "remote": "store for copies: s3://, az://, gs://, file://",
        "local": "the copy here, when remotes have it",
        "catalog": "PostgreSQL that several servers share",
        "max-size": "largest upload; 0: no limit",
        "expire-after": "age at which unfinished ones are removed",
    },
    "Who may upload (docs/access.md)": {
        "auth-htpasswd": "users and passwords",
        "auth-tokens": "bearer tokens",
        "auth-jwks": "keys of an issuer of JWTs",
        "auth-forward": "server that decides about each request",
        "cors-origin": "web origin that may upload; * for all",
    },
    "Around it": {
        "config": "TOML file with options by their names",
        "page": "whether browsers find a page for uploads",
        "hook": "receiver of events: https://, exec:, python:",
        "admin-listen": "where metrics and admin API are",
        "log-format": "lines for people, or JSON",
    },
}
"""Flags and a few words, by subject."""
_GENERAL: Final = ("help", "help-all", "version")


def subjects() -> dict[str, list[Option]]:
    """All options by subject; one that is in no table of a subject is general."""
    found = {subject: [each for each in table if each.flag in BY_FLAG] for subject, table in _TABLES.items()}
    placed = {option.flag for table in found.values() for option in table}
    rest = [option for option in OPTIONS if option.flag not in placed]
    return {**({"General": rest} if rest else {}), **found}


def short_help(synopsis: str, about: str, own: Mapping[str, str], width: int) -> str:
    """The usual options, each in a line. ``own``: further flags of one command, and their help."""
    parts = [_head(synopsis, about, width), *_own(own, width)]
    for subject, flags in USUAL.items():
        known = [(BY_FLAG[flag], words) for flag, words in flags.items() if flag in BY_FLAG]
        lines = [(_flag(option, 24), f"{words}{_default(option, words)}") for option, words in known]
        parts.append(_section(subject, lines, width))
    end = (
        f"--help-all shows all {len(OPTIONS)} options. Each can be set by a variable too: RESUMABLE_MAX_SIZE for"
        " --max-size; flags win. Sizes end in K, M, G, T, times in s, m, h, d."
    )
    return "\n\n".join([*parts, textwrap.fill(end, width)])


def full_help(synopsis: str, about: str, own: Mapping[str, str], width: int) -> str:
    """All options by subject, with defaults and variables."""
    parts = [_head(synopsis, about, width), *_own(own, width)]
    for subject, options in subjects().items():
        parts.append(_section(subject, [(_flag(each), help_line(each)) for each in options], width))
    general = [("--help", "the usual options"), ("--help-all", "this"), ("--version", "the versions")]
    parts.append(_section("Help", general, width))
    return "\n\n".join(parts)


def _head(synopsis: str, about: str, width: int) -> str:
    return f"{synopsis}\n\n{textwrap.fill(about, width)}"


def _own(own: Mapping[str, str], width: int) -> list[str]:
    lines = [(f"--{flag}", " ".join(words.split())) for flag, words in own.items() if flag not in _GENERAL]
    return [_section("Of this command", lines, width)] if lines else []


def _flag(option: Option, longest: int = 200) -> str:
    """The flag and the kind of its value; where that is longer, only the first of several."""
    words = option.metavar if len(option.flag) + len(option.metavar) < longest else option.metavar.partition("|")[0]
    return f"--{option.flag} {words}".rstrip()


def _default(option: Option, words: str) -> str:
    return f" [{option.default}]" if option.default and "[" not in words else ""


def _section(title: str, lines: Iterable[tuple[str, str]], width: int) -> str:
    """A title, and below it each flag with its words beside it, or below it where the flag is long."""
    found, column = [f"{title}:"], 29
    for flag, words in lines:
        head = f"  {flag}"
        if len(head) >= column:
            found.append(head)
            head = ""
        found += textwrap.wrap(
            words.replace("`", ""),
            max(width, column + 20),
            initial_indent=f"{head:<{column}}",
            subsequent_indent=" " * column,
            break_on_hyphens=False,
            break_long_words=False,
        )
    return "\n".join(found)
