"""Header fields to plain values, and ids."""

import re
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resumable.protocol import fields
from resumable.protocol.errors import BadRequest
from resumable.protocol.names import valid_id


class Lines:
    def __init__(self, **lines):
        self._lines = {name.replace("_", "-"): values for name, values in lines.items()}

    def values(self, name):
        return self._lines.get(name, ())


def test_a_field_that_is_absent_is_none():
    assert fields.single(Lines(), "upload-offset") is None
    assert fields.optional_size(Lines(), "upload-length") is None


@pytest.mark.parametrize("values", [["1", "1"], ["1", "2"], ["", ""]])
def test_a_field_given_twice_is_400_and_named_even_with_equal_values(values):
    with pytest.raises(BadRequest, match="Upload-Offset"):
        fields.single(Lines(upload_offset=values), "upload-offset")


@given(st.integers(0, fields.LARGEST))
def test_T1_every_non_negative_integer_below_2_to_63_is_read(number):
    assert fields.size("upload-length", str(number)) == number
    assert fields.optional_size(Lines(upload_length=[str(number)]), "upload-length") == number


@pytest.mark.parametrize(
    "value",
    [
        *(
            "",
            " ",
            "-1",
            "+1",
            "-0",
            "1 ",
            " 1",
            "1_0",
            "1.0",
            "1e3",
            "0x10",
            "1,1",
            "1, 1",
            "²",
            "\u0661",
            "\u00b9",
            "\xa01",
        ),
        *("1\n", "1\0", "abc", "NaN", "9" * 20, "0" * 20, str(2**63), "9" * 19),
    ],
)
def test_T1_anything_else_is_400_and_named(value):
    with pytest.raises(BadRequest, match="Upload-Length"):
        fields.size("upload-length", value)


@given(st.text(max_size=30))
def test_T1_any_text_is_a_size_or_400(value):
    try:
        assert 0 <= fields.size("upload-offset", value) <= fields.LARGEST
        assert set(value) <= set("0123456789")
    except BadRequest as error:
        assert error.detail.isascii() and error.detail.isprintable()


def test_a_list_is_gathered_over_all_lines_without_case_and_blanks():
    lines = Lines(trailer=["Expires, Upload-Checksum", ",\tX-A ,"])
    assert fields.listed(lines, "trailer") == ["expires", "upload-checksum", "x-a"]
    assert fields.listed(Lines(), "trailer") == []


@given(st.binary(max_size=200))
def test_base64_round_trips(data):
    assert fields.base64(b64encode(data).decode()) == data


@given(st.text("AQgw+/=- \n_\u00e9", max_size=12))
def test_base64_takes_only_what_the_grammar_does(text):
    grammar = r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
    try:
        fields.base64(text)
    except ValueError:
        assert not re.fullmatch(grammar, text)
    else:
        assert re.fullmatch(grammar, text)


def test_a_long_value_is_cut_in_details():
    assert len(fields.shown("x" * 10_000)) == 50


@pytest.mark.parametrize("good", ["0123456789abcdef", "A" * 128, "a_b-c_d-e_f-g_h-", "_" * 16])
def test_ids_are_16_to_128_url_safe_characters(good):
    assert valid_id(good)


@pytest.mark.parametrize(
    "bad",
    [
        *("", "a" * 15, "a" * 129, "-" + "a" * 20, "a" * 16 + "\n", " " + "a" * 16, "a" * 16 + "\0", "a" * 16 + "."),
        *("../../../../etc/passwd", "a" * 16 + "/b", "%2e%2e%2f" + "a" * 16, ".resumable" + "a" * 16),
        *("\u00e9" * 16, "\u0661" * 16),
    ],
)
def test_ids_that_could_leave_the_directory_or_the_url_are_refused(bad):
    assert not valid_id(bad)
