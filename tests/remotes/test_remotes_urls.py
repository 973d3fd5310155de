"""The URL of a remote: what it says, and what is told of one that is wrong."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from twisted.internet.task import Clock

from resumable.remotes import urls
from resumable.remotes import urls as schemes
from resumable.remotes.journals import MemoryJournal
from resumable.remotes.urls import BackendServices, BadRemote, RemoteSpec, Scheme, When, check_names, flag, parse
from resumable.testing import SteppedPool


def check_region(spec):
    if not spec.options.get("region", "x").isascii():
        raise ValueError("region is ASCII")


SCHEMES = {
    "s3": Scheme("s3", lambda spec, means: (spec, means), "bucket", {"region": "where", "part-size": ""}, check_region),
    "file": Scheme("file", lambda spec, means: (spec, means), "directory", {"marker": ""}),
    "memory": Scheme("memory", lambda spec, means: (spec, means), "nothing"),
}


def find(name):
    return SCHEMES[name] if name in SCHEMES else urls.find(name)


def test_bucket_and_prefix():
    assert parse("s3://bucket/a/b/", find) == RemoteSpec("s3", "s3://bucket/a/b", bucket="bucket", prefix="a/b")


def test_a_bucket_alone():
    assert parse("s3://bucket", find) == parse("s3://bucket/", find) == RemoteSpec("s3", "s3://bucket", bucket="bucket")


def test_a_directory():
    assert parse("file:///mnt/my%20nas/", find) == RemoteSpec("file", "file:///mnt/my%20nas", path="/mnt/my nas")


def test_a_place_that_is_nowhere():
    assert parse("memory://x", find).bucket == "x"
    assert parse("memory://", find).name == "memory://"


def test_options_of_all_remotes_and_of_this_one():
    spec = parse("s3://b/p?region=eu-1&required=no&name=cold&overwrite=replace&key={date}/{id}", find)
    assert (spec.required, spec.name, spec.replace, spec.options) == (False, "cold", True, {"region": "eu-1"})
    assert spec.template.render("i" * 32, 0.0, {}) == f"p/1970-01-01/{'i' * 32}"


def test_the_name_does_not_change_with_the_options():
    assert parse("s3://b/p?region=x", find).name == parse("s3://b/p?required=no", find).name


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s4://bucket", ['unknown scheme "s4"', 'did you mean "s3"']),
        ("gopher://bucket", ["unknown scheme", "known: ", "file", "memory", "s3"]),
        ("s3://", ["bucket is missing", "s3://bucket/prefix"]),
        ("s3:///prefix", ["bucket is missing"]),
        ("s3:bucket", ["not a URL"]),
        ("bucket", ["not a URL"]),
        ("", ["not a URL"]),
        ("/mnt/nas", ["not a URL"]),
        ("s3://[bucket", ["not a URL"]),
        ("file://mnt/nas", ["absolute path"]),
        ("file:///", ["absolute path"]),
        ("s3://b?regoin=x", ['unknown option "regoin"', 'did you mean "region"']),
        ("s3://b?zzz=x", ["known: key, name, overwrite, part-size, region, required, when"]),
        ("s3://b?when=filetype", ["a colon and a pattern"]),
        ("s3://b?when=:x", ["a colon and a pattern"]),
        ("s3://b?when=filetype:", ["a colon and a pattern"]),
        ("s3://b?region=x&region=y", ["twice"]),
        ("s3://b?region=%C3%A9", ["region is ASCII"]),
        ("s3://b?required=perhaps", ["yes or no"]),
        ("s3://b?overwrite=maybe", ["refuse or replace"]),
        ("s3://b?key={nme}", ["unknown field"]),
        ("s3://b?key=same", ["same for all"]),
        ("s3://b/../c", ['".."']),
        ("s3://b/a%0Ab", ["control characters"]),
        ("s3://b#x", ["fragments"]),
        ("s3://b?name=a%0Ab", ["control characters"]),
    ],
)
def test_what_is_wrong_is_said_in_one_line(url, words):
    with pytest.raises(BadRemote) as error:
        parse(url, find)
    message = str(error.value)
    assert all(word in message for word in words), message
    assert message.isprintable()


def test_a_secret_in_the_url_is_refused_and_not_repeated():
    with pytest.raises(BadRemote) as error:
        parse("s3://AKIA:hunter2@bucket/p?region=x", find)
    assert "hunter2" not in str(error.value) and "AKIA" not in str(error.value)
    assert "environment" in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "s3://b?secret-key=hunter2", "s3://b?aws_access_key_id=hunter2", "s3://b?password=hunter2",
        "s3:AKIA:hunter2@b", "hunter2@b",
    ],
)  # fmt: skip
def test_credentials_anywhere_in_the_url_are_not_repeated(url):
    with pytest.raises(BadRemote) as error:
        parse(url, find)
    assert "hunter2" not in str(error.value)
    assert "environment" in str(error.value) or "not a URL" in str(error.value)


def test_two_remotes_of_one_name_are_refused():
    with pytest.raises(BadRemote, match=r"s3://a/x: two have this name; give one of them \?name="):
        check_names([parse("s3://a/x", find), parse("s3://a/x/?region=b", find)])
    check_names([parse("s3://a/x", find), parse("s3://a/x?name=other", find)])


def test_what_is_done_with_another_object_can_be_said_for_all_and_for_one():
    assert parse("s3://b", find, overwrite="replace").replace
    assert not parse("s3://b?overwrite=refuse", find, overwrite="replace").replace


@pytest.mark.parametrize(
    ("when", "metadata", "accepted"),
    [
        ("filetype:image/*", {"filetype": b"image/png"}, True),
        ("filetype:image/*", {"filetype": b"video/mp4"}, False),
        ("filetype:image/*", {"filename": b"image/png"}, False),
        ("filetype:*", {}, False),
        ("filename:*.MP4", {"filename": b"a.mp4"}, False),
        ("name:[ab]?:c", {"name": b"ax:c"}, True),
        ("filename:caf\u00e9*", {"filename": "caf\u00e9.txt".encode()}, True),
        ("filename:*", {"filename": b"\xff\xfe"}, True),
    ],
)
def test_a_remote_takes_the_uploads_whose_metadata_fits(when, metadata, accepted):
    spec = parse(f"s3://b?when={when}", find)
    assert spec.when == When(*when.split(":", 1))
    assert spec.accepts(metadata) is accepted


def test_a_remote_without_a_rule_takes_all_uploads():
    assert parse("s3://b", find).accepts({})


def test_a_long_value_cannot_make_a_pattern_slow():
    assert not When("x", "*a*a*a*a*a*a*a*b").fits({"x": b"a" * 8000})


def test_options_come_from_variables_where_the_url_is_silent():
    scheme = Scheme("tape", lambda spec, means: None, options={"slot": ""}, variables={"slot": ("FIRST", "SECOND")})

    def slot(url: str, **environ: str) -> str | None:
        return parse(url, lambda name: scheme, environ=environ).options.get("slot")

    assert slot("tape://b", FIRST=" ", SECOND="2") == "2"
    assert slot("tape://b", FIRST="1", SECOND="2") == "1"
    assert slot("tape://b?slot=3", FIRST="1") == "3"
    assert slot("tape://b?slot=", FIRST="1") == ""
    assert slot("tape://b") is None


def test_the_backend_is_made_from_spec_and_means():
    spec = parse("memory://", find)
    assert urls.make(spec, "means", find) == (spec, "means")


def test_what_making_a_backend_finds_wrong_is_one_line_with_its_name():
    def refuse(spec, means):
        raise ValueError("the key can't be read")

    scheme = Scheme("tape", refuse)
    with pytest.raises(BadRemote, match="remote tape://b: the key can't be read"):
        urls.make(parse("tape://b", lambda name: scheme), None, lambda name: scheme)


def test_what_the_service_gives_has_defaults_for_tuning():
    means = BackendServices(Clock(), SteppedPool(Clock()), MemoryJournal(), None, lambda: 0.0, Random(1))
    assert (means.part_size, means.timeout, means.parts) == (8 << 20, 60.0, 16)


@pytest.mark.process
def test_a_backend_is_imported_only_when_its_scheme_is_used():
    loaded = "import sys, resumable.config.options as o; o.urls.parse('file:///a'); print('botocore' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True, timeout=300)
    assert run.stdout == "False\n"


@pytest.mark.parametrize("name", ["file", "memory", "s3"])
def test_our_own_schemes_are_found(name):
    assert urls.find(name).name == name
    assert name in urls.known()


@pytest.fixture
def third_party(monkeypatch):
    """Somebody's package with entry points."""
    points = importlib.metadata.EntryPoints(
        [
            importlib.metadata.EntryPoint("tape", "tests.remotes.test_remotes_urls:TAPE", schemes.GROUP),
            importlib.metadata.EntryPoint("broken", "no.such.module:X", schemes.GROUP),
            importlib.metadata.EntryPoint("wrong", "os:sep", schemes.GROUP),
            importlib.metadata.EntryPoint("file", "os:sep", schemes.GROUP),
        ]
    )
    monkeypatch.setattr(schemes, "entry_points", points.select)
    monkeypatch.setattr(importlib.metadata.EntryPoint, "load", load)


