"""The command lines of `resumable put` and `resumable get`: what they mean, and what is refused in one line."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest

from resumable import client
from resumable.cli import entry, get, put
from resumable.cli.main import OWN
from resumable.cli.transfer_options import client_options, header, rate, retry_time
from resumable.cli.windows import DayWindow

URL = "https://up.example/files/"


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, command: Any = put, **environ: str) -> str:
    """What is said of a command line that makes no sense."""
    with pytest.raises(SystemExit) as ended:
        command.main(arguments, environ)
    out, said = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert said.count("\n") == 1 and said.endswith(f"; see resumable {command.__name__[14:]} --help\n")
    return said.partition(": ")[2].partition("; see ")[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give a file and a URL"),
        (("film.mp4",), "the URL is missing: the last argument is where uploads are created, like "),
        (("a", "b"), "the URL is missing: the last argument is where uploads are created, like "),
        ((URL,), "the file is missing: give it before the URL"),
        (("a", "ftp://up.example/"), "ftp://up.example/: expected a URL like https://up.example/files/"),
        (("a", "http://up.example:99999/"), "http://up.example:99999/: expected a URL like "),
        ((URL, "b", URL), f"{URL}: there is one URL, the last argument"),
        (("-", "-", URL), "- is given twice: standard input can be read once"),
        (("a", "b", URL, "--name", "c"), "--name is for a single file, or for -"),
        (("a", URL, "--jobs", "0"), "argument -j/--jobs: '0': expected a number from 1 to 64"),
        (("a", URL, "--only-at", "22"), "argument --only-at: '22': expected a window of the day like 22:00-06:00"),
        (("a", URL, "--limit-rate", "0"), "argument --limit-rate: '0': expected bytes per second, like 512K or 10M"),
        (("a", URL, "--meta", "x"), "argument --meta: 'x': expected metadata like project=7; the name has no blank"),
        (("a", URL, "--header", "x secret"), "argument -H/--header: expected a field like 'X-Project: 7'"),
        (("a", URL, "--protocol", "ftp"), "argument --protocol: invalid choice: 'ftp'"),
        (("a", URL, "--no-such\x1b"), "unrecognized arguments: --no-such?"),
        (("--jbos", "3", "a", URL), "unrecognized arguments: --jbos: did you mean --jobs?"),
        (("a", URL, "--retyr-for=0"), "unrecognized arguments: --retyr-for=0: did you mean --retry-for?"),
        (("--list", "a"), "--list, --forget and --remove stand alone"),
        (("--list", "--remove", "a"), "--list, --forget and --remove stand alone"),
        (("a", URL, "--token-file", "/no/such"), "--token-file /no/such: No such file or directory"),
        (("a", URL, "--ca-file", "/no/such"), "--ca-file /no/such: No such file or directory"),
    ],
)
def test_a_line_of_put_that_makes_no_sense_says_what_would(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert refused(capsys, *arguments).startswith(said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "the following arguments are required: URL"),
        (("film.mp4",), "argument URL: 'film.mp4': expected a URL like https://up.example/files/"),
        ((URL, URL, "-o", "one-file"), "--output is a directory, if there are several URLs"),
        ((URL, "-o", "-", "--json"), "--json takes another --output than standard output"),
    ],
)
def test_a_line_of_get_that_makes_no_sense_says_what_would(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert refused(capsys, *arguments, command=get) == said


@pytest.mark.parametrize("content", ["", "two words", "\x1b[31m", "a\nb", "\xe4"])
def test_a_token_is_one_line_without_blanks_and_is_never_repeated(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str
) -> None:
    path = tmp_path / "token"
    path.write_text(content, encoding="utf-8")
    said = refused(capsys, "a", URL, "--token-file", str(path))
    assert said == f"--token-file {path}: expected one line with a token"
    if content:
        assert refused(capsys, "a", URL, RESUMABLE_TOKEN=content) == "RESUMABLE_TOKEN: expected a token, without blanks"


def test_a_password_in_a_field_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    assert "secret" not in refused(capsys, "a", URL, "-H", "secret")


def options(*arguments: str, **environ: str) -> client.ClientOptions:
    parser = put.parser()
    return client_options(parser, parser.parse_intermixed_args([*arguments, "a", URL]), environ)


def test_what_the_library_is_told(tmp_path: Path) -> None:
    told = options(
        "--retry-for", "3d", "-H", "X-A: 1", "--header", "X-B:2", "--limit-rate", "10M", RESUMABLE_TOKEN="abc"
    )
    assert (told.retry_for, told.headers, told.limit_rate) == (3 * 86400, {"X-A": "1", "X-B": "2"}, 10 << 20)
    assert (told.token, told.may_send) == ("abc", None)
    path = tmp_path / "token"
    path.write_text("xyz\n")
    assert options("--token-file", str(path), RESUMABLE_TOKEN="abc").token == path, "it is read at each request"
    gate = options("--only-at", "00:00-24:00").may_send
    assert gate is not None and gate() == 0


def test_options_may_stand_anywhere() -> None:
    given = put.parser().parse_intermixed_args(["a", "--jobs", "2", "-", "--only-at", "1:00-2:00", URL])
    assert (given.what, given.jobs, given.only_at) == (["a", "-", URL], 2, [DayWindow(60, 120)])


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--", "-x.txt"], ["./-x.txt"]),
        (["a", "--jobs", "2", "--", "b", "--jobs", "-"], ["a", "b", "./--jobs", "-"]),
    ],
)
def test_names_after_two_dashes_may_begin_with_one(
    arguments: list[str], names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put_of: list[list[str]] = []
    monkeypatch.setattr(put, "_put", lambda it, given, environ: put_of.append(given.what) or 0)
    assert put.main([*arguments, URL], {}) == 0
    assert put_of == [names]


def test_values() -> None:
    assert retry_time("forever") == math.inf and retry_time("3d") == 3 * 86400
    assert header("Cookie: a=b; c") == ("Cookie", "a=b; c")
    assert rate("10M/s") == 10 << 20


def test_put_and_get_are_commands_that_need_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(entry.AT_ONCE) <= OWN.keys()
    for name in entry.AT_ONCE:
        assert OWN[name].module == name
        with pytest.raises(SystemExit) as ended:
            entry.main([name, "--help"])
        assert ended.value.code == 0


@pytest.mark.process
@pytest.mark.parametrize("name", entry.AT_ONCE)
def test_help_starts_without_the_server_and_without_bars(name: str) -> None:
    import subprocess

    code = f"""
import sys
from resumable.cli import entry
try:
    entry.main([{name!r}, "--help"])
except SystemExit:
    pass
loaded = {{each.partition(".")[0] for each in sys.modules}}
print(sorted(loaded & {{"twisted", "klein", "rich", "botocore", "resumable"}}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.splitlines()[-1] == "['resumable']"
