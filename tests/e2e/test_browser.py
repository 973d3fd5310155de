"""A page of another origin uploads with tus-js-client and Uppy in Chromium, with the server as it is by default.

The page and its scenarios are in browser/scenarios.mjs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from . import tools
from .asked import Asked
from .daemon import ROOT, Daemon
from .tus import Tus, pattern

pytestmark = pytest.mark.slow

BROWSER = tools.HERE / "browser"
FLAGS = ("--max-size", "2M")
STRICT = ("--cors-origin", "http://127.0.0.1:*", "--cors-credentials", "--auth-forward-header", "cookie")
SOURCE = "naïve 文件 🎈.bin"
DATA = {
    SOURCE: pattern(550_001, seed=31),
    "one.bin": pattern(1_500_000, seed=32),
    "two.bin": pattern(1_400_000, seed=33),
    "three.bin": pattern(900_000, seed=34),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with the files that are uploaded."""
    path = tmp_path_factory.mktemp("browser")
    for name, data in DATA.items():
        (path / name).write_bytes(data)
    return path


@pytest.fixture(scope="module")
def outcomes(daemon: Daemon, home: Path) -> Iterator[dict[str, dict[str, Any]]]:
    """What came of each scenario; the browser is started once for all."""
    browser, node = tools.chromium(), tools.need("node")
    tools.install_npm("playwright-core, tus-js-client and uppy", BROWSER)
    guide, example = ROOT / "docs" / "browsers.md", ROOT / "examples" / "browser.html"
    with Asked(in_session) as sessions, Daemon(*STRICT, "--auth-forward", sessions.url) as strict:
        strict.start()
        places = [daemon.url, strict.url, str(example), str(guide), str(home)]
        out = tools.run(node, "scenarios.mjs", browser, *places, cwd=BROWSER)
        played = [json.loads(line) for line in out.splitlines()]
        found = {each.pop("scenario"): each for each in played}
        cookie = {"Cookie": "session=opensesame"}
        tus = strict.attach(Tus(strict.port))
        for url in found["cookies"].get("urls", ()):
            found["cookies"].setdefault("offsets", []).append(tus.head(urlsplit(url).path, cookie).offset)
        assert not strict.complaints(), strict.complaints()
        yield found


def in_session(fields: Mapping[str, str]) -> tuple[int, dict[str, str], bytes]:
    """Whoever has the cookie is Ann."""
    return (200, {"Remote-User": "ann"}, b"") if fields.get("cookie") == "session=opensesame" else (401, {}, b"")


def succeeded(outcomes: dict[str, dict[str, Any]], scenario: str) -> dict[str, Any]:
    assert "error" not in outcomes[scenario], outcomes[scenario]
    return outcomes[scenario]


def test_a_file_with_a_name_beyond_ascii_arrives_in_chunks(outcomes: Any, tus: Tus) -> None:
    it = succeeded(outcomes, "chunked")
    path = urlsplit(it["url"]).path
    assert tus.content(path) == DATA[SOURCE]
    assert "filename bmHDr3ZlIOaWh+S7tiDwn46ILmJpbg==" in tus.head(path)["upload-metadata"]
    assert it["methods"] == ["POST"] + ["PATCH"] * 6


@pytest.mark.parametrize("scenario", ["parallel", "deferred"])
def test_parallel_parts_and_a_stream_of_unknown_length_arrive(outcomes: Any, tus: Tus, scenario: str) -> None:
    it = succeeded(outcomes, scenario)
    assert tus.content(urlsplit(it["url"]).path) == DATA[SOURCE]
    assert it["methods"].count("POST") == (3 if scenario == "parallel" else 1)


def test_an_aborted_upload_goes_on_where_it_was(outcomes: Any, tus: Tus) -> None:
    it = succeeded(outcomes, "resumed")
    assert it["methods"] == ["HEAD", "PATCH"]
    assert tus.content(urlsplit(it["url"]).path) == DATA[SOURCE]


@pytest.mark.parametrize("draft", ["ietf-draft-03", "ietf-draft-05"])
def test_the_draft_in_chunks_and_in_one_request(outcomes: Any, tus: Tus, draft: str) -> None:
    for scenario, methods in (("chunked", ["POST"] + ["PATCH"] * 6), ("with_creation", ["POST"])):
        it = succeeded(outcomes, f"{draft}_{scenario}")
        assert it["methods"] == methods
        assert tus.content(urlsplit(it["url"]).path) == DATA[SOURCE]


