"""File names of strangers: what others are shown of them, and how headers say it."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resumable.protocol.names import disposition, shortened, shown

HIDING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c\u200b\u200c\u200d\u2060\ufeff\u00ad"


def told(value: str) -> str | None:
    """The name that a reader takes from a Content-Disposition; RFC 6266, 4.3: the extended one counts."""
    match = re.fullmatch(r"attachment; filename=\"([^\"\\]*)\"(?:; filename\*=UTF-8''([^;\s]+))?", value)
    return match and (unquote(match[2], errors="strict") if match[2] else match[1])


@pytest.mark.parametrize("char", HIDING, ids=ascii)
def test_what_turns_the_direction_round_or_cannot_be_seen_is_left_out(char):
    assert shown(f"invoice{char}gpj.exe") == "invoicegpj.exe"
    assert char not in (told(disposition(shown(f"ä{char}.txt"))) or char)


@pytest.mark.parametrize(
    ("long", "short"),
    [
        ("x" * 300 + ".jpeg", "x" * 250 + ".jpeg"),
        ("ж" * 200 + ".pdf", "ж" * 125 + ".pdf"),
        ("😀" * 100 + ".tar.gz", "😀" * 63 + ".gz"),
        ("x" * 300, "x" * 255),
        ("a." + "x" * 300, "a." + "x" * 253),
        ("." + "ü" * 7 + "x" * 300 + ".b", "." + "ü" * 7 + "x" * 238 + ".b"),
    ],
    ids=range(6),
)
def test_a_name_that_is_shortened_keeps_its_extension_and_whole_characters(long, short):
    assert shown(long) == short and len(short.encode()) <= 255
    assert told(disposition(shown(long))) == short


@given(st.text(max_size=400), st.text("abcXYZ09ä", min_size=1, max_size=8))
def test_whatever_the_name_the_header_is_ascii_names_no_path_and_is_read_back(text, extension):
    name = shown(f"{text}.{extension}")
    assert name and name.endswith(f".{extension}") and len(name.encode()) <= 255
    assert not [c for c in name if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") or c in "/\\"]
    value = disposition(name)
    assert value.isascii() and value.isprintable() and value == " ".join(value.split()), "it can be signed"
    assert len(value) < 1100, "room is left beside it in a head of 8 KB"
    assert told(value) == name


def test_the_plain_name_holds_nothing_that_readers_take_apart():
    assert disposition('a"b\\c%41;d.txt') == (
        "attachment; filename=\"a_b_c_41;d.txt\"; filename*=UTF-8''a%22b%5Cc%2541%3Bd.txt"
    )
    assert disposition("a  b") == "attachment; filename=\"a b\"; filename*=UTF-8''a%20%20b"
    assert disposition(None) == disposition("") == "attachment"


def test_what_fits_is_left_as_it_is():
    assert shortened("ä" * 127) == "ä" * 127 and shortened("abc.d", 5) == "abc.d"
