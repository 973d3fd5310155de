"""``python -m resumable.config README.md docs/configuration.md`` writes their tables of options anew."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from resumable.config import MAIN, OPTIONS, Option


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _default(option: Option) -> str:
    return "off" if option.is_switch else f"`{option.default}`" if option.default else "not set"


def short_table() -> str:
    """For the README: flag, default, meaning of the main ones."""
    rows = ["| flag | default | meaning |", "|---|---|---|"]
    rows += [f"| `--{o.flag}` | {_default(o)} | {_cell(o.help)} |" for o in MAIN]
    return "\n".join(rows)


def full_table() -> str:
    """For docs/configuration.md: one row for each option with all that is known of it."""
    rows = ["| flag | variable | default | meaning |", "|---|---|---|---|"]
    for o in OPTIONS:
        flag = f"--{o.flag} {o.metavar}".rstrip()
        rows.append(f"| `{_cell(flag)}` | `{o.variable}` | {_default(o)} | {_cell(o.help)}. {_cell(o.advice)} |")
    return "\n".join(rows)


def rewrite(document: str) -> str:
    """The document with each table between ``<!-- options: short|full -->`` and ``<!-- /options -->`` made anew."""
    tables = {"short": short_table, "full": full_table}
    return re.sub(
        r"(<!-- options: (short|full) -->\n).*?(<!-- /options -->)",
        lambda match: f"{match[1]}\n{tables[match[2]]()}\n\n{match[3]}",
        document,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(name).write_text(rewrite(Path(name).read_text(encoding="utf-8")), encoding="utf-8")