@pytest.mark.parametrize("draft", ["ietf-draft-03", "ietf-draft-05"])
def test_an_aborted_upload_of_the_draft_goes_on_where_it_was(outcomes: Any, tus: Tus, draft: str) -> None:
    it = succeeded(outcomes, f"{draft}_resumed")
    assert it["methods"] == ["HEAD", "PATCH"]
    assert tus.content(urlsplit(it["url"]).path) == DATA[SOURCE]


@pytest.mark.parametrize("draft", ["ietf-draft-03", "ietf-draft-05"])
def test_a_stream_of_unknown_length_arrives_by_the_draft(outcomes: Any, tus: Tus, draft: str) -> None:
    """Its last request is empty and doesn't say Upload-Complete: before draft 06 that means that the upload ends."""
    it = succeeded(outcomes, f"{draft}_deferred")
    assert tus.content(urlsplit(it["url"]).path) == DATA[SOURCE]


@pytest.mark.parametrize("draft", ["ietf-draft-03", "ietf-draft-05"])
def test_the_page_can_read_why_the_draft_was_refused(outcomes: Any, draft: str) -> None:
    it = succeeded(outcomes, f"{draft}_refused")
    assert (it["status"], it["problem"]["status"], it["problem"]["title"]) == (413, 413, "Content Too Large")


def test_a_header_of_the_pages_own_passes_the_preflight(outcomes: Any, tus: Tus) -> None:
    it = succeeded(outcomes, "custom_header")
    assert it["sent"] >= 2, "POST and PATCH"
    assert tus.content(urlsplit(it["url"]).path) == DATA[SOURCE]


def test_the_page_can_read_why_it_was_refused(outcomes: Any) -> None:
    it = succeeded(outcomes, "refused")
    assert (it["status"], it["problem"]["status"], it["problem"]["title"]) == (413, 413, "Content Too Large")


def test_the_page_can_read_a_refusal_that_comes_before_its_body_is_sent(outcomes: Any) -> None:
    it = succeeded(outcomes, "overflowing")
    assert (it["status"], it["type"], it["problem"]["status"]) == (413, "application/problem+json", 413)


def test_a_page_whose_origin_is_not_listed_gets_nowhere(outcomes: Any) -> None:
    it = succeeded(outcomes, "other_origin")
    assert it == {"status": 0, "problem": None}


def test_a_listed_page_comes_with_its_cookies_by_the_code_of_the_docs(outcomes: Any) -> None:
    it = succeeded(outcomes, "cookies")
    assert "401" in it["without"], "the page can read that it isn't logged in"
    assert it["offsets"] == [len(DATA[SOURCE])] * 2, "tus-js-client, then Uppy"
    assert len(set(it["urls"])) == 2


def test_a_page_can_read_what_it_needs_of_answers_and_errors(outcomes: Any, daemon: Daemon) -> None:
    made, refused = succeeded(outcomes, "readable")["answers"]
    assert made["status"] == 201 and made["location"].startswith(daemon.url)
    assert (made["x-request-id"], made["tus-resumable"]) == ("from-the-page", "1.0.0")
    assert refused["status"] == 400 and refused["x-request-id"]


def test_a_link_to_a_finished_upload_saves_the_file_under_its_name(outcomes: Any, home: Path) -> None:
    it = succeeded(outcomes, "download")
    assert it["name"] == SOURCE
    assert (home / "downloaded").read_bytes() == DATA[SOURCE]
    assert it["disposition"].startswith("attachment;") and it["size"] == len(DATA[SOURCE]), "fetch may read it too"


def test_uppy_uploads_three_files_that_are_paused_and_resumed(outcomes: Any, tus: Tus) -> None:
    it = succeeded(outcomes, "uppy")
    assert it["paused"] == 3
    found = {name: tus.content(urlsplit(url).path) for name, url in it["urls"].items()}
    assert found == {name: data for name, data in DATA.items() if name != SOURCE}


def test_the_example_page_goes_on_after_a_reload_in_the_middle(outcomes: Any, tus: Tus) -> None:
    it = succeeded(outcomes, "example")
    assert it["interrupted"] == ["POST", "PATCH"]
    assert it["methods"] == ["HEAD", "PATCH"], "it went on, and not from the start"
    assert it["name"] == "one.bin"
    assert tus.content(urlsplit(it["url"]).path) == DATA["one.bin"]
