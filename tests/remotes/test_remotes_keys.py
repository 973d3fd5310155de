"""Keys: whatever clients put into metadata, an object lies where the operator wants it."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resumable.model.keys import MAX_KEY, BadTemplate, parse, safe_segment

ID = "0123456789abcdef0123456789abcdef"
AT = 1_769_904_000.0  # 2026-02-01T00:00:00Z

nasty = st.one_of(
    st.binary(max_size=600),
    st.text(max_size=600).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.text("./\\ \0\n_~a\u202e\u00e9\ufffe", max_size=40).map(str.encode),
)


def render(template="{id}", prefix="", **metadata):
    return parse(template, prefix).render(ID, AT, metadata)


def test_the_default_key_is_the_id():
    assert render() == ID


def test_a_prefix_is_joined_with_one_slash():
    assert render(prefix="a/b") == render(prefix="/a/b/") == f"a/b/{ID}"


def test_fields_are_filled_in():
    assert render("{date}/{id}/{metadata[filename]}", filename=b"a b.jpg") == f"2026-02-01/{ID}/a b.jpg"


def test_doubled_braces_are_braces():
    assert render("{{{id}}}") == f"{{{ID}}}"


@given(nasty, nasty)
def test_no_value_leaves_its_segment(first, second):
    template = "x/{metadata[a]}{metadata[b]}/.{metadata[b]}/{id}"
    key = render(template, a=first, b=second)
    segments = key.split("/")
    assert len(segments) == 4
    assert not {"", ".", ".."} & set(segments)
    assert len(key.encode()) <= MAX_KEY
    assert "\\" not in key
    assert all(unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Zl", "Zp"} for char in key)


@pytest.mark.parametrize("value", [b"", b".", b"..", b" ", b"\x00\n", b"/", b"../..", b"\xff\xfe", "\u202e".encode()])
def test_a_value_that_leaves_nothing_gives_way_to_the_id(value):
    assert render("{metadata[filename]}", filename=value) == ID


def test_missing_metadata_gives_way_to_the_id():
    assert render("{metadata[filename]}") == ID


@pytest.mark.parametrize(
    ("value", "segment"),
    [
        (b"../../etc/passwd", ".._.._etc_passwd"),
        (b"C:\\temp\\x.txt", "C:_temp_x.txt"),
        (b"a\r\nb", "ab"),
        ("cafe\u0301".encode(), "caf\u00e9"),
        ("exe.\u202egpj".encode(), "exe.gpj"),
        (".hidden", ".hidden"),
    ],
)
def test_what_is_dangerous_is_taken_out(value, segment):
    assert safe_segment(value) == segment


def test_a_long_value_keeps_its_extension_and_whole_characters():
    segment = safe_segment("\u00e9" * 300 + ".jpeg")
    assert len(segment.encode()) in (254, 255)
    assert segment.endswith("\u00e9.jpeg")


def test_the_longest_key_is_1024_bytes():
    template = parse("{metadata[a]}/{metadata[b]}/{metadata[c]}/{id}", "p" * 127)
    values = {name: b"x" * 2000 for name in "abc"}
    assert len(template.render("i" * 128, AT, values).encode()) == MAX_KEY


@pytest.mark.parametrize(
    ("template", "word"),
    [
        ("/{id}", "slash"),
        ("a//{id}", "slash"),
        ("{id}/", "slash"),
        ("../{id}", '".."'),
        ("a/./{id}", '"."'),
        ("a\\{id}", "backslash"),
        ("a\n{id}", "control"),
        ("\ud800{id}", "control"),
        ("", "same for all"),
        ("x", "same for all"),
        ("{date}", "same for all"),
        ("{name}", "unknown field"),
        ("{metadata[]}", "unknown field"),
        ("{metadata[a b]}", "unknown field"),
        ("{id", "brace"),
        ("id}", "brace"),
        ("{id}" + "x" * 1000, "1024"),
    ],
)
def test_an_unsafe_template_is_refused_in_one_line(template, word):
    with pytest.raises(BadTemplate) as error:
        parse(template)
    assert word in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("prefix", ["..", "a/../b", "a//b", "a\\b", "p" * 1000])
def test_an_unsafe_prefix_is_refused(prefix):
    with pytest.raises(BadTemplate):
        parse("{id}", prefix)


def test_it_is_known_whether_two_uploads_can_meet_under_one_key():
    assert parse("{date}/{id}").is_unique
    assert not parse("{metadata[filename]}").is_unique
