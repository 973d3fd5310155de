"""Lines of the log: one event is one line of JSON, and neither kind tells secrets."""

from __future__ import annotations

import json
import signal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, Logger, LogLevel, formatEventAsClassicLogText
from twisted.python.failure import Failure
from twisted.python.logfile import LogFile
from zope.interface.verify import verifyObject

from resumable.daemon import logs


def lines(write: Any, form: str = "json", level: str = "info") -> list[str]:
    """What ``write``, called with a logger, puts into the log."""
    file = StringIO()
    write(Logger("resumable.test", observer=logs.observer(form, level, file)))
    return file.getvalue().splitlines()


def event(write: Any) -> dict[str, Any]:
    (line,) = lines(write)
    found: dict[str, Any] = json.loads(line)
    return found


def test_an_event_has_its_time_level_logger_message_and_fields() -> None:
    found = event(lambda log: log.warn("of {upload}: {reason}", upload="u1", reason="full", offset=5, ok=True, no=None))
    assert found.pop("time").endswith("+00:00")
    assert found == {
        "level": "warn",
        "logger": "resumable.test",
        "message": "of u1: full",
        "upload": "u1",
        "reason": "full",
        "offset": 5,
        "ok": True,
        "no": None,
    }


def test_a_failure_has_its_error_and_traceback_on_the_same_line() -> None:
    def write(log: Logger) -> None:
        try:
            raise RuntimeError("bad\nthing")
        except RuntimeError:
            log.failure("failed", upload="u1")

    found = event(write)
    assert (found["level"], found["message"], found["error"]) == ("critical", "failed", "RuntimeError: bad\nthing")
    assert "Traceback" in found["traceback"] and found["upload"] == "u1"


def test_a_field_never_hides_what_every_line_has() -> None:
    found = event(lambda log: log.info("said", time=5, error="e", traceback="t", logger="mine"))
    assert found["logger"] == "resumable.test" and isinstance(found["time"], str)
    assert (found["logger_"], found["error_"], found["traceback_"]) == ("mine", "e", "t")


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.text() | st.floats() | st.binary(), max_size=4))
def test_whatever_is_in_an_event_it_is_one_line_of_json(fields: dict[str, Any]) -> None:
    line = logs.json_line({"log_format": "x", "log_level": LogLevel.info, "log_time": 0.0, **fields})
    assert line is not None and line.endswith("\n") and line.count("\n") == 1 and line.isascii()
    assert json.loads(line, parse_constant=lambda _: pytest.fail("no number of JSON"))["message"] == "x"


def test_text_is_as_twistd_writes_it() -> None:
    said = {"log_format": "a {b}", "b": 1, "log_level": LogLevel.info, "log_time": 0.0, "log_namespace": "n"}
    assert logs.text_line(said) == formatEventAsClassicLogText(said)
    assert logs.text_line({"log_level": LogLevel.info}) is None
    assert logs.json_line({"log_level": LogLevel.info}) is None


@pytest.mark.parametrize("form", logs.FORMATS)
@pytest.mark.parametrize(
    "url",
    [
        "/files/x?token=hunter2",
        "/files/x?a=b&access_token=hunter2&c=d",
        "https://h/b?X-Amz-Signature=hunter2&X-Amz-Credential=hunter2",
        "https://h/b?X-Amz-Security-Token=hunter2",
        "https://h/b?sv=1&sig=hunter2%3D",
        "https://h/?jwt=hunter2",
        "https://h/?X-Goog-Signature=hunter2",
        "https://h/may?key=hunter2",
        "https://h/may?a='hunter2&b=1;hunter2",
        "https://user:hunter2@h/may?a=b",
        "https://:hunter2@h@example.org/?a=b",
        "tusd+http://hunter2@h:80?a=b",
    ],
)
def test_what_may_be_a_secret_in_a_url_is_blotted_out(form: str, url: str) -> None:
    def write(log: Logger) -> None:
        log.info("asked for {url}", url=url)
        log.failure("failed at {url}", Failure(RuntimeError(url)), url=url)

    said = "\n".join(lines(write, form))
    assert "hunter2" not in said and "=..." in said


@pytest.mark.parametrize(
    ("level", "seen"),
    [("debug", "debug info warn error"), ("info", "info warn error"), ("warn", "warn error"), ("error", "error")],
)
def test_what_is_below_the_level_is_not_written(level: str, seen: str) -> None:
    def write(log: Logger) -> None:
        for name in ("debug", "info", "warn", "error"):
            log.emit(LogLevel.levelWithName(name), name)

    assert [json.loads(line)["message"] for line in lines(write, level=level)] == seen.split()


def test_each_line_of_a_worker_tells_its_number() -> None:
    said = {"log_format": "a", "log_level": LogLevel.info, "log_time": 0.0, "log_namespace": "n", "worker": "mine"}
    assert (logs.text_line(said, worker=2) or "").endswith("a [worker 2]\n")
    assert json.loads(logs.json_line(said, worker=2) or "")["worker"] == 2
    failed = {**said, "log_failure": Failure(RuntimeError("bad"))}
    assert (logs.text_line(failed, worker=2) or "").splitlines()[0].endswith("a [worker 2]")


# Where it goes


@pytest.fixture
def sigusr1(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The signal is free, as in a new process; log files are closed after the test."""
    files: list[LogFile] = []

    class Kept(LogFile):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            files.append(self)

    monkeypatch.setattr(logs, "LogFile", Kept)
    was = signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGUSR1, was)
    for file in files:
        file.close()


def beside(twistd: dict[str, Any], form: str, reactor: Any) -> ILogObserver:
    """What writes where twistd with these options would."""
    file = logs.output(twistd, reactor)
    assert file is not None
    return logs.observer(form, "info", file)


def test_in_the_foreground_it_goes_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    for twistd in ({"nodaemon": True}, {"nodaemon": True, "logfile": "-"}):
        found = beside(twistd, "json", Clock())
        assert verifyObject(ILogObserver, found)
        Logger("n", observer=found).info("hello")
        assert json.loads(capsys.readouterr().out)["message"] == "hello"


def test_a_log_file_is_written_and_rotated_at_sigusr1(tmp_path: Path, sigusr1: None) -> None:
    path = tmp_path / "x.log"

    class Reactor:
        @staticmethod
        def callFromThread(call: Any) -> None:
            call()

    found = beside({"logfile": str(path)}, "json", Reactor())
    Logger("n", observer=found).info("before")
    handler: Any = signal.getsignal(signal.SIGUSR1)
    handler(signal.SIGUSR1, None)
    Logger("n", observer=found).info("after")
    assert json.loads(path.read_text())["message"] == "after"
    assert json.loads((tmp_path / "x.log.1").read_text())["message"] == "before"


def test_a_daemon_without_a_log_file_has_twistds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sigusr1: None
) -> None:
    monkeypatch.chdir(tmp_path)
    Logger("n", observer=beside({}, "text", Clock())).info("hello")
    assert "hello" in (tmp_path / "twistd.log").read_text()


@pytest.mark.parametrize(
    "twistd", [{"logger": object(), "nodaemon": True}, {"syslog": True, "nodaemon": True}, {"logfile": "-"}]
)
def test_what_only_twistd_can_is_left_to_twistd(twistd: dict[str, Any]) -> None:
    assert logs.output(twistd, Clock()) is None
