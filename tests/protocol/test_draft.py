"""The draft's header fields: each dialect's way to say the same, and what is ignored or refused."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resumable.protocol import draft, metadata
from resumable.protocol.draft import DIALECTS, NEWEST, Limits
from resumable.protocol.errors import BadRequest, InconsistentLength, TooLarge, UnsupportedMediaType


class Header:
    """A request's header: values by lower-case names, a list where a field is given several times."""

    def __init__(self, lines):
        self._lines = {name: value if isinstance(value, list) else [value] for name, value in lines.items()}

    def values(self, name):
        return self._lines.get(name, ())


NONE = Limits()
ALL = [NEWEST, *DIALECTS.values()]
PARTIAL = {"content-type": "application/partial-upload"}


def fields(**given):
    return Header({name.replace("_", "-"): value for name, value in given.items()})


def said(dialect, complete):
    name, value = draft.said_complete(dialect, complete)
    return {name.lower(): value}


def create(dialect=NEWEST, complete=True, content_length=10, limits=NONE, **given):
    header = Header({**said(dialect, complete), **{name.replace("_", "-"): value for name, value in given.items()}})
    return draft.parse_creation(header, dialect, content_length, limits)


def append(dialect=NEWEST, complete=True, content_length=10, limits=NONE, offset="5", **given):
    header = {**PARTIAL, **said(dialect, complete), "upload-offset": offset}
    header |= {name.replace("_", "-"): value for name, value in given.items()}
    return draft.parse_append(Header(header), dialect, content_length, limits)


class TestDialects:
    @pytest.mark.parametrize("version", range(3, 11))
    def test_each_version_is_known_by_its_number(self, version):
        assert draft.dialect_of(fields(upload_draft_interop_version=str(version))).version == version

    @pytest.mark.parametrize("said", ["2", "11", "?1", "3.0", "-3", "", "three", "3, 4"])
    def test_R45_any_other_is_the_newest_text_without_informational_responses(self, said):
        assert draft.dialect_of(fields(upload_draft_interop_version=said)) is NEWEST
        assert draft.dialect_of(fields()) is NEWEST and NEWEST.version is None

    @pytest.mark.parametrize("version", [3, 4])
    def test_the_oldest_say_incomplete(self, version):
        assert draft.said_complete(DIALECTS[version], True) == ("Upload-Incomplete", "?0")
        assert draft.said_complete(DIALECTS[version], False) == ("Upload-Incomplete", "?1")

    @pytest.mark.parametrize("version", range(5, 11))
    def test_the_others_say_complete(self, version):
        assert draft.said_complete(DIALECTS[version], True) == ("Upload-Complete", "?1")
        assert draft.said_complete(DIALECTS[version], False) == ("Upload-Complete", "?0")

    @pytest.mark.parametrize(
        ("given", "is_draft"),
        [
            ({}, False),
            ({"upload-offset": "5"}, False),
            ({"content-type": "application/offset+octet-stream"}, False),
            ({"upload-complete": "?1"}, True),
            ({"upload-incomplete": "?1"}, True),
            ({"upload-draft-interop-version": "6"}, True),
            ({"content-type": "application/partial-upload"}, True),
            ({"content-type": "Application/Partial-Upload ; a=b"}, True),
        ],
    )
    def test_one_field_of_it_makes_a_request_the_drafts(self, given, is_draft):
        assert draft.is_draft(Header(given)) is is_draft


class TestFields:
    @pytest.mark.parametrize("value", ["?1", "?1;a=b", "?1;a", " ?1"])
    def test_R1_a_boolean_may_have_parameters(self, value):
        assert draft.parse_creation(fields(upload_complete=value.strip()), NEWEST, 10, NONE).completes

    @pytest.mark.parametrize("value", ["", "1", "true", "?2", "?1, ?0", "yes", ":AA==:", "?1 ?0", "\xff"])
    def test_R1_any_other_value_is_ignored_and_without_the_field_there_is_no_creation(self, value):
        with pytest.raises(BadRequest, match="Upload-Complete"):
            draft.parse_creation(fields(upload_complete=value), NEWEST, 10, NONE)

    def test_R1_a_field_that_is_given_twice_is_ignored(self):
        with pytest.raises(BadRequest):
            draft.parse_creation(fields(upload_complete=["?1", "?1"]), NEWEST, 10, NONE)

    @pytest.mark.parametrize("value", ["-1", "1.0", '"10"', "ten", "1234567890123456", "10 11", ""])
    def test_R1_a_length_that_is_no_integer_of_15_digits_is_ignored(self, value):
        assert create(complete=False, upload_length=value).length is None

    @pytest.mark.parametrize("value", ["10", "10;a=1", "010", "999999999999999"])
    def test_R1_a_length(self, value):
        assert create(complete=False, upload_length=value).length == int(value.split(";")[0])

    @pytest.mark.parametrize("value", ["-1", "1.0", "", "x", "1234567890123456"])
    def test_R30_an_append_needs_an_offset(self, value):
        with pytest.raises(BadRequest, match="Upload-Offset"):
            append(offset=value)

    @given(st.text(st.characters(max_codepoint=255), max_size=30))
    def test_no_value_of_a_client_raises_anything_but_a_refusal(self, value):
        header = Header(dict.fromkeys([*draft.MARKS, "upload-length", "upload-offset", "content-type"], value))
        for parse in (draft.parse_creation, draft.parse_append):
            with suppress(BadRequest, UnsupportedMediaType):
                parse(header, draft.dialect_of(header), None, NONE)
        draft.is_draft(header)


