"""The configuration file that ``resumable config init`` writes: every option by subject, each commented out.

Invariants: it parses as it is, and sets nothing; with all lines uncommented it parses too, and says the defaults. Pure.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import Final

from resumable.config import BY_FLAG, OPTIONS
from resumable.config.access import ACCESS
from resumable.config.file import CONFIG
from resumable.config.hooks import HOOKS
from resumable.config.operators import OPERATORS
from resumable.config.option import Option
from resumable.config.remotes import REMOTES
from resumable.config.serving import PLACING, SERVING
from resumable.config.web import WEB

USUAL: Final = (
    *("upload-dir", "host", "port", "base-path", "public-url", "behind-proxy", "tls-cert", "tls-key", "max-size"),
    *("expire-after", "remote", "local", "auth-htpasswd", "auth-tokens", "cors-origin", "catalog", "log-format"),
)
"""Flags of those that most people set, the first ones first; those that there are."""
_TABLES: Final = (
    ("The server", SERVING),
    ("Remotes", REMOTES),
    ("Places of finished files", PLACING),
    ("HTTP", WEB),
    ("Operators", OPERATORS),
    ("Hooks", HOOKS),
    ("Access", ACCESS),
)
_WIDTH: Final = 100
_HEAD: Final = """\
# The configuration of an upload server.
#
#     resumable config check --config {name}
#     twistd -n --pidfile= resumable --config {name}
#
# Each option has the name of its flag; docs/configuration.md says more about each. A line that begins with "# name ="
# has no effect, and says the default. An empty text or list counts as not set. Flags and variables win over this file.
# Instead of any text there may be {{ file = "/run/secrets/name" }} or {{ env = "NAME" }}: use it for secrets.
"""


def subjects() -> tuple[tuple[str, tuple[Option, ...]], ...]:
    """All options but the file's own, each in one group with its title; the usual ones are the first group."""
    usual = tuple(BY_FLAG[flag] for flag in USUAL if flag in BY_FLAG)
    found = [("The usual ones", usual)]
    found += [(title, tuple(each for each in table if each not in usual)) for title, table in _TABLES]
    told = {each for _, table in found for each in table}
    others = tuple(each for each in OPTIONS if each not in told and each != CONFIG)
    return (*found, *([("Others", others)] if others else []))


def sample(name: str) -> str:
    """The text of the file. ``name``: as it is called in the commands of its head."""
    parts = [_HEAD.format(name=name)]
    for title, options in subjects():
        parts.append(f"\n\n# {f' {title} ':-^{_WIDTH - 2}}\n")
        parts += ["\n".join(("", *_lines(each), "")) for each in options]
    return "".join(parts)


def _lines(option: Option) -> Iterator[str]:
    kind = f" ({option.metavar})" if "|" in option.metavar else ""
    help_text = f"{option.help[:1].upper()}{option.help[1:]}".replace("`", "") + kind + "."
    yield from textwrap.wrap(
        help_text, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False, break_on_hyphens=False
    )
    yield f"# {option.flag} = {default_value(option)}"


def default_value(option: Option) -> str:
    """Its default as TOML writes it."""
    if option.is_switch:
        return "false"
    if option.separator:
        parts = option.default.split("," if option.separator == "," else None)
        return f"[{', '.join(map(_quoted, filter(None, parts)))}]"
    if option.default.isdigit() and option.metavar in ("PORT", "NUMBER"):
        return option.default
    return _quoted(option.default)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
