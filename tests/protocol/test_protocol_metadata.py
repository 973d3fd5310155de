"""Upload-Metadata: T24, T25."""

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resumable.protocol import metadata
from resumable.protocol.errors import BadRequest

KEYS = st.text("".join(c for c in string.printable if c.isprintable() and c not in " ,"), min_size=1, max_size=12)


@given(st.dictionaries(KEYS, st.binary(max_size=60), max_size=6))
def test_T24_pairs_round_trip(pairs):
    parsed = metadata.parse(metadata.encode(pairs))
    assert parsed == pairs and list(parsed) == list(pairs)


def test_T24_the_example_of_the_specification():
    header = "filename d29ybGRfZG9taW5hdGlvbl9wbGFuLnBkZg==,is_confidential"
    assert metadata.parse(header) == {"filename": b"world_domination_plan.pdf", "is_confidential": b""}
    assert metadata.encode(metadata.parse(header)) == header


@pytest.mark.parametrize(
    ("header", "pairs"),
    [
        ("", {}),
        ("  ", {}),
        ("empty ", {"empty": b""}),
        ("empty ,a YQ==", {"empty": b"", "a": b"a"}),
        ("a YQ== , b Yg==", {"a": b"a", "b": b"b"}),
        ("a YQ==,   b Yg==", {"a": b"a", "b": b"b"}),
        ("name w6nwn5iA", {"name": "é😀".encode()}),
        ("a AAECCg0=", {"a": b"\x00\x01\x02\n\r"}),
    ],
)
def test_T24_what_clients_send_is_taken(header, pairs):
    assert metadata.parse(header) == pairs


@pytest.mark.parametrize(
    "header",
    [
        *(
            ",",
            "a,",
            ",a",
            "a,,b",
            "a YQ==,a YQ==",
            "a,a",
            "a YQ== YQ==",
            "a  YQ==",
            "a Y",
            "a YQ",
            "a YQ=",
        ),
        *("a =", "a ====", "a YQ==YQ==", "a Y-_Q", "a YWI==", "a Y Q=="),
    ],
)
def test_T24_malformed_pairs_are_400(header):
    with pytest.raises(BadRequest, match="Upload-Metadata"):
        metadata.parse(header)


@pytest.mark.parametrize(
    "header", ["a\r\nSet-Cookie: x", "a\0", "a\tYQ==", "é YQ==", "a YQ==\x7f", "a\x85", "\u2028", "ключ"]
)
def test_T25_nothing_that_could_smuggle_a_header_is_taken(header):
    with pytest.raises(BadRequest, match="Upload-Metadata"):
        metadata.parse(header)


def test_metadata_longer_than_the_bound_is_400():
    assert len(metadata.parse("key " + "AAAA" * 4095)["key"]) == 3 * 4095
    with pytest.raises(BadRequest, match="longer"):
        metadata.parse("k " + "AAAA" * 4096)


@given(
    st.text(max_size=60)
    | st.text("ab =,YQ\n\t\u00e9", max_size=30)
    | st.binary(max_size=60).map(lambda b: b.decode("latin-1"))
)
def test_T25_any_header_gives_pairs_that_can_be_echoed_or_400(header):
    try:
        pairs = metadata.parse(header)
    except BadRequest as error:
        assert error.detail.isascii() and error.detail.isprintable()
    else:
        assert re.fullmatch(r"[ -~]*", header)
        assert metadata.parse(metadata.encode(pairs)) == pairs


@pytest.mark.parametrize("key", ["", "a b", "a,b", "é", "a\n"])
def test_T24_a_key_that_cannot_be_sent_is_not_encoded(key):
    with pytest.raises(ValueError):
        metadata.encode({key: b""})


@pytest.mark.parametrize(
    ("given_name", "name"),
    [
        ("plan.pdf", "plan.pdf"),
        ("żółć 😀.txt", "żółć 😀.txt"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\x\\a.doc", "a.doc"),
        ("a\r\nSet-Cookie: x", "aSet-Cookie: x"),
        ("\u202egpj.exe", "gpj.exe"),
        ("..", None),
        ("a/", None),
        ("", None),
        (" . ", None),
        ("\0", None),
        ("x" * 300, "x" * 255),
    ],
)
def test_T25_a_file_name_has_no_directories_and_no_controls(given_name, name):
    assert metadata.filename({"filename": given_name.encode()}) == name


def test_the_keys_that_clients_use_are_looked_at_in_order():
    assert metadata.filename({"name": b"b", "filename": b"a"}) == "a"
    assert metadata.filename({"name": b"b", "filename": b"\xff"}) == "b"
    assert metadata.filename({}) is None
    assert metadata.content_type({"type": b"text/plain"}) == "text/plain"
    assert metadata.content_type({"contentType": b"image/png", "filetype": b"nonsense"}) == "image/png"
    assert metadata.content_type({}) is None


@pytest.mark.parametrize("good", ["text/plain", "image/svg+xml", "text/plain; charset=utf-8", 'text/plain;a="b c";d=e'])
def test_well_formed_media_types_are_kept(good):
    assert metadata.content_type({"filetype": good.encode()}) == good


@pytest.mark.parametrize(
    "bad", ["", "text", "text/", "/x", "text/plain\r\nX: y", "text/plain;", "text/é", "a/b, c/d", "a/b;c"]
)
def test_T25_other_media_types_are_dropped(bad):
    assert metadata.content_type({"filetype": bad.encode()}) is None


@given(st.dictionaries(st.sampled_from(["filename", "name", "filetype", "type"]), st.binary(max_size=40)))
def test_T25_names_and_types_are_safe_whatever_the_metadata(pairs):
    name = metadata.filename(pairs)
    if name is not None:
        assert name and name not in {".", ".."} and not re.search(r"[/\\\x00-\x1f\x7f-\x9f\u2028\u2029\u202e]", name)
    kind = metadata.content_type(pairs)
    assert kind is None or re.fullmatch(r"[ -~]+", kind)
