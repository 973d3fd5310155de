"""How the log is written: lines for people, or one JSON object a line.

Invariants: an event is one line of JSON, whatever is in it; no line of either kind has a value of a URL's query, or a
password in it (masking.py). twistd decides where the lines go.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import IO, Any, Final

from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
    formatEventAsClassicLogText,
)
from twisted.python.logfile import LogFile

from resumable.masking import masked
from resumable.model.telemetry import REQUEST

LEVELS: Final = ("debug", "info", "warn", "error")
FORMATS: Final = ("text", "json")

#: Fields that twistd's older way of logging adds to an event; they repeat others.
_LEGACY: Final = frozenset({"isError", "message", "time", "format", "system", "why", "failure", "printed", "logLevel"})
_OWN: Final = frozenset({"time", "level", "logger", "message", "error", "traceback"})
_LONGEST: Final = 4000


def output(twistd: Mapping[str, Any], reactor: Any) -> IO[Any] | None:
    """The file to which twistd with these options would write; None where only twistd itself can.

    As twistd's own, a log file gives way to a new one when it is large or at SIGUSR1.
    """
    name = twistd.get("logfile") or ""
    daemon = not twistd.get("nodaemon", False)
    if twistd.get("logger") or twistd.get("syslog") or (daemon and name == "-"):
        return None
    if name == "-" or not (name or daemon):
        return sys.stdout
    file: Any = LogFile.fromFullPath(name or "twistd.log")
    if signal.getsignal(signal.SIGUSR1) in (None, signal.SIG_DFL):
        signal.signal(signal.SIGUSR1, lambda number, frame: reactor.callFromThread(file.rotate))
    found: IO[Any] = file
    return found


def observer(form: str, level: str, file: IO[Any], worker: int | None = None) -> ILogObserver:
    """Writes events of that level (a word of `LEVELS`) and above to ``file``; ``form`` is one of `FORMATS`.

    ``worker``: the number of this process, if it is one of several, which each line has then.
    """
    line = partial(json_line if form == "json" else text_line, worker=worker)
    least = LogLevelFilterPredicate(defaultLogLevel=LogLevel.levelWithName(level))
    return FilteringLogObserver(FileLogObserver(file, line), [least])


def text_line(event: LogEvent, worker: int | None = None) -> str | None:
    """As twistd writes it, with its traceback on lines of its own; None for an event that says nothing.

    The first line ends with the id of the request that it is about, if there is one and it isn't in the line, and with
    the worker.
    """
    text = formatEventAsClassicLogText(event)
    if text is None:
        return None
    first, end, rest = masked(text).partition("\n")
    name = REQUEST.get()
    if name and name not in first:
        first = f"{first} [{name}]"
    return f"{first}{'' if worker is None else f' [worker {worker}]'}{end}{rest}"


def json_line(event: LogEvent, worker: int | None = None) -> str | None:
    """``time``, ``level``, ``logger``, ``message``, ``request`` where it is about one, the event's own fields,
    ``worker`` where there are several, ``error`` and ``traceback``.

    None for an event that says nothing.
    """
    message, failure = formatEvent(event), event.get("log_failure")
    if not message and failure is None:
        return None
    level = event.get("log_level")
    line: dict[str, Any] = {
        "time": datetime.fromtimestamp(event.get("log_time", 0.0), UTC).isoformat(timespec="milliseconds"),
        "level": getattr(level, "name", "info"),
        "logger": str(event.get("log_namespace", "")),
        "message": _plain(message),
    }
    if name := REQUEST.get():
        line["request"] = name
    line.update(_fields(event))
    if worker is not None:
        line["worker"] = worker
    if failure is not None:
        line["error"] = _plain(f"{failure.type.__name__}: {failure.getErrorMessage()}")
        line["traceback"] = masked(failure.getTraceback())
    return json.dumps(line) + "\n"


def _fields(event: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{name}_" if name in _OWN else name: _plain(value)
        for name, value in event.items()
        if not name.startswith("log_") and name not in _LEGACY
    }


def _plain(value: Any) -> Any:
    """As JSON knows it; anything unusual as text."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and abs(value) < float("inf"):
        return value
    return masked(str(value)[:_LONGEST])