class TestCreation:
    @pytest.mark.parametrize("dialect", ALL)
    @pytest.mark.parametrize("complete", [True, False])
    def test_every_dialect_says_whether_it_completes(self, dialect, complete):
        found = create(dialect, complete)
        assert (found.completes, found.draft, found.has_body) == (complete, True, True)

    def test_R7_the_content_that_completes_is_the_length(self):
        assert create(content_length=10).length == 10
        assert create(content_length=0).length == 0
        assert create(content_length=None).length is None
        assert create(content_length=None, upload_length="7").length == 7

    def test_R8_the_lengths_of_one_request_match(self):
        assert create(content_length=10, upload_length="10").length == 10
        with pytest.raises(InconsistentLength):
            create(content_length=10, upload_length="11")
        assert create(complete=False, content_length=10, upload_length="11").length == 11

    def test_R22_one_without_content(self):
        found = create(complete=False, content_length=0)
        assert (found.has_body, found.length, found.deferred) == (False, None, True)

    def test_a_dialects_field_is_no_other_dialects(self):
        for dialect, name in [(DIALECTS[3], "upload-complete"), (DIALECTS[5], "upload-incomplete")]:
            with pytest.raises(BadRequest):
                draft.parse_creation(Header({name: "?1"}), dialect, 10, NONE)


class TestMetadata:
    def found(self, **given):
        said = create(**given).metadata
        return None if said is None else metadata.parse(said)

    def test_R23_what_the_representations_fields_say_is_kept(self):
        found = self.found(
            content_type="image/png", content_disposition='attachment; filename="cat.png"', content_encoding="gzip"
        )
        assert found == {"filetype": b"image/png", "filename": b"cat.png", "contentEncoding": b"gzip"}

    def test_there_may_be_none(self):
        assert self.found() is None

    def test_the_extended_name_counts(self):
        found = self.found(content_disposition="attachment; filename=\"e.txt\"; filename*=UTF-8''%E2%82%AC.txt")
        assert found == {"filename": "€.txt".encode()}

    @pytest.mark.parametrize(
        "given",
        [
            {"content_type": "image"},
            {"content_type": "image/png\x00"},
            {"content_type": ["image/png", "image/png"]},
            {"content_disposition": "; filename=x"},
            {"content_disposition": "attachment filename=x"},
            {"content_disposition": "attachment\x7f"},
            {"content_encoding": "gzip br"},
            {"content_encoding": "gzip;q=1"},
            {"content_encoding": "g" * 33},
        ],
    )
    def test_R23_they_are_validated(self, given):
        with pytest.raises(BadRequest):
            create(**given)

    @pytest.mark.parametrize(
        ("rest", "name"),
        [
            ("*=us-ascii''a; filename*0=b", None),  # neither is of RFC 6266
            ("*0*=a; filename*=b; FileName=c d ; filename=e", "c d"),
            ('="a\\"b;c" ;; x', None),
            ('="a\\"b;c" ;; x=', 'a"b;c'),
            ('="C:\\dir\\\\a"', "C:\\dir\\a"),
            ('="a', None),
            ('="a"b', None),
            ("=", ""),
            ("*=UTF-8'en'%e2%82%ac%20; filename=x", "€ "),
            ("*=UTF-8''; filename=x", "x"),
        ],
    )
    def test_the_name_of_a_disposition(self, rest, name):
        found = None
        with suppress(BadRequest):
            found = (self.found(content_disposition=f"attachment; filename{rest}") or {}).get("filename")
        assert found == (None if name is None else name.encode())

    @given(st.text(st.sampled_from("filename*0=';%u8-\\\" (),ab"), max_size=40))
    def test_whatever_a_disposition_is_it_is_a_name_or_refused(self, rest):
        with suppress(BadRequest):
            create(content_disposition=f"attachment; filename{rest}")

    @pytest.mark.parametrize("name", ["à la carte.txt", "Bild 10.04.55\u202fAM.png", "日本.txt"])
    def test_a_name_may_be_plain_utf_8_as_curl_sends_it(self, name):
        sent = f'attachment; filename="{name}"'.encode().decode("latin-1")
        assert self.found(content_disposition=sent) == {"filename": name.encode()}

    def test_a_name_may_be_in_latin_1(self):
        assert self.found(content_disposition='attachment;\tfilename="é.txt"') == {"filename": "é.txt".encode()}

    @pytest.mark.parametrize(
        "kind",
        [
            'application/ld+json; profile="https://www.w3.org/ns/activitystreams"',
            'multipart/related; type="application/dicom"; boundary=x',
            "text/plain;  charset=utf-8",
            "text/plain ;charset=utf-8;",
            'text/plain; a="\\"b"',
            "application/vnd.x'y*z",
        ],
    )
    def test_every_media_type_of_rfc_9110_is_one(self, kind):
        assert self.found(content_type=kind) == {"filetype": kind.encode()}

    @pytest.mark.parametrize("piece", [";  ", ";;;;", ';a="  " ', "; a=b", "a", ";\t", '"\\\\'])
    def test_a_long_one_is_read_in_linear_time(self, piece):
        began = time.perf_counter()
        for field in ("content_type", "content_disposition", "content_encoding"):
            for value in (f"a/b{piece * 4000}@", f'a; "{piece * 4000}'):
                with suppress(BadRequest):
                    create(**{field: value})
        assert time.perf_counter() - began < 0.2

    def test_the_clients_own_metadata_goes_first(self):
        own = metadata.encode({"filename": "own.txt", "project": "7"})
        found = self.found(upload_metadata=own, content_disposition="attachment; filename=x", content_type="text/plain")
        assert found == {"filename": b"own.txt", "project": b"7", "filetype": b"text/plain"}

    @pytest.mark.parametrize("own", ["a b c", "name !!", ["a", "b"]])
    def test_one_that_is_malformed_is_a_field_that_the_draft_does_not_know(self, own):
        assert self.found(upload_metadata=own) is None

    def test_nobody_claims_a_coding_but_by_its_field(self):
        assert self.found(upload_metadata=metadata.encode({"contentEncoding": "br"})) is None

    def test_the_type_of_appends_is_none_of_a_file(self):
        assert self.found(**{"content_type": "application/partial-upload"}) is None


