"""The dashboard in Chromium, through ``resumable dashboard`` and at a TCP port with a token."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from . import tools
from .busy_daemon import TOKEN, BusyDaemon
from .daemon import BOUND, environment, eventually

pytestmark = pytest.mark.slow


def dashboard(daemon: BusyDaemon) -> subprocess.Popen[str]:
    """The command, for this daemon."""
    command = [sys.executable, "-m", "resumable", "dashboard", "--no-browser", "--upload-dir", str(daemon.upload_dir)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(), cwd=daemon.home, text=True)


@contextmanager
def relay(daemon: BusyDaemon) -> Iterator[str]:
    """The address that the command prints."""
    process = dashboard(daemon)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate(timeout=BOUND)


@pytest.fixture(scope="module")
def seen() -> Iterator[dict[str, dict[str, Any]]]:
    """What came of each scenario."""
    browser, node = tools.chromium(), tools.need("node")
    tools.install_npm("playwright-core and axe-core", tools.HERE / "browser")
    with BusyDaemon() as daemon:
        if daemon.shares:
            pytest.skip("its admin socket is elsewhere")
        daemon.start()
        for name in ("garden.jpg", "taken.mov"):
            daemon.whole(name, 3_000_000)
        daemon.begun("begun.zip", 80_000_000, 22_000_000)
        daemon.moving("moving.bin", 4_000_000_000, 1_000_000, 40_000_000)
        with relay(daemon) as once:
            arguments = (browser, once, daemon.admin, TOKEN, json.dumps(daemon.ids))
            out = tools.run(node, "dashboard.mjs", *arguments, cwd=tools.HERE / "browser")
        assert not daemon.complaints(), daemon.complaints()
        yield {each.pop("scenario"): each for each in map(json.loads, out.splitlines())}


def came_of(seen: dict[str, dict[str, Any]], scenario: str) -> dict[str, Any]:
    found = seen[scenario]
    assert "error" not in found, found
    return found


def test_the_command_s_address_shows_all_uploads_live(seen: dict[str, dict[str, Any]]) -> None:
    found = came_of(seen, "relayed")
    assert set(found["names"]) == {"garden.jpg", "taken.mov", "begun.zip", "moving.bin"}
    assert found["errors"] == [] and found["charts"] == 4 and found["ready"] == "ready"
    assert "token" not in found["address"]


def test_the_cookie_is_out_of_reach_for_scripts(seen: dict[str, dict[str, Any]]) -> None:
    found = came_of(seen, "relayed")
    ((cookie),) = found["cookie"]
    assert found["script"] == "" and cookie["httpOnly"] and cookie["sameSite"] == "Strict" and cookie["path"] != "/"


def test_the_address_opens_in_one_browser_only(seen: dict[str, dict[str, Any]]) -> None:
    assert came_of(seen, "second browser")["status"] == 403


def test_filters_and_search_find_uploads(seen: dict[str, dict[str, Any]]) -> None:
    found = came_of(seen, "filters")
    assert (found["shown"], found["large"]) == (["garden.jpg"], ["moving.bin"])


def test_one_upload_is_shown_in_both_tiers_and_retried_after_a_question(seen: dict[str, dict[str, Any]]) -> None:
    found = came_of(seen, "detail")
    for words in ("another file", "stored in archive", "begun with tus", "parked", "video/mp4"):
        assert words in found["text"]
    assert found["asked"] and found["closed"] and found["violations"] == []


@pytest.mark.parametrize("scenario", ["delete", "drain", "replay", "direct"])
def test_what_changes_something_is_asked_first_and_done_then(seen: dict[str, dict[str, Any]], scenario: str) -> None:
    assert came_of(seen, scenario).get("kept", True)


def test_it_works_in_a_browser_that_keeps_nothing(seen: dict[str, dict[str, Any]]) -> None:
    assert not any("denied" in each for each in came_of(seen, "keeps nothing")["errors"])


def test_a_page_goes_on_with_another_token(seen: dict[str, dict[str, Any]]) -> None:
    found = came_of(seen, "token again")
    assert found["opened"] and found["left"] == 0


def test_a_page_of_another_site_changes_nothing(seen: dict[str, dict[str, Any]]) -> None:
    assert came_of(seen, "foreign page")["draining"] is False


@pytest.mark.parametrize("scenario", ["light", "dark", "phone"])
def test_axe_finds_nothing_and_nothing_is_too_wide(seen: dict[str, dict[str, Any]], scenario: str) -> None:
    found = came_of(seen, scenario)
    assert found["login"] == found["violations"] == [] and found["wide"] <= 0


def test_ctrl_c_ends_the_command() -> None:
    with BusyDaemon() as daemon:
        if daemon.shares:
            pytest.skip("its admin socket is elsewhere")
        daemon.start()
        process = dashboard(daemon)
        assert process.stdout is not None and process.stdout.readline().startswith("http://127.0.0.1:")
        eventually(lambda: process.poll() is not None or _interrupted(process))
        process.communicate(timeout=BOUND)
        assert process.returncode == 130


def _interrupted(process: subprocess.Popen[str]) -> bool:
    process.send_signal(2)
    return True
