"""The server's obligations in tus 1.0.0's extensions, over HTTP: one test for each of T21 to T62.

Each docstring begins with the number of the obligation.
"""

from __future__ import annotations

import base64
import time
from email.utils import parsedate_to_datetime

import pytest

from .daemon import Daemon, eventually
from .tus import OCTETS, Tus, check, checksum, chunk, head_bytes, last_chunk, metadata, patch_head
from .wire import Answer

MAX = 10 * 2**20
FLAGS = ("--max-size", str(MAX), "--expire-after", "1h")
NOWHERE = "/files/" + "0" * 32


@pytest.fixture(scope="module", params=["http1", "http2"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def extensions(tus: Tus) -> list[str]:
    return tus.options()["tus-extension"].split(",")


# creation


def test_creation_is_advertised(tus: Tus) -> None:
    """T21: creation is advertised."""
    assert "creation" in extensions(tus)


def test_creation_names_a_length_or_defers_it(tus: Tus) -> None:
    """T22: POST with Upload-Length or Upload-Defer-Length: 1; other defer values 400."""
    assert tus.post(5).status == 201
    assert tus.post(None, {"Upload-Defer-Length": "1"}).status == 201
    assert tus.post(None).status == 400
    assert tus.post(5, {"Upload-Defer-Length": "1"}).status == 400
    for wrong in ("0", "2", "true", "01", "", "1, 1"):
        assert tus.post(None, {"Upload-Defer-Length": wrong}).status == 400, wrong


def test_nothing_is_complete_at_once(tus: Tus) -> None:
    """T23: zero length completes at creation."""
    path = tus.create(0)
    assert tus.offset(path) == 0
    assert tus.content(path) == b""


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ("a YQ==", 201),
        ("a YQ==,b", 201),
        ("a ,b YQ==", 201),
        ("", 201),
        ("a YQ==,a YQ==", 400),
        ("a,a", 400),
        ("a YQ==,,b Yg==", 400),
        ("a b YQ==", 400),
        ("a Y", 400),
        ("a YQ", 400),
        ("a YQ==,", 400),
        (",", 400),
        ("a *", 400),
    ],
)
def test_metadata_is_pairs_of_unique_keys_and_base64(value: str, status: int, tus: Tus) -> None:
    """T24: Upload-Metadata: comma-separated key SP base64, unique non-empty keys; the value may be empty."""
    assert tus.post(1, {"Upload-Metadata": value}).status == status


def test_metadata_can_not_break_out_of_a_header(tus: Tus) -> None:
    """T25: metadata is sanitised before it is used in headers."""
    name = '..\\../a"; x=\r\nSet-Cookie: a=b\r\n\r\n<b>\u202e\x00.txt'
    path = tus.create(1, {"Upload-Metadata": metadata(filename=name, filetype="text/html\r\nX-Evil: 1")}, b"a")
    answer = tus.get(path)
    assert answer.status == 200
    assert not {"set-cookie", "x-evil"} & {key for key, _ in answer.fields}
    assert answer["content-disposition"].startswith("attachment")
    assert "/" not in answer["content-disposition"] and "\\" not in answer["content-disposition"]
    assert answer["x-content-type-options"] == "nosniff"


def test_metadata_comes_back_as_supplied(tus: Tus) -> None:
    """T26: HEAD echoes it as supplied."""
    for value in (metadata(filename="naïve 文件.bin", b=""), "z eg==,a,B Qg==", "only"):
        assert tus.head(tus.create(1, {"Upload-Metadata": value}))["upload-metadata"] == value.strip()
    assert "upload-metadata" not in tus.head(tus.create(1))


def test_more_than_the_maximum(tus: Tus) -> None:
    """T27: over the maximum 413."""
    assert tus.post(MAX).status == 201
    for length in (MAX + 1, 2**40, 2**63 - 1):
        answer = tus.post(length)
        assert answer.status == 413
        assert "location" not in answer


def test_creation_answers_with_the_location(tus: Tus, daemon: Daemon) -> None:
    """T28: 201 + Location; absolute, and the upload is there."""
    answer = tus.post(7)
    assert answer.status == 201
    assert answer["location"].startswith("http://127.0.0.1/files/")  # as the Host field says
    found = tus.ask("POST", None, {"Upload-Length": "7", "Host": f"up.example:{daemon.port}"})
    assert found["location"].startswith(f"http://up.example:{daemon.port}/files/")
    assert tus.offset(tus.path(answer)) == 0


# creation-defer-length


