"""The URL of a remote: what it says, and what is told of one that is wrong."""

from __future__ import annotations

import importlib.metadata

import pytest

from resumable.remotes import urls
from resumable.remotes.urls import BadRemote, RemoteSpec, Scheme, flag, parse, parse_all


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
        ("gopher://bucket", ["unknown scheme", "known: file, memory, s3"]),
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
        ("s3://b?zzz=x", ["known: key, name, overwrite, part-size, region, required"]),
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


def test_several_remotes_keep_their_order():
    names = [spec.name for spec in parse_all(["s3://a/x", "file:///mnt/nas?required=no"], find)]
    assert names == ["s3://a/x", "file:///mnt/nas"]


def test_two_remotes_of_one_name_are_refused():
    with pytest.raises(BadRemote, match="two remotes are named"):
        parse_all(["s3://a/x", "s3://a/x/?region=b"], find)
    assert len(parse_all(["s3://a/x", "s3://a/x?name=other"], find)) == 2


def test_the_backend_is_made_from_spec_and_means():
    spec = parse("memory://", find)
    assert urls.make(spec, "means", find) == (spec, "means")


@pytest.mark.parametrize("name", ["file", "memory"])
def test_our_own_schemes_are_found(name):
    assert urls.find(name).name == name
    assert name in urls.known()


@pytest.fixture
def third_party(monkeypatch):
    """Somebody's package with entry points."""
    points = importlib.metadata.EntryPoints(
        [
            importlib.metadata.EntryPoint("tape", "tests.remotes.test_remotes_urls:TAPE", urls.GROUP),
            importlib.metadata.EntryPoint("broken", "no.such.module:X", urls.GROUP),
            importlib.metadata.EntryPoint("wrong", "os:sep", urls.GROUP),
            importlib.metadata.EntryPoint("file", "os:sep", urls.GROUP),
        ]
    )
    monkeypatch.setattr(urls, "entry_points", points.select)
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


@pytest.mark.parametrize(("value", "meaning"), [("yes", True), ("No", False), ("1", True), (None, True)])
def test_yes_and_no(value, meaning):
    assert flag({} if value is None else {"x": value}, "x", True) is meaning
