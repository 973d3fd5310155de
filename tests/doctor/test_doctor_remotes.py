"""Remotes, the daemon and the options, as they are told of."""

from __future__ import annotations

import os
import socket
from contextlib import closing

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from resumable import __version__
from resumable.config.options import Options
from resumable.doctor import daemon
from resumable.doctor.daemon import DaemonStatus
from resumable.doctor.directory import CheckedDirectory
from resumable.model.errors import StartupError
from tests.parsing import parse

HERE = CheckedDirectory("/u", "/u", True)


def settings(*flags):
    options = Options({})
    options.parseOptions(["--listen", "tcp:0", *flags])
    return options.settings()


def looked(found):
    return {each.name: (each.level, each.what, each.advice) for each in found}


@pytest_twisted.ensureDeferred
async def test_each_remote_is_tried_and_one_that_is_wrong_spoils_no_other(tmp_path):
    given = settings("--remote", "memory://far", "--remote", f"file://{tmp_path}/none?name=nas")
    found = looked(
        daemon.judge_remotes(await Deferred.fromCoroutine(daemon.look_at_remotes(reactor, given, lambda: 0.0)))
    )
    assert found["remote memory://far"] == ("ok", "works", "")
    level, _, advice = found["remote nas"]
    assert level == "bad" and "ount it" in advice and advice.endswith(".")


@pytest_twisted.ensureDeferred
async def test_a_remote_that_can_not_be_made_is_told_of(monkeypatch):
    def make(*_):
        raise StartupError("remote memory://far: it lacks a key")

    monkeypatch.setattr(daemon.tiers, "make", make)
    found = await Deferred.fromCoroutine(
        daemon.look_at_remotes(reactor, settings("--remote", "memory://far"), lambda: 0.0)
    )
    assert found == {"memory://far": "it lacks a key"}
    assert "docs/remotes.md" in looked(daemon.judge_remotes(found))["remote memory://far"][2]


def test_without_remotes_that_is_said():
    assert [each.level for each in daemon.judge_remotes({})] == ["ok"]


@pytest.mark.parametrize(
    ("found", "level", "words"),
    [
        (None, "skip", "not looked at: none has /u"),
        (DaemonStatus("unix:/s", version=__version__), "ok", f"version {__version__}"),
        (DaemonStatus("unix:/s"), "ok", "it is ready"),
        (DaemonStatus(), "warn", "no operators"),
        (DaemonStatus("unix:/s", silent="refused"), "bad", "unix:/s doesn't answer: refused"),
        (DaemonStatus("unix:/s", wrong={"disk": "full"}), "bad", "disk: full"),
        (DaemonStatus("unix:/s", version="0.0.1"), "warn", "version 0.0.1"),
    ],
)
def test_a_daemon_is_judged_by_what_it_says(found, level, words):
    (got,) = daemon.judge_daemon(HERE, found)
    assert got.level == level and words in got.what
    assert bool(got.advice) is (level != "ok")


def test_where_the_lock_is_for_others_only_nothing_is_said_of_a_daemon():
    (got,) = daemon.judge_daemon(CheckedDirectory("/u", "/u", None), None)
    assert got.level == "warn" and "can't be told" in got.what and got.advice


# The options


def test_options_that_a_daemon_would_start_with():
    assert daemon.look_at_options(lambda: None) == []
    assert daemon.judge_options([])[0].level == "ok"


def test_what_the_start_refuses_is_told_of():
    def make():
        raise StartupError("the file of tokens can't be read")

    assert daemon.look_at_options(make) == ["the file of tokens can't be read"]
    assert daemon.judge_options(["x"])[0].level == "bad"


def test_a_port_in_use_is_told_of_unless_it_is_the_daemons_own():
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        given = settings("--listen", f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1")
        (found,) = daemon.check_all_ports(given, False)
        assert found.level == "bad" and "the port is in use" in found.what
        for held in (True, None):
            (found,) = daemon.check_all_ports(given, held)
            assert found.level == "skip" and found.what.startswith("not looked at: ") and found.advice


def test_ports_that_can_be_had_are_counted():
    (found,) = daemon.check_all_ports(settings("--listen", "tcp:0:interface=127.0.0.1"), False)
    assert (found.level, found.what) == ("ok", "2 can be had")


def test_a_socket_that_a_killed_daemon_has_left_stays(tmp_path):
    path = f"{tmp_path}/s"
    with closing(socket.socket(socket.AF_UNIX)) as left:
        left.bind(path)
    (found,) = daemon.check_all_ports(parse("--listen", f"unix:{path}"), False)
    assert os.path.exists(path) and found.level == "skip"
