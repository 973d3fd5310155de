"""``resumable doctor``: its command line, and the report that it prints.

Invariants: an option that the daemon would refuse is a finding; an option that only this command has ends it with
status 2. One line for each finding, and below it, indented, what to change; as JSON one object a line. No secret of a
URL is printed.
"""

from __future__ import annotations

import getopt
import json
import os
import re
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TextIO
from urllib.parse import urlsplit

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.logger import ILogObserver, LogEvent, globalLogBeginner
from twisted.python import usage
from zope.interface import provider

from resumable.client.checks import PublicUrl, all_checks, made
from resumable.config.options import Options
from resumable.doctor import daemon
from resumable.doctor.findings import Finding, Level
from resumable.masking import has_user, masked

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NAME_WIDTH = 16
_VALUE = re.compile(r"[\x20-\x7e\xa0-\xff]*")


class DoctorOptions(Options):
    """The options of the daemon, and a few more."""

    synopsis = "Usage: resumable doctor [options]"
    longdesc = (
        "Checks everything that the daemon depends on, with the options and the environment that it is given, and says"
        " what to change. Works beside a running daemon and without one, and changes nothing. Ends with status 1 if"
        " something is bad."
    )
    optParameters = [  # noqa: RUF012
        ["url", None, None, "where clients see --base-path; asked through whatever proxy there is [--public-url]"],
        ["origin", None, None, "web origin from which a browser is to upload"],
    ]
    optFlags = [["json", None, "one JSON object a line"]]  # noqa: RUF012

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        super().__init__(environ)
        self.headers: dict[str, str] = {}

    def opt_header(self, line: str) -> None:
        """'NAME: VALUE', sent with requests to --url, as Authorization; repeatable"""
        name, colon, value = line.partition(":")
        if not (colon and _NAME.fullmatch(name) and _VALUE.fullmatch(value.strip())):
            raise usage.UsageError("--header: expected NAME: VALUE")  # which may be a secret
        self.headers[name] = value.strip()

    @property
    def url(self) -> str | None:
        """The URL to ask from outside. Raises UsageError."""
        url: str | None = self["url"] or self.settings().public_url
        if url is not None:
            _check_url("--url", url)
        return url

    @property
    def origin(self) -> str | None:
        """The origin of the page that is to upload. Raises UsageError."""
        origin: str | None = self["origin"]
        if origin is not None:
            _check_url("--origin", origin)
        return origin


def _check_url(flag: str, url: str) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) and url.isascii()
        good = good and not has_user(url)
    except ValueError:
        good = False
    if not good or any(char <= " " for char in url):  # it isn't repeated: it may hold a password
        raise usage.UsageError(f"{flag} expected a URL like https://example.org/files/; credentials go into --header")


def main(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Make all checks and print their findings. The exit status."""
    options = DoctorOptions(environ)
    report = Report(sys.stdout, "--json" in arguments, shutil.get_terminal_size((100, 24)).columns)
    try:
        options.parseOptions(list(arguments))
        url, origin = options.url, options.origin
    except usage.UsageError as problem:
        if _is_usage(problem):
            sys.stderr.write(f"resumable doctor: {problem}; see resumable doctor --help\n")
            return 2
        report.tell(daemon.refused(str(problem)))
        report.end()
        return 1
    globalLogBeginner.beginLoggingTo([_unheard], redirectStandardIO=False, discardBuffer=True)

    ended: list[OSError | None] = []

    async def go(reactor: Any) -> None:
        try:
            for each in options.unknown_variables:
                report.tell(daemon.unheeded(str(each)))
            for name, check in all_checks(reactor, options.settings(), PublicUrl(url, origin, options.headers)):
                for finding in await made(name, check):
                    report.tell(finding)
            ended.append(None)
        except OSError as error:  # which the reactor would keep to itself
            ended.append(error)

    try:
        react(lambda reactor: Deferred.fromCoroutine(go(reactor)))
    except SystemExit as end:
        if end.code:
            return int(end.code)
    if not ended:  # the reactor takes SIGINT for itself
        raise KeyboardInterrupt
    if ended[0] is not None:
        raise ended[0]
    report.end()
    return 1 if report.bad else 0


@provider(ILogObserver)
def _unheard(event: LogEvent) -> None:
    """Drop the log of the daemon's parts while they are tried: their findings have it."""


def _is_usage(problem: usage.UsageError) -> bool:
    """Whether it is about this command line's form, and not about a value that the daemon would refuse."""
    ours = ("unexpected argument", "option --", "--url ", "--origin ", "--header")
    return isinstance(problem.__context__, getopt.error) or str(problem).startswith(ours)


class Report:
    """Prints findings. ``width``: columns that lines are broken at."""

    def __init__(self, out: TextIO, as_json: bool, width: int) -> None:
        self._out = out
        self._json = as_json
        self._width = max(40, width)
        self._counts: Counter[Level] = Counter()

    @property
    def bad(self) -> int:
        """How many findings were bad."""
        return self._counts["bad"]

    def tell(self, finding: Finding) -> None:
        """Print a finding at once, as the next check may take long."""
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
            head = f"{finding.level:<4}  {finding.name:<{_NAME_WIDTH}}  "
            self._write(finding.what, head, " " * (_NAME_WIDTH + 8))
            if finding.advice:
                self._write(finding.advice, " " * (_NAME_WIDTH + 8) + "> ", " " * (_NAME_WIDTH + 10))
        self._out.flush()

    def end(self) -> None:
        """Print the last line."""
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
