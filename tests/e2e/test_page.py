"""People use the upload page in a real Chromium: cuts, reloads, a killed browser, proxies, keyboard, screen readers.

What they do is in browser/page.mjs, the way that is cut in browser/way.mjs.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from . import tools
from .daemon import Daemon
from .tus import Tus, pattern

pytestmark = pytest.mark.slow

BROWSER = tools.HERE / "browser"
TOKEN = "a-token-of-the-test-suite"
FILM = pattern(2_500_001, seed=51)
LARGE = 70_000_000
NOTES = b"some notes\n"
LONG = f"{'a very long name ' * 8}.bin"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with the files that are uploaded."""
    path = tmp_path_factory.mktemp("page")
    for folder in ("other", "touched", "folder/deep", "remote"):
        (path / folder).mkdir(parents=True)
    (path / "film.mp4").write_bytes(FILM)
    (path / "touched/film.mp4").write_bytes(FILM)
    (path / "other/film.mp4").write_bytes(pattern(len(FILM), seed=52))
    times = (path / "film.mp4").stat()
    os.utime(path / "other/film.mp4", ns=(times.st_atime_ns, times.st_mtime_ns))
    os.utime(path / "touched/film.mp4", (times.st_atime + 60, times.st_mtime + 60))
    (path / "notes.txt").write_bytes(NOTES)
    (path / LONG).write_bytes(pattern(2_000_000, seed=53))
    (path / "folder/top.txt").write_bytes(b"top")
    (path / "folder/deep/inner.txt").write_bytes(b"inner")
    with (path / "large.bin").open("wb") as large:
        large.write(FILM)
        large.truncate(LARGE)
    with (path / "larger.bin").open("wb") as larger:
        larger.truncate(LARGE + 1)
    return path


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Daemon]:
    """A server with a remote, as it is on this machine by default."""
    with Daemon("--remote", f"file://{home}/remote", "--digest", "sha256") as it:
        it.start()
        yield it
        assert not it.complaints(), it.complaints()


@pytest.fixture(scope="module")
def outcomes(server: Daemon, home: Path) -> Iterator[dict[str, dict[str, Any]]]:
    """What came of each scenario."""
    browser, node = tools.chromium(), tools.need("node")
    tools.install_npm("playwright-core and axe-core", BROWSER)
    tokens = home / "tokens"
    tokens.write_text(f"{TOKEN} ann\n")
    tokens.chmod(0o600)
    with Daemon("--auth-tokens", str(tokens)) as guarded:
        guarded.start()
        out = tools.run(node, "page.mjs", browser, server.origin, guarded.origin, TOKEN, str(home), cwd=BROWSER)
        yield {each.pop("scenario"): each for each in map(json.loads, out.splitlines())}


@pytest.fixture
def tus(server: Daemon) -> Iterator[Tus]:
    client = server.attach(Tus(server.port))
    yield client
    client.close()


def played(outcomes: dict[str, dict[str, Any]], scenario: str) -> dict[str, Any]:
    """The scenario's outcome; the browser had nothing to complain of, its policy for the page's content included."""
    it = outcomes[scenario]
    assert "error" not in it, "\n".join([it["error"], it["shown"]])
    assert it["faults"] == []
    return it


def plain(text: str) -> str:
    """With spaces in place of those at which no line may end."""
    return text.replace("\u00a0", " ")


def content(tus: Tus, url: str) -> bytes:
    return tus.content(urlsplit(url).path)


def test_files_are_sent_and_stored_with_a_receipt_of_the_servers_digest(outcomes: Any, tus: Tus) -> None:
    it = played(outcomes, "sent")
    assert urlsplit(it["at"]).path == "/files/", "the root leads there"
    assert [content(tus, url) for url in it["urls"]] == [FILM, NOTES]
    assert plain(it["line"]).startswith("Stored · 2.5 MB · ")
    digest = hashlib.sha256(FILM).hexdigest()
    assert it["facts"][:3] == ["film.mp4", "2,500,001 bytes", digest]
    assert it["copied"] == it["urls"][0]
    assert digest in it["receipt"] and it["urls"][0] in it["receipt"]