def test_deferred_length_is_advertised(tus: Tus) -> None:
    """T29: creation-defer-length is advertised."""
    assert "creation-defer-length" in extensions(tus)


def test_head_tells_that_the_length_is_unknown(tus: Tus) -> None:
    """T30: HEAD carries Upload-Defer-Length: 1 while unknown, never otherwise."""
    path = tus.create(None)
    assert tus.head(path)["upload-defer-length"] == "1"
    tus.patch(path, 0, b"ab")
    assert tus.head(path)["upload-defer-length"] == "1"
    tus.patch(path, 2, b"", {"Upload-Length": "4"})
    answer = tus.head(path)
    assert "upload-defer-length" not in answer and answer["upload-length"] == "4"
    assert "upload-defer-length" not in tus.head(tus.create(4))


def test_the_length_is_told_once(tus: Tus) -> None:
    """T31: Upload-Length on a later PATCH; once set it does not change."""
    path = tus.create(None, None, b"ab")
    assert tus.patch(path, 2, b"c", {"Upload-Length": "5"}).status == 204
    assert tus.patch(path, 3, b"d", {"Upload-Length": "6"}).status == 400
    assert tus.head(path)["upload-length"] == "5"
    assert tus.patch(path, 3, b"de", {"Upload-Length": "5"}).status == 204
    assert tus.content(path) == b"abcde"


# creation-with-upload


def test_creation_with_upload_is_advertised(tus: Tus) -> None:
    """T32: creation-with-upload is advertised."""
    assert "creation-with-upload" in extensions(tus)


def test_the_body_of_a_creation_follows_the_rules_of_patch(tus: Tus) -> None:
    """T33: the body follows the rules of PATCH: type, length, checksum."""
    assert tus.post(3, {"Content-Type": "text/plain"}, b"abc").status == 415
    assert tus.post(3, None, b"abcd").status == 413
    assert tus.post(3, {"Upload-Checksum": checksum("sha1", b"abd")}, b"abc").status == 460
    answer = tus.post(3, {"Upload-Checksum": checksum("sha1", b"abc")}, b"abc")
    assert tus.content(tus.path(answer)) == b"abc"


def test_creation_with_upload_answers_with_the_offset(tus: Tus) -> None:
    """T34: as much as possible is taken, Upload-Offset is returned."""
    answer = tus.post(10, None, b"abc")
    assert (answer.status, answer.offset) == (201, 3)
    answer = tus.post(10, None, [b"abc", b"d"])
    assert (answer.status, answer.offset) == (201, 4)
    assert tus.offset(tus.path(answer)) == 4


def test_what_came_with_a_broken_creation_does_no_harm(tus: Tus) -> None:
    """T34: a connection that breaks under the creation leaves the service as it was."""
    with tus.wire() as wire:
        fields = {"Upload-Length": "100000", "Content-Type": OCTETS, "Content-Length": "100000"}
        wire.send(head_bytes("POST", "/files/", fields) + b"x" * 70_000)
        wire.reset()
    assert tus.post(3, None, b"abc").status == 201


def test_a_creation_is_decided_before_its_body(tus: Tus) -> None:
    """T35: clients send Expect: 100-continue: decided before the body."""
    fields = {"Content-Type": OCTETS, "Expect": "100-continue", "Content-Length": "5"}
    with tus.wire() as wire:
        answer = check("POST", wire.send(head_bytes("POST", "/files/", {**fields, "Upload-Length": "4"})).answer())
        assert (answer.status, answer.interim) == (413, ())
        assert wire.ended()
    with tus.wire() as wire:
        wire.send(head_bytes("POST", "/files/", {**fields, "Upload-Length": "5"}))
        assert wire.interim() == 100
        assert check("POST", wire.send(b"abcde").answer()).status == 201


# expiration


def test_expiration_is_advertised(tus: Tus) -> None:
    """T36: expiration is advertised."""
    assert "expiration" in extensions(tus)


def test_who_may_lose_an_upload_is_told_when(tus: Tus) -> None:
    """T37: Upload-Expires on every PATCH response if the upload will expire, and on POST if known."""
    created = tus.post(4)
    assert "upload-expires" in created
    path = tus.path(created)
    assert "upload-expires" in tus.head(path)
    assert "upload-expires" in tus.patch(path, 0, b"ab")
    assert "upload-expires" not in tus.patch(path, 2, b"cd"), "a finished upload never expires"
    assert "upload-expires" not in tus.head(path)
    assert "upload-expires" not in tus.post(0)


