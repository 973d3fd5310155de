"""The files of the upload page are made of the sources that are here, are small, and load nothing from elsewhere."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "web/page"
MADE = ROOT / "resumable/http/page/assets"
MOST = 150_000


def digest() -> str:
    """The digest of all sources and the lock file, as build.mjs makes it."""
    names = ["build.mjs", "icon.svg", "index.html", "package-lock.json", "package.json", "page.css"]
    names += [f"js/{path.name}" for path in (SOURCES / "js").glob("*.js")]
    found = hashlib.sha256()
    for name in sorted(names):
        found.update(f"{name}\0".encode() + (SOURCES / name).read_bytes() + b"\0")
    return found.hexdigest()


def messages(language: str) -> dict[str, str]:
    text = (SOURCES / "js/messages.js").read_text(encoding="utf-8")
    table = text.partition(f"const {language} = {{")[2].partition("\n}")[0]
    return dict(re.findall(r"^  '?([\w.]+)'?: '(.*)',$", table, re.MULTILINE))


def test_the_script_was_made_of_these_sources() -> None:
    first = (MADE / "page.js").read_text(encoding="utf-8").partition("\n")[0]
    assert digest() in first, "the sources have changed: run make page, and commit what it makes"


def test_all_files_together_are_small() -> None:
    assert sum(path.stat().st_size for path in MADE.iterdir()) <= MOST


def test_the_licenses_of_all_libraries_in_the_script_are_kept() -> None:
    text = (MADE / "licenses.txt").read_text(encoding="utf-8")
    for name in ("tus-js-client", "js-base64", "url-parse", "querystringify", "requires-port"):
        assert f"\n{name} " in text
    assert text.count("Permission is hereby granted, free of charge") >= 4


def test_nothing_names_another_host_or_runs_text() -> None:
    for path in (MADE / "index.html", MADE / "page.css"):
        assert not re.search(r"https?://|url\(|@import", path.read_text(encoding="utf-8")), path
    script = (MADE / "page.js").read_text(encoding="utf-8")
    assert set(re.findall(r"https?://([\w.-]+)", script)) <= {"www.w3.org"}, "the name of SVG"
    assert not re.search(r"\beval\(|new Function\(|innerHTML", script)


def test_the_lock_file_names_no_host() -> None:
    lock = json.loads((SOURCES / "package-lock.json").read_text(encoding="utf-8"))
    assert lock["packages"] and "resolved" not in json.dumps(lock)


@pytest.mark.parametrize("language", ["de"])
def test_each_language_says_everything_with_the_same_values(language: str) -> None:
    english, other = messages("en"), messages(language)
    assert len(english) > 90 and english.keys() == other.keys()
    for key, text in english.items():
        assert sorted(re.findall(r"\{\w+\}", text)) == sorted(re.findall(r"\{\w+\}", other[key])), key


def test_every_message_is_used_and_every_used_one_is_there() -> None:
    code = "\n".join(
        path.read_text(encoding="utf-8") for path in (SOURCES / "js").glob("*.js") if path.name != "messages.js"
    )
    code += (SOURCES / "index.html").read_text(encoding="utf-8")
    known = {key.partition(".")[0] for key in messages("en")}
    quoted = set(re.findall(r"['\"](\w+)['\"]", code))
    assert known <= quoted | STATES, sorted(known - quoted - STATES)
    asked = set(re.findall(r"\bt\('(\w+)'", code)) | set(re.findall(r'data-t="(\w+)"', code))
    assert asked <= known, sorted(asked - known)


#: Keys that are a state's name, or are put together.
STATES = {"queued", "looking", "sending", "paused", "processing", "waiting"}