def test_the_list_of_what_was_sent_outlives_a_reload_and_can_be_cleared(outcomes: Any) -> None:
    assert played(outcomes, "sent")["kept"] == 2


def test_a_folder_is_sent_with_the_paths_of_its_files(outcomes: Any, tus: Tus) -> None:
    it = played(outcomes, "folder")
    assert it["names"] == ["folder/deep/inner.txt", "folder/top.txt"]
    assert content(tus, it["url"]) == b"inner"


def test_what_is_dropped_is_sent(outcomes: Any, tus: Tus) -> None:
    it = played(outcomes, "dropped")
    assert it["over"] == 1
    assert content(tus, it["url"]) == b"dropped"


def test_it_goes_on_by_itself_at_the_same_byte_when_the_network_is_back(outcomes: Any, tus: Tus) -> None:
    it = played(outcomes, "cut")
    assert "goes on by itself" in it["said"]
    assert it["offsets"][0] == 0 and 0 < it["offsets"][-1] < len(FILM)
    assert content(tus, it["url"]) == FILM


def test_after_a_reload_the_file_is_chosen_again_and_goes_on(outcomes: Any, tus: Tus) -> None:
    it = played(outcomes, "reloaded")
    assert it["warnings"] == ["beforeunload"], "it asked before it let go"
    assert "has arrived. Choose it again" in plain(it["line"])
    assert it["offsets"][0] == 0 and 0 < it["offsets"][-1] < len(FILM)
    assert content(tus, it["url"]) == FILM


def test_another_file_is_refused_with_the_difference_in_words(outcomes: Any) -> None:
    it = played(outcomes, "reloaded")
    name, other, touched = it["refusals"]
    assert "it is called notes.txt" in name
    assert "its content is different" in other
    assert "was changed on" in touched
    assert it["untouched"] == 1, "no byte of them was sent"


def test_after_the_browser_was_killed_the_same_file_goes_on_at_the_same_byte(outcomes: Any, tus: Tus) -> None:
    it = played(outcomes, "killed")
    assert "has arrived. Choose it again" in plain(it["line"])
    assert it["made"] == 1, "it is the same upload"
    assert it["offsets"][0] == 0 and 0 < it["offsets"][-1] < len(FILM)
    assert content(tus, it["url"]) == FILM


@pytest.mark.parametrize("scenario", ["streamed", "polled"])
def test_the_server_tells_how_far_it_is_in_both_tiers(outcomes: Any, tus: Tus, scenario: str) -> None:
    it = played(outcomes, scenario)
    assert plain(it["figure"]) in ("39%", "39 %")
    streams = [accept for accept in it["asked"] if accept == "text/event-stream"]
    assert bool(streams) is (scenario == "streamed")
    assert len(it["asked"]) < 20, "it doesn't ask all the time"
    assert content(tus, it["url"]) == FILM


def test_pieces_get_smaller_when_a_proxy_refuses_large_ones(outcomes: Any, tus: Tus) -> None:
    it = played(outcomes, "limited")
    assert it["made"] == 1
    assert it["lengths"][0] == len(FILM) and it["lengths"][-1] <= 400_000
    assert content(tus, it["url"]) == FILM


def test_words_of_programs_on_the_way_are_not_taken_for_the_servers(outcomes: Any) -> None:
    """A refused size without a problem document makes the pieces smaller; any document is survived."""
    assert played(outcomes, "misunderstood")["said"] == "The server refuses it: HTTP 422."


def test_a_404_that_is_not_the_servers_ends_nothing_that_has_arrived(outcomes: Any, tus: Tus) -> None:
    it = played(outcomes, "astray")
    assert it["made"] == 1 and it["offsets"][-1] > 0
    assert content(tus, it["url"]) == FILM


