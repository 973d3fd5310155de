"""The options of what operators see: flags, variables, and values that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.logger import capturedLogs, formatEvent
from twisted.python.usage import UsageError

from resumable.config.operators import OPERATORS
from resumable.config.options import Options, Settings
from resumable.listening.endpoints import admin_socket_path, split_endpoint
from resumable.listening.run_directory import SOCKET

EXAMPLES = [
    ("admin-listen", "tcp:9090:interface=127.0.0.1", ("tcp:9090:interface=127.0.0.1",)),
    ("admin-token-file", "/etc/resumable/token", Path("/etc/resumable/token")),
    ("admin-on-public", "yes", True),
    ("ready-remotes", "required", "required"),
    ("log-format", "json", "json"),
    ("log-level", "debug", "debug"),
    ("access-log", "info", "info"),
]


def parse(*flags: str, **environ: str) -> Settings:
    options = Options(environ)
    options.parseOptions(list(flags))
    return options.settings()


def test_every_option_has_an_example_above() -> None:
    assert [flag for flag, *_ in EXAMPLES] == [option.flag for option in OPERATORS]


@pytest.mark.parametrize(("flag", "text", "value"), EXAMPLES)
def test_flags_and_variables_set_the_same_field(flag: str, text: str, value: object) -> None:
    field = flag.replace("-", "_")
    given = [f"--{flag}"] if value is True else [f"--{flag}", text]
    assert getattr(parse(*given), field) == value
    assert getattr(parse(**{f"RESUMABLE_{field.upper()}": text}), field) == value


def test_operators_are_answered_in_the_upload_directory_where_nothing_else_is_said(tmp_path: Path) -> None:
    socket = f"unix:address={tmp_path}/.resumable/admin.sock:mode=600:lockfile=0"
    assert parse("--upload-dir", str(tmp_path)).admin_listen == (socket,)
    assert str(admin_socket_path(tmp_path)) in socket
    beside = parse("--upload-dir", str(tmp_path), "--admin-listen", "tcp:1", "--admin-listen", "socket")
    assert beside.admin_listen == ("tcp:1", socket)


def test_operators_can_be_left_out() -> None:
    assert parse("--admin-listen", "none").admin_listen == ()
    assert parse(RESUMABLE_ADMIN_LISTEN="none").admin_listen == ()


def test_an_upload_directory_with_any_name_has_a_socket(tmp_path: Path) -> None:
    place = tmp_path / "a:b\\c=d é"
    (place / ".resumable").mkdir(parents=True)
    (description,) = parse("--upload-dir", str(place)).admin_listen
    assert split_endpoint(description) == (
        "unix",
        [],
        {"address": str(admin_socket_path(place)), "mode": "600", "lockfile": "0"},
    )


def test_an_upload_directory_too_deep_for_a_socket_goes_without_one_and_says_so() -> None:
    deep = "/" + "é" * 50
    with capturedLogs() as logged:
        assert parse("--upload-dir", deep).admin_listen == ()
    (warning,) = map(formatEvent, logged)
    assert "too long for a socket" in warning and warning.endswith("give another with --admin-listen")
    with capturedLogs() as logged:
        assert parse("--upload-dir", deep, "--admin-listen", "none").admin_listen == ()
    assert not logged


def test_a_socket_that_was_asked_for_is_there_or_nothing_starts() -> None:
    deep = "/" + "é" * 50
    with pytest.raises(UsageError, match=r"too long for a socket.*--admin-listen, or none"):
        parse("--upload-dir", deep, "--admin-listen", "socket")
    with pytest.raises(UsageError, match=r"too long for a socket.*--admin-listen, or none"):
        parse("--upload-dir", deep, RESUMABLE_ADMIN_LISTEN="socket")


def test_several_listeners() -> None:
    wanted = ("tcp:1", "unix:/tmp/s:mode=600")
    assert parse("--admin-listen", "tcp:1", "--admin-listen", "unix:/tmp/s").admin_listen == wanted
    assert parse(RESUMABLE_ADMIN_LISTEN="tcp:1  unix:/tmp/s").admin_listen == wanted


@pytest.mark.parametrize(
    "flags",
    [
        ["--admin-listen", "9090"],
        ["--admin-listen", "none", "--admin-listen", "tcp:1"],
        ["--admin-listen", "Socket"],
        ["--ready-remotes", "some"],
        ["--log-format", "xml"],
        ["--log-level", "loud"],
        ["--access-log", "yes"],
    ],
)
def test_anything_else_is_refused(flags: list[str]) -> None:
    with pytest.raises(UsageError, match=flags[0]):
        parse(*flags)


def test_the_admin_api_and_uploads_have_paths_of_their_own() -> None:
    with pytest.raises(UsageError, match=r"--admin-on-public.*--base-path"):
        parse("--admin-on-public", "--base-path", "/admin/files/")
    assert parse("--admin-on-public", "--base-path", "/administration/").admin_on_public


def test_a_daemon_that_shares_its_upload_directory_has_its_socket_in_the_run_directory(tmp_path: Path) -> None:
    """Which isn't made before the start."""
    shared = ("--upload-dir", str(tmp_path), "--catalog", "postgresql://h/d")
    assert parse(*shared).admin_listen == (SOCKET,)
    assert parse(*shared, "--admin-listen", "unix:/s", "--admin-listen", "socket").admin_listen == (
        "unix:/s:mode=600",
        SOCKET,
    )
    deep = str(tmp_path / ("d" * 120))
    assert parse("--upload-dir", deep, "--catalog", "postgresql://h/d").admin_listen == (SOCKET,)