def test_the_expiry_is_a_date_of_http(tus: Tus) -> None:
    """T38: an RFC 9110 date, about an hour from now."""
    value = tus.post(4)["upload-expires"]
    assert value.endswith(" GMT") and len(value) == len("Sun, 06 Nov 1994 08:49:37 GMT")
    assert abs(parsedate_to_datetime(value).timestamp() - time.time() - 3600) < 120


@pytest.mark.skipif(Daemon.shares, reason="the janitor's work is taken over ten seconds after it was killed there")
def test_afterwards_it_is_gone() -> None:
    """T39: afterwards 410, as it is tracked; a finished upload stays."""
    with Daemon("--expire-after", "1") as daemon:
        daemon.start()
        tus = daemon.attach(Tus(daemon.port))
        kept, path = tus.create(3, None, b"abc"), tus.create(5, None, b"abc")

        def look() -> Answer | None:
            daemon.restart()  # the first round of the janitor is at the start
            return found if (found := tus.head(path)).status != 200 else None

        gone = eventually(look)
        assert gone.status == 410 and "upload-offset" not in gone
        assert tus.patch(path, 3, b"de").status == 410
        assert tus.content(kept) == b"abc"


# checksum


def test_checksum_is_advertised(tus: Tus) -> None:
    """T40: checksum is advertised."""
    assert "checksum" in extensions(tus)


def test_a_checked_append_counts_only_when_whole(tus: Tus) -> None:
    """T41: verified after the whole request: nothing of a broken one is kept."""
    path = tus.create(200_000)
    with tus.wire() as wire:
        wire.send(patch_head(path, 0, 200_000, {"Upload-Checksum": checksum("sha1", b"x" * 200_000)}) + b"x" * 100_000)
        assert tus.offset(path) == 0
    assert tus.offset(path) == 0
    good = {"Upload-Checksum": checksum("sha1", b"x" * 200_000)}
    # as long as the end of the broken connection is on its way, its bytes may just be arriving: 409
    answer = eventually(lambda: answer if (answer := tus.patch(path, 0, b"x" * 200_000, good)).status != 409 else None)
    assert answer.offset == 200_000


def test_a_wrong_checksum_discards_the_chunk(tus: Tus) -> None:
    """T42: 400 unknown algorithm, 460 mismatch: chunk discarded, offset unchanged."""
    path = tus.create(6, None, b"abc")
    assert tus.patch(path, 3, b"def", {"Upload-Checksum": "sha3 " + base64.b64encode(b"x" * 20).decode()}).status == 400
    assert tus.patch(path, 3, b"def", {"Upload-Checksum": checksum("sha1", b"deg")}).status == 460
    assert tus.offset(path) == 3
    tus.finish(path, b"abcdef")
    assert tus.content(path) == b"abcdef"


def test_every_advertised_algorithm_works(tus: Tus) -> None:
    """T43: sha1 is supported; names are lower-case ASCII."""
    names = tus.options()["tus-checksum-algorithm"].split(",")
    assert {"sha1", "md5", "sha256", "sha512", "crc32"} <= set(names)
    assert all(name.isascii() and name == name.lower() for name in names)
    known = {"crc32": b"\xcb\xf4\x39\x26", "crc32c": b"\xe3\x06\x92\x83"}  # the check values of "123456789"
    for name in names:
        value = f"{name} {base64.b64encode(known[name]).decode()}" if name in known else checksum(name, b"123456789")
        path = tus.create(9)
        assert tus.patch(path, 0, b"123456780", {"Upload-Checksum": value}).status == 460, name
        assert tus.patch(path, 0, b"123456789", {"Upload-Checksum": value}).status == 204, name


def test_options_lists_the_algorithms(tus: Tus) -> None:
    """T44: OPTIONS carries Tus-Checksum-Algorithm, without blanks."""
    assert " " not in tus.options()["tus-checksum-algorithm"]


def test_a_checksum_is_an_algorithm_and_base64(tus: Tus) -> None:
    """T45: algo SP base64."""
    path = tus.create(3)
    right = checksum("sha1", b"abc")
    name, _, value = right.partition(" ")
    for wrong in (
        "sha1",
        "sha1 ",
        value,
        f"{name},{value}",
        f"SHA1 {value}",
        f"{name} {value[:-1]}",
        f"{name} !!!!",
        "",
    ):
        assert tus.patch(path, 0, b"abc", {"Upload-Checksum": wrong}).status == 400, wrong
    assert tus.patch(path, 0, b"abc", {"Upload-Checksum": right}).status == 204