def load(point):
    if point.name == "broken":
        raise ImportError("no module named no")
    return TAPE if point.name == "tape" else "/"


TAPE = Scheme("tape", lambda spec, means: (spec, means), "nothing")


def test_backends_of_others_are_found_by_their_entry_point(third_party):
    assert urls.find("tape") is TAPE
    assert parse("tape://x").scheme == "tape"
    assert "tape" in urls.known()


@pytest.mark.parametrize(("name", "word"), [("broken", "cannot be loaded"), ("wrong", "is not a")])
def test_a_backend_that_cannot_be_used_is_named(third_party, name, word):
    with pytest.raises(BadRemote, match=word):
        parse(f"{name}://x")


def test_nobody_can_take_a_scheme_of_ours_over(third_party):
    assert urls.find("file") is not TAPE


PAGE = (Path(__file__).parents[2] / "docs" / "remotes.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["file", "memory", "s3"])
def test_every_option_of_a_scheme_is_in_its_section_of_the_page(name):
    _, _, section = PAGE.partition(f"\n## {name}\n")
    section = section.partition("\n## ")[0]
    for option, meaning in urls.find(name).options.items():
        assert f"\n| `{option}` | {meaning} |\n" in section


@pytest.mark.parametrize(("name", "page"), [("az", "azure.md"), ("gs", "google.md")])
def test_a_scheme_with_a_page_of_its_own_leads_there_and_names_what_to_install(name, page):
    section = PAGE.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    assert f"]({page})" in section and "pip install 'resumable-server[" in section


def test_what_each_store_promises_comes_with_its_makers_word_for_it():
    table = PAGE.partition("\n## What each store guarantees\n")[2].partition("\n## ")[0]
    rows = [row.strip("|").split("|") for row in table.strip().splitlines() if row.startswith("|")]
    assert [name.strip() for name in rows[0][1:]] == ["s3", "az", "gs", "file"]
    for _, *cells in rows[2:-1]:
        for host, cell in zip(("aws", "microsoft.com", "google.com"), cells, strict=False):
            assert host in cell, cell


@pytest.mark.parametrize("option", urls.COMMON)
def test_options_of_all_remotes_are_on_the_page(option):
    assert f"\n| `{option}` | {urls.COMMON[option]} |\n" in PAGE


@pytest.mark.parametrize("url", sorted({*re.findall(r"\b(?:az|gs|s3|file|memory)://[^\s'`\"$]+", PAGE)}))
def test_urls_on_the_page_are_right(url):
    assert parse(url.partition("?options")[0]).scheme


@pytest.mark.parametrize("block", re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL))
def test_policies_on_the_page_are_json(block):
    assert json.loads(block)


@pytest.mark.parametrize(("value", "meaning"), [("yes", True), ("No", False), ("1", True), (None, True)])
def test_yes_and_no(value, meaning):
    assert flag({} if value is None else {"x": value}, "x", True) is meaning
