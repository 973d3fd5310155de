"""The command line of ``resumable doctor``, as far as it goes without looking at anything."""

from __future__ import annotations

import io
import os
import re
import socket
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from resumable.cli import checkup
from resumable.cli.checkup import PublicUrl, Report
from resumable.cli.main import main
from resumable.doctor import (
    access_rules,
    bucket,
    daemon,
    database,
    directory,
    hook_targets,
    interim,
    machine,
    outside,
    proxy,
    records,
    shared_directory,
    syncs,
)
from resumable.doctor.findings import Finding
from resumable.listening.run_directory import RunDirectory
from tests.parsing import parse


@pytest.mark.parametrize(
    "arguments",
    [
        ["--bogus"],
        ["extra"],
        ["--upload-dir"],
        ["--url", "example.org"],
        ["--url", "https://[/"],
        ["--url", "http://h:99999/"],
        ["--url", "https://ex\u00e4mple.org/"],
        ["--origin", "https://a b"],
        ["--header", "no colon"],
        ["--header", "Two words: x"],
        ["--header", "X: a\nb"],
    ],
)
def test_a_command_line_that_makes_no_sense_is_one_line_and_status_2(arguments, capsys):
    assert main(["doctor", *arguments]) == 2
    out, said = capsys.readouterr()
    assert out == ""
    assert said.startswith("resumable doctor: ") and said.endswith("see resumable doctor --help\n")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "environ"),
    [
        (["--max-size", "many"], {}),
        ([], {"RESUMABLE_MAX_SIZE": "many"}),
        ([], {"RESUMABLE_MAXSIZE": "1K"}),
        (["--ack", "remote"], {}),
    ],
)
def test_what_the_daemon_would_refuse_is_a_finding(arguments, environ, capsys):
    assert checkup.main(arguments, environ) == 1
    out, said = capsys.readouterr()
    assert out.startswith("bad   options ") and said == ""


@pytest.mark.parametrize("flag", ["--url", "--origin"])
def test_a_password_in_a_url_is_refused_and_not_repeated(flag, capsys):
    assert checkup.main([flag, "https://ann:hunter2@h/files/"], {}) == 2
    out, said = capsys.readouterr()
    assert "hunter2" not in out + said and "--header" in said


@pytest.mark.parametrize("as_json", [True, False])
def test_no_secret_of_a_url_is_reported(as_json):
    out = io.StringIO()
    report = Report(out, as_json, 100)
    url = "https://h/files/?key=hunter2"
    report.tell(Finding("public URL", "bad", f"{url} doesn't answer", f"Ask {url}, or http://ann:hunter2@h/."))
    assert "hunter2" not in out.getvalue() and "https://h/files/?key=..." in out.getvalue()


def test_every_check_is_in_the_docs():
    page = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text()
    modules = (bucket, daemon, database, directory, interim, outside, records, shared_directory, syncs)
    names = {each.NAME for each in modules} | {
        bucket.SCRATCH,
        daemon.OPTIONS,
        daemon.PORTS,
        access_rules.NAME,
        hook_targets.NAME,
        database.WORKERS,
        directory.LOCKS,
        directory.PERMISSIONS,
        machine.CLOCK,
        machine.SPACE,
        outside.PAGES,
        proxy.METADATA,
        proxy.BUFFERING,
        proxy.LIMIT,
        proxy.LOCATION,
        proxy.DELETE,
        records.FILES,
    }
    names |= {each.name for each in machine.judge(machine.look())} | {"certificate", "remote NAME"}
    names |= {"hook NAME", "guard NAME"}
    names |= {access_rules.TOKENS, access_rules.SIGNED, access_rules.PASSWORDS, access_rules.CERTIFICATES}
    names |= {access_rules.KEY, access_rules.SECRET, access_rules.ISSUER, access_rules.DECIDER}
    assert set(re.findall(r"^\| `([^-`][^`]*)` \|", page, re.MULTILINE)) == names


def test_help_names_the_flags_of_the_daemon_and_its_own(capsys):
    with pytest.raises(SystemExit) as end:
        main(["doctor", "--help"])
    assert not end.value.code
    said = capsys.readouterr().out
    for word in ("resumable doctor", "--url URL", "--origin ORIGIN", "--json", "--upload-dir PATH", "--help-all"):
        assert word in said


def test_what_is_asked_from_outside_is_the_public_url_unless_another_is_given():
    options = checkup.DoctorOptions({"RESUMABLE_PUBLIC_URL": "https://example.org/up"})
    options.parseOptions([])
    assert (options.url, options.origin) == ("https://example.org/up/", None)
    options = checkup.DoctorOptions({})
    options.parseOptions(["--url", "http://h/x", "--origin", "https://web", "--header", "Authorization: Bearer x"])
    assert (options.url, options.origin) == ("http://h/x", "https://web")
    assert options.headers == {"Authorization": "Bearer x"}


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(13, "Permission denied"), "couldn't be looked at: Permission denied"),
        (ZeroDivisionError("x"), "the check itself failed: ZeroDivisionError: x"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_check_that_fails_is_told_of_as_such(error, words):
    def check() -> list[Finding]:
        raise error

    async def later() -> list[Finding]:
        raise error

    for each in (check, later):
        (found,) = await Deferred.fromCoroutine(checkup.made("clock", each))
        assert (found.name, found.level) == ("clock", "bad")
        assert words in found.what and found.advice


@pytest.mark.parametrize("kept", [("--spool", "s3://bucket/prefix"), ("--upload-dir", "/nowhere/uploads")])
def test_a_port_is_the_servers_own_while_its_run_directory_is_locked(kept, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
        flags = ("--catalog", "postgresql://db/x", *kept, "--run-dir", str(tmp_path), "--listen", listen)
        check = dict(checkup.all_checks(reactor, parse(*flags), PublicUrl(None, None, {})))["ports"]
        here = RunDirectory(tmp_path)
        (found,) = check()
        assert found.level == "skip" and "a daemon has them" in found.what
        os.close(here.descriptor)
        (found,) = check()
        assert found.level == "bad" and "the port is in use" in found.what