def test_the_checksum_may_be_a_trailer(tus: Tus) -> None:
    """T46: checksum-trailer is advertised; the checksum may be a trailer."""
    assert "checksum-trailer" in extensions(tus)
    announced = {"Trailer": "Upload-Checksum"}
    path = tus.create(6)
    wrong = tus.patch(path, 0, [b"ab", b"c"], announced, {"Upload-Checksum": checksum("sha1", b"abx")})
    assert wrong.status == 460
    assert tus.offset(path) == 0
    missing = tus.patch(path, 0, [b"abc"], announced)
    assert missing.status == 400
    assert tus.offset(path) == 0
    right = tus.patch(path, 0, [b"ab", b"c"], announced, {"Upload-Checksum": checksum("sha256", b"abc")})
    assert (right.status, right.offset) == (204, 3)


# termination


def test_termination_of_finished_and_unfinished(tus: Tus) -> None:
    """T47: advertised; finished and unfinished uploads."""
    assert "termination" in extensions(tus)
    for path in (
        tus.create(3),
        tus.create(3, None, b"a"),
        tus.create(3, None, b"abc"),
        tus.create(0),
        tus.create(None),
    ):
        assert tus.delete(path).status == 204


@pytest.mark.skipif(Daemon.shares, reason="files go a minute after a removal there")
def test_termination_frees_what_was_there(tus: Tus, daemon: Daemon) -> None:
    """T48: DELETE frees resources, 204; then 410."""
    path = tus.create(100_000, None, b"x" * 100_000)
    file = daemon.upload_dir / path.rsplit("/", 1)[-1]
    assert file.stat().st_size == 100_000
    assert tus.delete(path).status == 204
    assert not file.exists()
    for answer in (tus.head(path), tus.patch(path, 0, b"x"), tus.delete(path), tus.get(path)):
        assert answer.status == 410
    assert tus.delete(NOWHERE).status == 404


# concatenation


def test_concatenation_is_advertised(tus: Tus) -> None:
    """T49: concatenation is advertised."""
    assert "concatenation" in extensions(tus)


def test_partials_are_named_in_every_way_that_clients_know(tus: Tus, daemon: Daemon) -> None:
    """T50: partial; final;url url: relative or absolute URLs."""
    parts = [tus.partial(b"ab"), tus.partial(b""), tus.partial(b"c"), tus.partial(b"de")]
    urls = [
        parts[0],
        f"{daemon.origin}{parts[1]}",
        f"http://another.name{parts[2]}",
        f"https://127.0.0.1{parts[3]}",
    ]
    assert tus.content(tus.concat(*urls)) == b"abcde"


def test_partials_are_left_alone_before_the_final(tus: Tus) -> None:
    """T51: partials are not processed before the final: a finished one stays a partial upload."""
    part = tus.partial(b"abc")
    answer = tus.head(part)
    assert (answer["upload-concat"], answer.offset) == ("partial", 3)
    assert tus.content(tus.concat(part)) == b"abc"


def test_the_final_is_the_parts_in_order(tus: Tus) -> None:
    """T52: the length is the sum, in order."""
    first, second, third = tus.partial(b"1" * 70_001), tus.partial(b"22"), tus.partial(b"3" * 4096)
    final = tus.concat(third, first, second)
    assert tus.assembled(final)["upload-length"] == str(70_001 + 2 + 4096)
    assert tus.content(final) == b"3" * 4096 + b"1" * 70_001 + b"22"


def test_a_final_with_a_length_of_the_clients(tus: Tus) -> None:
    """T53: no Upload-Length from the client on a final."""
    part = tus.partial(b"abc")
    assert tus.post(3, {"Upload-Concat": f"final;{part}"}).status == 400
    assert tus.post(None, {"Upload-Concat": f"final;{part}", "Upload-Defer-Length": "1"}).status == 400


def test_a_final_may_come_before_its_parts_are_finished(tus: Tus) -> None:
    """T54: concatenation-unfinished is advertised and unfinished partials are accepted."""
    assert "concatenation-unfinished" in extensions(tus)
    first, second = tus.partial(b"abc"), tus.create(3, {"Upload-Concat": "partial"})
    third = tus.create(None, {"Upload-Concat": "partial", "Upload-Defer-Length": "1"})
    final = tus.concat(first, second, third)
    assert "upload-offset" not in tus.head(final)
    tus.patch(third, 0, b"gh", {"Upload-Length": "2"})
    assert "upload-offset" not in tus.head(final)
    tus.patch(second, 0, b"def")
    assert tus.content(final) == b"abcdefgh"


