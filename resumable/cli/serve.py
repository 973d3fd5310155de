"""``resumable serve``: the server in the foreground, as ``twistd -n --pidfile= resumable`` runs it, with its options.

Standard output gets the announcement (announcement.py) and the log: in a terminal the announcement first. With
``--log-format json`` each line of standard output is JSON, and the announcement goes to a terminal's standard error.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, TextIO, cast

from twisted.python import usage

from resumable.config.options import Options
from resumable.daemon.announcement import Started, block, own_address, rows
from resumable.daemon.children import TwistdService
from resumable.daemon.service import makeService
from resumable.daemon.supervised import SupervisorService
from resumable.daemon.terminal import HeldOutput
from resumable.masking import masked

STOP = ("stop", "Ctrl-C; every byte that was received is kept")


class ServeOptions(Options):
    """The options of the daemon."""

    synopsis = "Usage: resumable serve [options]"


class _Maker:
    """Stands where twistd looks for a plugin's IServiceMaker. ``tell`` gets what has started; ``held``: the output
    that waits for it."""

    tapname = "resumable"

    def __init__(self, tell: Callable[[Started], None], held: HeldOutput | None) -> None:
        self._tell = tell
        self._held = held

    def makeService(self, options: Options) -> TwistdService:
        service = makeService(options)
        service.tell = self._tell
        if self._held is not None and isinstance(service, SupervisorService):
            # Else the workers' lines would come before the announcement.
            service.launcher.output = cast(IO[str], self._held)
        return service


def main(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Serve until a signal comes. The exit status; SystemExit with a line for a start that fails."""
    options = ServeOptions(environ)
    try:
        options.parseOptions(list(arguments))
    except usage.UsageError as problem:
        sys.stderr.write(f"resumable serve: {masked(str(problem))}; see resumable serve --help\n")
        return 2
    out: TextIO = sys.stdout
    told = _teller(out, sys.stderr, options.settings().log_format)
    held = HeldOutput(out, time.monotonic) if told is out and out.isatty() else None

    def tell(started: Started) -> None:
        text = block([*rows(started, own_address), STOP])
        if held is not None:
            held.first(text)
        elif told is not None:
            told.write(text)
            told.flush()

    sys.stdout = out if held is None else held
    try:
        _run(options, _Maker(tell, held))
    finally:
        sys.stdout = out
        if held is not None:
            held.release()
    return 0


def _teller(out: TextIO, errors: TextIO, log_format: str) -> TextIO | None:
    """Where the announcement goes; None: nowhere."""
    if log_format == "text":
        return out
    return errors if errors.isatty() else None


def _run(options: Options, maker: _Maker) -> None:
    """Have twistd run it in this process."""
    from twisted.scripts.twistd import ServerOptions, runApp  # type: ignore[attr-defined]

    twistd: Any = ServerOptions()
    twistd.parseOptions(["--nodaemon", "--pidfile=", "--no_save"])
    # As if its command line had named our plugin, which needn't be looked for.
    twistd.loadedPlugins = {maker.tapname: maker}
    twistd.subCommand, twistd.subOptions = maker.tapname, options
    options.parent = twistd
    runApp(twistd)
