"""What `resumable doctor` prints.

Changes when findings are shown in another way. Invariant: one line for each finding, and below it, indented, what to
change; as JSON one object a line. No secret of a URL is printed.
"""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from typing import TextIO

from attrs import evolve

from resumable.doctor.findings import Finding, Level
from resumable.masking import masked

_NAME = 16


class Report:
    """``width``: columns that lines are broken at."""

    def __init__(self, out: TextIO, as_json: bool, width: int) -> None:
        self._out = out
        self._json = as_json
        self._width = max(40, width)
        self._counts: Counter[Level] = Counter()

    @property
    def bad(self) -> int:
        return self._counts["bad"]

    def tell(self, finding: Finding) -> None:
        """At once, as the next check may take long."""
        finding = evolve(finding, what=masked(finding.what), advice=masked(finding.advice))
        self._counts[finding.level] += 1
        if self._json:
            fields = {
                "check": finding.name,
                "level": finding.level,
                "what": finding.what,
                "advice": finding.advice or None,
            }
            self._out.write(json.dumps(fields) + "\n")
        else:
            head = f"{finding.level:<4}  {finding.name:<{_NAME}}  "
            self._write(finding.what, head, " " * (_NAME + 8))
            if finding.advice:
                self._write(finding.advice, " " * (_NAME + 8) + "> ", " " * (_NAME + 10))
        self._out.flush()

    def end(self) -> None:
        """The last line."""
        if self._json:
            return
        warnings, bad = self._counts["warn"], self.bad
        if not warnings and not bad:
            self._out.write("\nall is well\n")
            return
        told = [f"{count} {word}" for count, word in ((bad, "bad"), (warnings, _plural(warnings, "warning"))) if count]
        self._out.write(f"\n{', '.join(told)}; see what to change behind each >\n")

    def _write(self, text: str, first: str, further: str) -> None:
        clean = " ".join(text.split())
        lines = textwrap.wrap(
            clean,
            self._width,
            initial_indent=first,
            subsequent_indent=further,
            break_long_words=False,
            break_on_hyphens=False,
        )
        self._out.write("\n".join(lines or [first]) + "\n")


def _plural(count: int, word: str) -> str:
    return word if count == 1 else f"{word}s"