def test_a_status_that_is_cut_off_is_asked_for_again(outcomes: Any) -> None:
    assert played(outcomes, "torn")["left"] == 0


def test_an_upload_is_called_stored_only_once_the_server_has_said_so(outcomes: Any) -> None:
    it = played(outcomes, "untold")
    assert plain(it["unknown"]).startswith("Received · ") and plain(it["known"]).startswith("Stored · ")


def test_a_connection_that_is_dead_is_left_though_the_server_answers_others(outcomes: Any, tus: Tus) -> None:
    it = played(outcomes, "still")
    assert len(it["offsets"]) == 2 and it["offsets"][1] > 0
    assert content(tus, it["url"]) == FILM


def test_the_total_is_that_of_all_files_that_were_begun_together(outcomes: Any) -> None:
    it = played(outcomes, "total")
    assert it["shown"] and plain(it["line"]).startswith("1 file · ") and "of 4.5 MB" in plain(it["line"])
    assert it["title"].startswith("66%")


def test_all_parts_of_all_files_leave_connections_for_the_rest(outcomes: Any) -> None:
    assert played(outcomes, "crowded")["most"] == 3


def test_a_refusal_is_told_in_the_servers_words_and_can_be_tried_again(outcomes: Any, tus: Tus) -> None:
    it = played(outcomes, "refused")
    assert "(Your quota is used up)" in it["denied"] and "Ask the operator" in it["denied"]
    assert "no space left" in it["full"] and "goes on by itself" in it["full"]
    assert content(tus, it["url"]) == NOTES


def test_parallel_parts_go_on_where_they_were(outcomes: Any, tus: Tus, home: Path) -> None:
    it = played(outcomes, "parallel")
    assert it["parts"] == 3 and it["posts"] == 4, "three parts, and the whole"
    assert any(it["offsets"]), "not from the start"
    assert content(tus, it["url"]) == (home / "large.bin").read_bytes()


def test_one_is_resumed_after_a_pause_and_the_removed_one_is_deleted(outcomes: Any, tus: Tus) -> None:
    it = played(outcomes, "paused")
    assert content(tus, it["kept"]) == FILM
    (deleted,) = it["deleted"]
    assert deleted in it["addresses"]
    assert tus.ask("HEAD", deleted).status in (404, 410)


def test_another_tab_doesnt_offer_what_one_is_sending(outcomes: Any) -> None:
    assert played(outcomes, "tabs")["names"] == ["notes.txt"]


def test_a_token_is_asked_for_where_the_server_wants_one(outcomes: Any) -> None:
    assert played(outcomes, "token")["hidden"]


def test_a_keyboard_is_enough(outcomes: Any, tus: Tus) -> None:
    it = played(outcomes, "keyboard")
    assert it["order"] == ["Choose files", "Choose a folder", "Pause all", "Remove all", "Pause: film.mp4"]
    assert it["afterPause"] == "Resume: film.mp4", "the focus stays where it was"
    assert content(tus, it["url"]) == FILM


def test_on_a_narrow_phone_nothing_is_wider_than_the_screen(outcomes: Any) -> None:
    assert max(played(outcomes, "narrow")["widths"]) <= 360


def test_it_speaks_the_browsers_language_or_the_chosen_one(outcomes: Any) -> None:
    it = played(outcomes, "german")
    assert it["german"] == ["de", "Dateien hochladen", "Dateien hochladen"]
    assert it["english"] == it["remembered"] == ["en", "Upload files", "Upload files"]


def test_it_works_behind_a_proxy_that_takes_off_a_prefix_and_doesnt_say_so(outcomes: Any) -> None:
    it = played(outcomes, "prefixed")
    assert urlsplit(it["at"]).path == "/a/prefix/files/"
    assert urlsplit(it["url"]).path.startswith("/a/prefix/files/")
    assert it["content"].encode() == NOTES


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_any_state(outcomes: Any, scheme: str) -> None:
    assert played(outcomes, scheme)["found"] == []
