"""The command line of ``twistd resumable`` and its environment, made into one frozen `Settings`.

Changes when the way from a flag to a setting does; the options themselves are in `resumable.option_table`. Flags
win over the environment, the environment wins over the defaults, and whatever is wrong is told in one line before
anything is started. Written after `twisted.python.usage`.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted import __version__ as twisted_version
from twisted.python import usage

from resumable import __version__
from resumable.option_table import BY_FLAG, OPTIONS, Option, help_line
from resumable.option_values import Network


@frozen
class Settings:
    """What the service is made from; sizes are bytes, times are seconds.

    ``public_url`` is what clients see in place of ``base_path``. None: ``max_size`` without a limit,
    ``expire_after`` never, ``public_url`` taken from each request. ``cors_origins`` empty: no CORS headers.
    """

    listen: tuple[str, ...]
    upload_dir: Path
    base_path: str
    public_url: str | None
    max_size: int | None
    expire_after: float | None
    remember: float
    network_timeout: float
    min_rate: int
    shutdown_timeout: float
    trusted_proxies: tuple[Network, ...]
    reserve: int
    cors_origins: tuple[str, ...]
    writers: int
    download: bool


class Options(usage.Options):
    """The command line of ``twistd resumable``; `settings` is valid once it has been parsed."""

    longdesc = (
        "A resumable upload server (tus 1.0). Each option can also be set by the environment variable named beside it;"
        " flags win. Sizes may end in K, M, G, T (powers of 1024), times in s, m, h, d, w."
    )
    optParameters = [[o.flag, None, None, help_line(o)] for o in OPTIONS if not o.is_switch and not o.separator]  # noqa: RUF012
    optFlags = [[o.flag, None, help_line(o)] for o in OPTIONS if o.is_switch]  # noqa: RUF012

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._environ = environ
        self._repeated: dict[str, list[str]] = {}
        self._settings: Settings | None = None
        self.docs.update({o.flag: help_line(o) for o in OPTIONS if o.separator})

    def opt_listen(self, value: str) -> None:
        self._repeated.setdefault("listen", []).append(value)

    def opt_behind_proxy(self, value: str) -> None:
        self._repeated.setdefault("behind-proxy", []).append(value)

    def opt_cors_origin(self, value: str) -> None:
        self._repeated.setdefault("cors-origin", []).append(value)

    def opt_version(self) -> None:
        """Display the versions of resumable, Twisted and Python, and exit."""
        print(f"resumable {__version__} (Twisted {twisted_version}, Python {platform.python_version()})")
        sys.exit(0)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        try:
            super().parseOptions(options)  # type: ignore[no-untyped-call]
        except usage.UsageError as problem:
            if self.parent is None:
                raise
            # twistd would print all of --help and, below it, the one line that matters.
            raise SystemExit(f"resumable: {problem}") from problem

    def parseArgs(self, *args: str) -> None:
        if args:
            raise usage.UsageError(f"unexpected argument {args[0]!r}: everything is set by flags, see --help")

    def postOptions(self) -> None:
        found = {option.flag: self._value(option) for option in OPTIONS}
        self._settings = Settings(
            listen=self._listen(found["port"], found["listen"]),
            upload_dir=found["upload-dir"],
            base_path=found["base-path"],
            public_url=found["public-url"],
            max_size=found["max-size"],
            expire_after=found["expire-after"],
            remember=found["remember"],
            network_timeout=found["network-timeout"],
            min_rate=found["min-rate"],
            shutdown_timeout=found["shutdown-timeout"],
            trusted_proxies=found["behind-proxy"],
            reserve=found["reserve"],
            cors_origins=found["cors-origin"],
            writers=found["writers"],
            download=not found["disable-download"],
        )

    def settings(self) -> Settings:
        """What was asked for; RuntimeError before `parseOptions`."""
        if self._settings is None:
            raise RuntimeError("parseOptions was not called")
        return self._settings

    def _listen(self, port: int, endpoints: tuple[str, ...]) -> tuple[str, ...]:
        if endpoints and self._given(BY_FLAG["port"]) is None:
            return endpoints
        return (f"tcp:{port}", *endpoints)

    def _given(self, option: Option) -> tuple[str, list[str]] | None:
        """Where the option was set, and to which texts; None when it was not."""
        flag = f"--{option.flag}"
        if option.is_switch:
            if self[option.flag]:
                return flag, ["yes"]
        elif option.separator:
            if option.flag in self._repeated:
                texts = self._repeated[option.flag]
                return flag, split(texts, ",") if option.separator == "," else texts
        elif self[option.flag] is not None:
            return flag, [self[option.flag]]
        text = self._environ.get(option.variable, "").strip()
        # Kubernetes sets this one to tcp://ADDRESS:PORT in every pod beside a Service called "resumable".
        if not text or (option.flag == "port" and text.startswith("tcp://")):
            return None
        return option.variable, split([text], option.separator) if option.separator else [text]

    def _value(self, option: Option) -> Any:
        given = self._given(option)
        if given is None:
            source, texts = "default", [option.default] if option.default or not option.separator else []
            if option.is_switch:
                return False
        else:
            source, texts = given
        try:
            return option.parse(texts if option.separator else texts[0])
        except ValueError as problem:
            text = ",".join(texts)
            shown = text if len(text) <= 100 else text[:100] + "..."
            raise usage.UsageError(f"{source} {shown!r}: expected {problem}") from problem


def split(texts: list[str], separator: str) -> list[str]:
    """The parts of all the texts that are not empty, trimmed."""
    parts = (part.strip() for text in texts for part in text.split(None if separator == " " else separator))
    return [part for part in parts if part]