class TestAppend:
    @pytest.mark.parametrize("dialect", ALL)
    @pytest.mark.parametrize("complete", [True, False])
    def test_every_dialect_says_where_and_whether_it_completes(self, dialect, complete):
        found = append(dialect, complete)
        assert (found.offset, found.completes, found.length, found.draft) == (5, complete, None, True)

    @pytest.mark.parametrize("dialect", ALL)
    def test_R30_the_media_type_counts_from_interop_6_on(self, dialect):
        header = Header({**said(dialect, True), "upload-offset": "5"})
        if dialect.version in (3, 4, 5):
            assert draft.parse_append(header, dialect, 10, NONE).offset == 5
        else:
            with pytest.raises(UnsupportedMediaType):
                draft.parse_append(header, dialect, 10, NONE)

    @pytest.mark.parametrize("dialect", ALL)
    def test_R30_up_to_interop_6_silence_is_the_end(self, dialect):
        header = Header({**PARTIAL, "upload-offset": "5"})
        if dialect.version in (3, 4, 5, 6):
            assert draft.parse_append(header, dialect, 10, NONE).completes
        else:
            with pytest.raises(BadRequest, match="must be"):
                draft.parse_append(header, dialect, 10, NONE)

    def test_it_may_bring_the_length(self):
        assert append(upload_length="20").length == 20


class TestLimits:
    def test_R12_without_any_it_says_so(self):
        assert NONE.field(NEWEST) == "min-size=0"

    def test_R10_all_of_them(self):
        limits = Limits(max_size=1000, min_append=10, max_append=100)
        assert limits.field(NEWEST, 59.9) == "max-size=1000, min-append-size=10, max-append-size=100, max-age=59"

    def test_an_integer_has_15_digits_at_most(self):
        assert Limits(max_size=10**18).field(NEWEST) == "max-size=999999999999999"

    @pytest.mark.parametrize("version", [3, 4, 5, 6])
    def test_the_age_was_called_expires_before_interop_7(self, version):
        assert NONE.field(DIALECTS[version], 60) == "expires=60"
        assert NONE.field(DIALECTS[7], 60) == "max-age=60"

    def test_an_age_is_never_negative(self):
        assert NONE.field(NEWEST, -1) == "max-age=0"

    def test_R10_a_request_has_so_many_bytes_at_most(self):
        limits = Limits(max_append=100)
        assert create(limits=limits, content_length=100).at_most == 100
        assert append(limits=limits, content_length=None).at_most == 100
        for parse in (create, append):
            with pytest.raises(TooLarge):
                parse(limits=limits, content_length=101)

    def test_R10_and_so_many_at_least_unless_it_completes_or_creates_without_content(self):
        limits = Limits(min_append=10)
        assert append(limits=limits, complete=True, content_length=9).completes
        assert create(limits=limits, complete=True, content_length=9).completes
        assert not create(limits=limits, complete=False, content_length=0).has_body
        assert not append(limits=limits, complete=False, content_length=10).completes
        assert not append(limits=limits, complete=False, content_length=None).completes
        for parse in (create, append):
            with pytest.raises(BadRequest):
                parse(limits=limits, complete=False, content_length=9)