def test_metadata_of_partials_stays_with_them(tus: Tus) -> None:
    """T55: metadata does not carry over."""
    part = tus.create(1, {"Upload-Concat": "partial", "Upload-Metadata": metadata(a="1")}, b"x")
    assert "upload-metadata" not in tus.head(tus.concat(part))
    own = metadata(b="2")
    assert tus.head(tus.concat(part, fields={"Upload-Metadata": own}))["upload-metadata"] == own


def test_partials_may_repeat_be_used_again_and_be_deleted(tus: Tus) -> None:
    """T56: partials may be deleted later, repeat, or be reused."""
    part, other = tus.partial(b"ab"), tus.partial(b"c")
    twice = tus.concat(part, other, part)
    again = tus.concat(part)
    assert tus.delete(part).status == 204
    assert tus.delete(other).status == 204
    assert tus.content(twice) == b"abcab"
    assert tus.content(again) == b"ab"
    assert tus.head(part).status == 410


def test_a_final_takes_no_patch(tus: Tus) -> None:
    """T57: PATCH on a final 403."""
    final = tus.concat(tus.partial(b"abc"))
    tus.assembled(final)
    for offset, body in ((0, b"x"), (3, b""), (3, b"x"), (99, b"x")):
        assert tus.patch(final, offset, body).status == 403
    assert tus.content(final) == b"abc"


def test_a_final_has_no_offset_until_it_is_whole(tus: Tus) -> None:
    """T58: HEAD of a final: no Upload-Offset until finished, then Upload-Offset = Upload-Length."""
    part = tus.create(3, {"Upload-Concat": "partial"}, b"a")
    final = tus.concat(part)
    assert "upload-offset" not in tus.head(final)
    tus.patch(part, 1, b"bc")
    answer = tus.assembled(final)
    assert answer["upload-offset"] == answer["upload-length"] == "3"


def test_head_of_a_partial_has_the_offset(tus: Tus) -> None:
    """T59: HEAD of a partial carries Upload-Offset."""
    assert tus.head(tus.create(3, {"Upload-Concat": "partial"}, b"a"))["upload-offset"] == "1"


def test_the_length_of_a_final_is_told_as_soon_as_it_is_known(tus: Tus) -> None:
    """T60: a final's Upload-Length when it can be computed."""
    known, unknown = (
        tus.create(3, {"Upload-Concat": "partial"}),
        tus.create(None, {"Upload-Concat": "partial", "Upload-Defer-Length": "1"}),
    )
    assert tus.head(tus.concat(known, known))["upload-length"] == "6"
    final = tus.concat(known, unknown)
    assert "upload-length" not in tus.head(final)
    tus.patch(unknown, 0, b"x", {"Upload-Length": "5"})
    assert tus.head(final)["upload-length"] == "8"


def test_concat_comes_back_with_paths_for_urls(tus: Tus) -> None:
    """T61: HEAD echoes Upload-Concat; what a client's URLs have besides the path (a token, say) isn't kept."""
    part = tus.partial(b"a")
    assert tus.head(part)["upload-concat"] == "partial"
    final = tus.create(None, {"Upload-Concat": f"final;{part} http://some.where{part}?token=secret"})
    assert tus.head(final)["upload-concat"] == f"final;{part} {part}"


def test_the_creation_of_partial_and_final_says_so(tus: Tus) -> None:
    """T62: the 201 of a partial or final carries Upload-Concat."""
    answer = tus.post(1, {"Upload-Concat": "partial"}, b"a")
    assert answer["upload-concat"] == "partial"
    value = f"final;{tus.path(answer)}"
    assert tus.post(None, {"Upload-Concat": value})["upload-concat"] == value
    assert "upload-concat" not in tus.post(1)


def test_a_chunked_trailer_is_read_from_a_slow_sender(tus: Tus) -> None:
    """T46: pieces of the trailer in packets of their own."""
    path = tus.create(3)
    whole = chunk(b"abc") + last_chunk({"Upload-Checksum": checksum("sha1", b"abc")})
    with tus.wire() as wire:
        wire.send(patch_head(path, 0, None, {"Trailer": "Upload-Checksum"}))
        for at in range(len(whole)):
            wire.send(whole[at : at + 1])
        assert check("PATCH", wire.answer()).status == 204
