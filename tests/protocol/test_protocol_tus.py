"""Requests from header fields, and what the server says of itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resumable.protocol import tus
from resumable.protocol.checksum import STANDARD, Checksum
from resumable.protocol.concat import FinalUpload
from resumable.protocol.errors import BadRequest, TusError, UnsupportedMediaType, UnsupportedVersion

TYPE = tus.CONTENT_TYPE
SHA1 = "sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0="


class Lines:
    def __init__(self, **lines):
        self._lines = {n.replace("_", "-"): v if isinstance(v, list) else [v] for n, v in lines.items()}

    def values(self, name):
        return self._lines.get(name, ())


def create(body=0, **lines):
    return tus.parse_creation(Lines(**lines), body, STANDARD)


def append(body=10, **lines):
    return tus.parse_append(Lines(**{"content_type": TYPE, "upload_offset": "0", **lines}), body, STANDARD)


# -- what the server says


def test_T4_T5_T6_T20_T44_capabilities_list_versions_extensions_maximum_and_algorithms_without_blanks():
    answer = tus.capabilities(1073741824, STANDARD)
    assert answer == {
        "Tus-Version": "1.0.0",
        "Tus-Extension": "creation,creation-with-upload,creation-defer-length,expiration,checksum,checksum-trailer,"
        "termination,concatenation,concatenation-unfinished",
        "Tus-Max-Size": "1073741824",
        "Tus-Checksum-Algorithm": "sha1,md5,sha256,sha512,crc32,blake2b",
    }


def test_T5_T6_extensions_and_maximum_are_left_out_when_there_are_none():
    assert tus.capabilities(None, (), ()) == {"Tus-Version": "1.0.0"}


def test_T6_a_maximum_of_zero_is_said():
    assert tus.capabilities(0, STANDARD)["Tus-Max-Size"] == "0"


@pytest.mark.parametrize(
    "extension",
    [
        pytest.param("creation", id="T21"),
        pytest.param("creation-defer-length", id="T29"),
        pytest.param("creation-with-upload", id="T32"),
        pytest.param("expiration", id="T36"),
        pytest.param("checksum", id="T40"),
        pytest.param("checksum-trailer", id="T46"),
        pytest.param("termination", id="T47"),
        pytest.param("concatenation", id="T49"),
        pytest.param("concatenation-unfinished", id="T54"),
    ],
)
def test_every_extension_is_advertised(extension):
    assert tus.EXTENSIONS.count(extension) == 1


@pytest.mark.parametrize(
    ("seconds", "date"),
    [
        (1403712000, "Wed, 25 Jun 2014 16:00:00 GMT"),
        (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (784111777.9, "Sun, 06 Nov 1994 08:49:37 GMT"),
    ],
)
def test_T38_dates_are_imf_fixdates(seconds, date):
    assert tus.http_date(seconds) == date


# -- version and method


def test_T3_the_version_spoken_here_passes():
    tus.check_version(Lines(tus_resumable="1.0.0"))


@pytest.mark.parametrize(
    "values", [[], [""], ["0.2.2"], ["1.0"], ["1.0.0 "], ["1.0.0, 1.0.0"], ["1.0.0", "1.0.0"], ["1.0.1"]]
)
def test_T3_any_other_version_is_412_with_tus_version(values):
    with pytest.raises(UnsupportedVersion) as caught:
        tus.check_version(Lines(tus_resumable=values))
    assert (caught.value.status, caught.value.headers) == (412, {"Tus-Version": "1.0.0"})


def test_T7_the_override_replaces_the_method():
    assert tus.method(Lines(), "POST") == "POST"
    assert tus.method(Lines(x_http_method_override="PATCH"), "POST") == "PATCH"
    assert tus.method(Lines(x_http_method_override="HEAD"), "DELETE") == "HEAD"


@pytest.mark.parametrize("values", [[""], ["PATCH", "PATCH"], ["PA TCH"], ["PATCH, POST"], ["é"], ["A\r\nB"]])
def test_T7_an_override_that_is_no_method_is_400(values):
    with pytest.raises(BadRequest, match="Method-Override"):
        tus.method(Lines(x_http_method_override=values), "POST")


# -- creation


def test_T22_a_creation_has_a_length():
    assert create(upload_length="100") == tus.Creation(100, False, None, None, None, None, False, False)


def test_T23_the_length_may_be_zero():
    assert create(upload_length="0").length == 0


def test_T22_or_defers_it():
    made = create(upload_defer_length="1")
    assert made.length is None and made.deferred


@pytest.mark.parametrize("value", ["0", "2", "", "true", "1,1", "01", "-1", "\u0661"])
def test_T22_any_other_defer_value_is_400(value):
    with pytest.raises(BadRequest, match="Upload-Defer-Length"):
        create(upload_defer_length=value)


@pytest.mark.parametrize(
    "lines",
    [
        {},
        {"upload_length": "1", "upload_defer_length": "1"},
        {"upload_length": ["1", "1"]},
        {"upload_defer_length": ["1", "1"]},
        {"upload_length": "-1"},
        {"upload_length": ""},
        {"upload_concat": "partial"},
    ],
)
def test_T22_both_neither_or_malformed_lengths_are_400(lines):
    with pytest.raises(BadRequest, match=r"Upload-(Defer-)?Length"):
        create(**lines)


def test_T24_T26_metadata_is_kept_verbatim():
    header = "filename d29ybGQ= ,  empty ,x"
    assert create(upload_length="1", upload_metadata=header).metadata == header


def test_T24_an_empty_metadata_header_is_no_metadata():
    assert create(upload_length="1", upload_metadata="").metadata is None


@pytest.mark.parametrize("header", ["a,a", "a *", ",", "a\r\nb", ["a", "b"]])
def test_T24_T25_malformed_or_repeated_metadata_is_400(header):
    with pytest.raises(BadRequest, match="Upload-Metadata"):
        create(upload_length="1", upload_metadata=header)


def test_T33_a_declared_or_a_chunked_body_is_creation_with_upload():
    assert create(5, upload_length="5", content_type=TYPE).has_body
    assert create(None, upload_length="5", content_type=TYPE).has_body


@pytest.mark.parametrize("lines", [{}, {"content_type": "application/octet-stream"}, {"content_type": ""}])
@pytest.mark.parametrize("body", [5, None])
def test_T14_T33_a_body_of_another_type_is_415(lines, body):
    with pytest.raises(UnsupportedMediaType, match="Content-Type"):
        create(body, upload_length="5", **lines)


def test_a_creation_without_a_body_may_have_any_type():
    """aiotus sends application/octet-stream with a length of 0."""
    assert not create(0, upload_length="5", content_type="application/octet-stream").has_body


def test_T50_a_partial_upload_has_a_length_or_defers_it():
    made = create(upload_length="5", upload_concat="partial")
    assert (made.concat, made.concat_header, made.length) == ("partial", "partial", 5)
    assert create(upload_defer_length="1", upload_concat="partial").deferred


def test_T50_T53_T61_a_final_upload_has_neither_and_its_header_is_kept_as_paths():
    header = "final; /files/a  https://user:word@h:1/files/b?token=secret&x=/files/c c?d"
    made = create(upload_concat=header)
    assert made.concat == FinalUpload(("/files/a", "/files/b", "c"))
    assert made.concat_header == "final;/files/a /files/b c"
    assert (made.length, made.deferred, made.has_body) == (None, False, False)


def test_T55_a_final_upload_has_the_metadata_of_its_own_request():
    assert create(upload_concat="final;/files/a").metadata is None
    assert create(upload_concat="final;/files/a", upload_metadata="a YQ==").metadata == "a YQ=="


@pytest.mark.parametrize("lines", [{"upload_length": "11"}, {"upload_defer_length": "1"}, {"upload_length": ""}])
def test_T53_a_length_on_a_final_upload_is_400(lines):
    with pytest.raises(BadRequest, match="does not go with"):
        create(upload_concat="final;/files/a", **lines)


@pytest.mark.parametrize("body", [5, None])
def test_a_body_on_a_final_upload_is_400(body):
    with pytest.raises(BadRequest, match="no body"):
        create(body, upload_concat="final;/files/a", content_type=TYPE)


@pytest.mark.parametrize("value", ["", "final;", "whole", ["partial", "partial"]])
def test_T50_a_malformed_or_repeated_upload_concat_is_400(value):
    with pytest.raises(BadRequest, match="Upload-Concat"):
        create(upload_concat=value)


def test_T33_T45_a_creation_may_carry_a_checksum():
    assert create(11, upload_length="11", content_type=TYPE, upload_checksum=SHA1).checksum.algorithm == "sha1"


def test_T33_T46_a_creation_may_announce_one():
    assert create(None, upload_length="11", content_type=TYPE, trailer="Upload-Checksum").checksum_trailer


# -- append


def test_an_append_has_an_offset():
    assert append(30, upload_offset="70") == tus.Append(70, None, None, False)


@pytest.mark.parametrize("value", [TYPE, TYPE.upper(), TYPE + "; charset=utf-8", TYPE + ";", TYPE + " ;x=y"])
def test_T14_the_type_is_case_insensitive_and_may_have_parameters(value):
    assert append(content_type=value).offset == 0
    tus.check_patch_type(Lines(content_type=value))


@pytest.mark.parametrize("value", [[], "", "application/octet-stream", TYPE + "x", "x " + TYPE, TYPE + ", " + TYPE])
@pytest.mark.parametrize("body", [0, 10, None])
def test_T14_any_other_type_is_415_before_the_offset_is_looked_at(value, body):
    with pytest.raises(UnsupportedMediaType, match="Content-Type"):
        append(body, content_type=value, upload_offset="x")


@pytest.mark.parametrize("value", [[], "", "-1", "+1", "1_0", "x", "9" * 20, ["0", "0"]])
def test_T1_a_missing_malformed_or_repeated_offset_is_400(value):
    with pytest.raises(BadRequest, match="Upload-Offset"):
        append(upload_offset=value)


def test_T31_an_append_may_bring_the_length():
    assert append(upload_length="100").length == 100


@pytest.mark.parametrize("value", ["", "-1", "1.0", ["1", "1"]])
def test_T31_a_malformed_length_on_an_append_is_400(value):
    with pytest.raises(BadRequest, match="Upload-Length"):
        append(upload_length=value)


def test_upload_concat_and_metadata_on_an_append_are_ignored():
    """tus-js-client sends Upload-Concat: partial with PATCH too."""
    assert append(upload_concat="partial", upload_metadata="a *") == append()


def test_T45_an_append_may_carry_a_checksum():
    made = append(upload_checksum=SHA1)
    assert isinstance(made.checksum, Checksum) and not made.checksum_trailer


@pytest.mark.parametrize("value", ["sha3 YWJj", "sha1", "sha1 *", "", [SHA1, SHA1]])
def test_T42_T45_an_unknown_malformed_or_repeated_checksum_is_400(value):
    with pytest.raises(BadRequest, match="Upload-Checksum"):
        append(upload_checksum=value)


@pytest.mark.parametrize(
    "value", ["Upload-Checksum", "upload-checksum", "Expires, UPLOAD-CHECKSUM", ["Expires", "Upload-Checksum"]]
)
def test_T46_a_checksum_may_be_announced_as_a_trailer(value):
    assert append(None, trailer=value).checksum_trailer


@pytest.mark.parametrize("value", ["Expires", "", "X-Upload-Checksum"])
def test_T46_other_trailers_announce_nothing(value):
    assert not append(None, trailer=value).checksum_trailer
    assert not append(10, trailer=value).checksum_trailer


@pytest.mark.parametrize("body", [0, 10])
def test_T46_a_trailer_cannot_be_announced_on_a_body_that_is_not_chunked(body):
    with pytest.raises(BadRequest, match="Trailer"):
        append(body, trailer="Upload-Checksum")


def test_T46_a_checksum_is_in_the_header_or_in_the_trailer():
    with pytest.raises(BadRequest, match="header and"):
        append(None, trailer="Upload-Checksum", upload_checksum=SHA1)


def test_T46_the_trailer_is_read_after_the_body():
    assert tus.trailer_checksum({"upload-checksum": SHA1}, True, STANDARD).algorithm == "sha1"
    assert tus.trailer_checksum({"upload-checksum": SHA1}, False, STANDARD).algorithm == "sha1"
    assert tus.trailer_checksum({"expires": "x"}, False, STANDARD) is None


@pytest.mark.parametrize("trailers", [{}, {"expires": "x"}])
def test_T46_announced_but_missing_is_400(trailers):
    with pytest.raises(BadRequest, match="announced"):
        tus.trailer_checksum(trailers, True, STANDARD)


@pytest.mark.parametrize("value", ["sha3 YWJj", "sha1 *", ""])
def test_T42_T46_a_bad_checksum_in_the_trailer_is_400(value):
    with pytest.raises(BadRequest, match="Upload-Checksum"):
        tus.trailer_checksum({"upload-checksum": value}, True, STANDARD)


# -- anything at all

RAW = st.binary(max_size=30).map(lambda raw: raw.decode("latin-1").strip(" \t"))
VALUE = RAW | st.sampled_from(
    ["0", "1", "100", TYPE, SHA1, "partial", "final;/files/a", "a YQ==", "Upload-Checksum", "1.0.0", "PATCH"]
)
NAMES = st.sampled_from(
    [
        "upload-length",
        "upload-defer-length",
        "upload-offset",
        "upload-metadata",
        "upload-concat",
        "upload-checksum",
        "trailer",
        "content-type",
        "tus-resumable",
        "x-http-method-override",
    ]
)
ANYTHING = st.dictionaries(NAMES, st.lists(VALUE, min_size=1, max_size=2)).map(lambda lines: Lines(**lines))


@given(ANYTHING, st.none() | st.integers(0, 2**64))
def test_any_bytes_as_headers_give_a_request_or_a_refusal(lines, body):
    for parse in (
        lambda: tus.parse_creation(lines, body, STANDARD),
        lambda: tus.parse_append(lines, body, STANDARD),
        lambda: tus.check_version(lines),
        lambda: tus.method(lines, "POST"),
        lambda: tus.check_patch_type(lines),
    ):
        try:
            parse()
        except TusError as error:
            assert 400 <= error.status < 500
            assert error.detail.isascii() and error.detail.isprintable()
            assert all(value.isascii() and value.isprintable() for value in error.headers.values())
