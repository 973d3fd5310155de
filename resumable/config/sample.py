"""The configuration file that ``resumable config init`` writes: every option by subject, each commented out.

Invariants: it parses as it is, and sets nothing; with all lines uncommented it parses too, and says the defaults. Pure.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import Final

from resumable.config import BY_FLAG
from resumable.config.file import CONFIG
from resumable.config.help import USUAL, subjects
from resumable.config.option import Option

_WIDTH: Final = 100
_HEAD: Final = """\
# The configuration of an upload server.
#
#     resumable config check --config {name}
#     resumable serve --config {name}
#
# Each option has the name of its flag; docs/configuration.md says more about each. A line that begins with "# name ="
# has no effect, and says the default. An empty text or list counts as not set. Flags and variables win over this file.
# Instead of any text there may be {{ file = "/run/secrets/name" }} or {{ env = "NAME" }}: use it for secrets.
"""


def groups() -> dict[str, list[Option]]:
    """All options but the file's own, each in one group by its title; the usual ones are the first group."""
    usual = [BY_FLAG[flag] for flags in USUAL.values() for flag in flags if flag != CONFIG.flag]
    left = {title: [each for each in table if each not in usual] for title, table in subjects().items()}
    return {"The usual ones": usual, **{title: table for title, table in left.items() if table != [CONFIG]}}


def sample(name: str) -> str:
    """The text of the file. ``name``: as it is called in the commands of its head."""
    parts = [_HEAD.format(name=name)]
    for title, options in groups().items():
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
