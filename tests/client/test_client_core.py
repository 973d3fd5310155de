"""The client's core, without I/O: each answer to each step, and what the client does then."""

from __future__ import annotations

import math
import os
from io import BytesIO
from pathlib import Path

import pytest

from resumable.client import (
    AlreadySending,
    BadOption,
    ClientOptions,
    DigestDiffers,
    GaveUp,
    NotAuthorised,
    NothingThere,
    NotResumable,
    SizeRefused,
    SourceChanged,
    TransferRefused,
)
from resumable.client.effects import Exchange
from resumable.client.sources import BytesSource, FileSource, SendSource, StreamSource
from tests.client.world import BASE, LOST_ANSWER, LOST_BEFORE, Fault, World, answer, cut_after, new_world

DATA = bytes(range(256)) * 40
DRAFT = ClientOptions(protocol="draft")
OURS = (("tus-resumable", "1.0.0"), ("content-type", "application/problem+json"))


def stored(world: World, url: str) -> bytes:
    upload = world.uploads[url]
    assert upload.complete
    return bytes(upload.data)


@pytest.mark.parametrize("protocol", ["tus", "draft"])
def test_a_source_goes_in_one_request_and_is_checked(world: World, protocol: str) -> None:
    done = world.put(DATA, ClientOptions(protocol=protocol))
    assert stored(world, done.url) == DATA
    assert world.methods() == ["POST", "PATCH", "HEAD"]
    assert (done.size, done.sent, done.resumed_from, done.protocol, done.checked) == (
        len(DATA),
        len(DATA),
        0,
        protocol,
        True,
    )
    assert [event.name for event in world.events if event.name != "moved"] == ["begun", "sent", "checked"]
    assert world.state.entries() == []


@pytest.mark.parametrize("protocol", ["tus", "draft"])
def test_nothing_at_all_can_be_sent(world: World, protocol: str) -> None:
    done = world.put(b"", ClientOptions(protocol=protocol))
    assert stored(world, done.url) == b""


def test_a_server_of_the_draft_only_is_found_out(world: World) -> None:
    world.speaks = ("draft",)
    assert world.put(DATA).protocol == "draft"


@pytest.mark.parametrize(("asked", "speaks"), [("auto", ()), ("tus", ("draft",)), ("draft", ("tus",))])
def test_an_address_that_speaks_neither_is_told_in_words(world: World, asked: str, speaks: tuple[str, ...]) -> None:
    world.speaks = speaks
    world.before = lambda exchange: world.fails(answer(405))
    with pytest.raises(NotResumable, match="give the URL at which uploads are created"):
        world.put(DATA, ClientOptions(protocol=asked))


def test_an_address_with_nothing_is_not_there(world: World) -> None:
    world.speaks = ()
    with pytest.raises(NothingThere):
        world.put(DATA)


@pytest.mark.parametrize("protocol", ["tus", "draft"])
@pytest.mark.parametrize("fault", [LOST_BEFORE, LOST_ANSWER, cut_after(1), cut_after(5000), answer(502), answer(409)])
def test_after_any_trouble_the_offset_is_asked_for(world: World, protocol: str, fault: Fault) -> None:
    world.fails(None, fault)
    done = world.put(DATA, ClientOptions(protocol=protocol))
    assert stored(world, done.url) == DATA
    assert world.methods()[:3] == ["POST", "PATCH", "HEAD"]
    assert [event.name for event in world.told("retried", "recovered")] == ["retried", "recovered"]


@pytest.mark.parametrize("status", [408, 423, 425, 429, 500, 502, 503, 504])
def test_passing_refusals_are_tried_again(world: World, status: int) -> None:
    world.fails(answer(status), None, answer(status), answer(status))
    assert stored(world, world.put(DATA).url) == DATA
    assert len(world.told("retried")) == 3


@pytest.mark.parametrize(
    ("source", "faults", "begun"),
    [
        (BytesSource(DATA), [LOST_BEFORE], False),
        (BytesSource(DATA), [None, LOST_BEFORE], True),
        (StreamSource(BytesIO(DATA), 1 << 20), [None, LOST_BEFORE], False),
    ],
    ids=["nothing was begun", "it was begun", "a stream"],
)
def test_that_it_goes_on_is_said_only_where_it_does(
    world: World, source: SendSource, faults: list[Fault | None], begun: bool
) -> None:
    world.fails(*faults)
    with pytest.raises(GaveUp) as raised:
        world.put(source, ClientOptions(retry_for=0))
    assert raised.value.begun is begun
    assert str(raised.value).endswith("the same call goes on where it ended" if begun else "gave up after 1 try")


def test_retry_after_is_obeyed(world: World) -> None:
    world.fails(
        answer(503, ("retry-after", "77")),
        answer(503, ("retry-after", "Tue, 01 Dec 2026 12:01:00 GMT"), ("date", "Tue, 01 Dec 2026 12:00:00 GMT")),
    )
    world.put(DATA)
    assert world.pauses == [77.0, 60.0]


def test_waits_double_up_to_a_minute_and_the_time_for_them_ends(world: World) -> None:
    world.before = lambda exchange: world.fails(LOST_BEFORE)
    with pytest.raises(GaveUp, match="the network is away; gave up after 12 tries"):
        world.put(DATA, ClientOptions(retry_for=300))
    assert world.pauses[:8] == [0.5, 1, 2, 4, 8, 16, 32, 60]
    assert sum(world.pauses) <= 300


def test_without_time_for_retries_the_first_trouble_is_the_last(world: World) -> None:
    world.fails(None, LOST_BEFORE)
    with pytest.raises(GaveUp):
        world.put(DATA, ClientOptions(retry_for=0))
    assert world.pauses == []
    assert len(world.state.entries()) == 1


def test_the_time_for_retries_begins_anew_when_bytes_have_moved(world: World) -> None:
    world.fails(
        None, *[fault for _ in range(20) for fault in (answer(503, ("retry-after", "8")), None, cut_after(10), None)]
    )
    assert stored(world, world.put(DATA, ClientOptions(retry_for=10)).url) == DATA


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, TransferRefused), (401, NotAuthorised), (403, NotAuthorised), (413, SizeRefused), (415, TransferRefused)],
)
def test_other_refusals_are_final_with_the_reason_in_words(world: World, status: int, error: type[Exception]) -> None:
    world.fails(answer(status, *OURS, body=b'{"title": "No", "detail": "Because\\nof that."}'))
    with pytest.raises(error, match=rf"answers {status}: Because of that\."):
        world.put(DATA)
    assert world.methods() == ["POST"]


def test_the_same_call_goes_on_at_the_same_byte(world: World) -> None:
    world.fails(None, cut_after(3000))
    with pytest.raises(GaveUp):
        world.put(DATA, ClientOptions(retry_for=0))
    world.events.clear()
    done = world.put(DATA)
    assert stored(world, done.url) == DATA
    assert (done.resumed_from, done.sent) == (3000, len(DATA) - 3000)
    begun = world.told("begun")[0]
    assert (begun.offset, begun.resumed) == (3000, True)  # type: ignore[attr-defined]
    moved = world.told("moved")[-1]
    assert (moved.run, moved.sent) == (len(DATA) - 3000, len(DATA))  # type: ignore[attr-defined]


def test_a_lost_last_answer_is_found_out_by_the_next_call(world: World) -> None:
    world.fails(None, LOST_ANSWER)
    with pytest.raises(GaveUp):
        world.put(DATA, ClientOptions(retry_for=0))
    done = world.put(DATA)
    assert (done.sent, done.resumed_from) == (0, len(DATA))
    assert world.methods().count("PATCH") == 1


def test_an_upload_of_the_draft_that_lacks_only_its_end_is_completed(world: World) -> None:
    world.fails(None, cut_after(len(DATA)))
    world.before = lambda exchange: (
        setattr(world.uploads[exchange.url], "complete", False)
        if exchange.method == "HEAD" and len(world.requests) == 2
        else None
    )
    done = world.put(DATA, DRAFT)
    assert stored(world, done.url) == DATA
    assert [each.body.size for each in world.requests if each.body] == [len(DATA), 0]


@pytest.mark.parametrize("status", [404, 410])
def test_an_upload_that_is_gone_is_begun_anew_and_that_is_told(world: World, status: int) -> None:
    world.fails(None, cut_after(3000), answer(status))
    done = world.put(DATA)
    assert stored(world, done.url) == DATA
    assert len(world.told("startedover")) == 1
    assert (done.resumed_from, done.size) == (0, len(DATA))
    assert world.told("begun")[-1].resumed is False  # type: ignore[attr-defined]


def test_an_upload_that_is_always_gone_is_given_up(world: World) -> None:
    world.before = lambda exchange: world.fails(answer(404)) if exchange.method == "PATCH" else None
    with pytest.raises(NothingThere):
        world.put(DATA)
    assert world.methods().count("POST") == 4


def test_a_413_of_something_on_the_way_shrinks_the_pieces_and_is_remembered(world: World) -> None:
    data = bytes(3 << 20)
    world.most = 1 << 20
    assert stored(world, world.put(data).url) == data
    assert [event.size for event in world.told("piecesshrunk")] == [3 << 19, 3 << 18]  # type: ignore[attr-defined]
    world.events.clear()
    assert stored(world, world.put(data + b"x").url) == data + b"x"
    assert world.told("piecesshrunk") == []


def test_pieces_have_an_end(world: World) -> None:
    world.most = 1000
    with pytest.raises(SizeRefused, match="refuses requests of 262144 bytes"):
        world.put(bytes(1 << 20))


def test_the_servers_own_413_is_final(world: World) -> None:
    world.fails(None, answer(413, *OURS, body=b'{"detail": "At most 5 bytes."}'))
    with pytest.raises(SizeRefused, match=r"At most 5 bytes\."):
        world.put(DATA)


def test_the_limit_that_the_draft_tells_bounds_the_pieces(world: World) -> None:
    world.limit = "max-size=100000, max-append-size=4000"
    world.put(DATA, DRAFT)
    assert [each.body.size for each in world.requests if each.body] == [4000, 4000, 2240]


def test_every_piece_has_its_checksum_where_the_server_offers_one(world: World) -> None:
    done = world.put(DATA, ClientOptions(checksum="auto", chunk_size=4000))
    assert stored(world, done.url) == DATA
    sums = [dict(each.fields)["Upload-Checksum"].split()[0] for each in world.requests if each.method == "PATCH"]
    assert sums == ["crc32c"] * 3
    world.checks = "md5"
    world.put(DATA + b"x", ClientOptions(checksum="sha256"))
    assert "no checksum of sha256" in world.told("noted")[-1].message  # type: ignore[attr-defined]


def test_a_damaged_piece_is_sent_again_and_not_for_ever(world: World) -> None:
    world.fails(None, None, answer(460, *OURS))
    assert stored(world, world.put(DATA, ClientOptions(checksum="sha1")).url) == DATA
    world.before = lambda exchange: world.fails(answer(460, *OURS)) if exchange.method == "PATCH" else None
    with pytest.raises(TransferRefused):
        world.put(DATA + b"x", ClientOptions(checksum="sha1"))


def test_an_announced_digest_that_the_server_doesnt_find_ends_it(world: World) -> None:
    world.fails(None, answer(460, *OURS))
    with pytest.raises(DigestDiffers, match="remove that upload"):
        world.put(DATA, ClientOptions(announce=True))
    assert world.state.entries() == []
    assert "sha256 " in dict(world.requests[0].fields)["Upload-Metadata"]


def test_other_bytes_at_the_server_are_never_fine(world: World) -> None:
    def damage(exchange: Exchange) -> None:
        if exchange.method == "HEAD":
            world.uploads[exchange.url].data[7] ^= 1

    world.before = damage
    with pytest.raises(DigestDiffers) as raised:
        world.put(DATA)
    assert raised.value.theirs != raised.value.ours
    assert world.state.entries() == []


def test_a_server_without_digests_or_status_is_told_of(world: World) -> None:
    world.digests = False
    done = world.put(DATA, ClientOptions(wait_stored=True))
    assert (done.checked, done.digest, done.stored) == (False, None, None)
    assert len(world.told("noted")) == 2


def test_it_waits_until_the_upload_is_stored(world: World) -> None:
    world.status = True
    assert world.put(DATA, ClientOptions(wait_stored=True)).stored is True
    assert [event.name for event in world.told("looked", "kept")] == ["looked", "kept"]


def test_parts_are_put_together_and_each_goes_on(world: World) -> None:
    data = bytes(range(256)) * (16 << 10)
    options = ClientOptions(parts=3, retry_for=0)
    world.fails(None, None, None, None, cut_after(1000))
    with pytest.raises(GaveUp):
        world.put(data, options)
    done = world.put(data, ClientOptions(parts=3))
    assert stored(world, done.url) == data
    assert done.resumed_from == 1000 + len(data) - len(data) // 3
    assert done.sent == len(data) - done.resumed_from
    assert dict(world.requests[-2].fields)["Upload-Concat"].startswith("final;")


def test_where_parts_cant_be_put_together_it_goes_as_one(world: World) -> None:
    world.concatenates = False
    data = bytes(4 << 20)
    assert stored(world, world.put(data, ClientOptions(parts=3)).url) == data
    assert "as one" in world.told("noted")[0].message  # type: ignore[attr-defined]


def test_a_lost_answer_to_the_final_request_is_asked_for_again(world: World) -> None:
    data = bytes(2 << 20)
    world.fails(None, None, None, None, None, LOST_ANSWER)
    assert stored(world, world.put(data, ClientOptions(parts=2)).url) == data


def test_a_source_that_has_changed_is_never_spliced(world: World, directory: Path) -> None:
    path = directory / "source"
    path.write_bytes(DATA)
    world.fails(None, cut_after(3000))
    with pytest.raises(GaveUp):
        world.put(FileSource(path), ClientOptions(retry_for=0))
    path.write_bytes(DATA[::-1])
    with pytest.raises(SourceChanged, match="has changed since its upload was begun") as raised:
        world.put(FileSource(path))
    assert raised.value.url in world.uploads
    done = world.put(FileSource(path), ClientOptions(on_changed="restart"))
    assert stored(world, done.url) == DATA[::-1]
    assert raised.value.url not in world.uploads  # it was removed


@pytest.mark.parametrize("protocol", ["tus", "draft"])
def test_a_change_that_the_fingerprint_misses_is_found_by_the_digest_before_the_upload_is_finished(
    world: World, directory: Path, protocol: str
) -> None:
    path, data = directory / "source", bytearray(3 << 20)
    path.write_bytes(data)
    times = path.stat()
    world.fails(None, cut_after(2 << 20))
    with pytest.raises(GaveUp):
        world.put(FileSource(path), ClientOptions(protocol=protocol, retry_for=0))
    data[100_000] = 1
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(DigestDiffers):
        world.put(FileSource(path), ClientOptions(protocol=protocol))
    assert not any(upload.complete for upload in world.uploads.values())
    assert world.state.entries() == []
    assert stored(world, world.put(FileSource(path)).url) == data


def test_what_goes_on_is_announced_with_its_last_bytes(world: World) -> None:
    world.fails(None, cut_after(3000))
    with pytest.raises(GaveUp):
        world.put(DATA, ClientOptions(retry_for=0))
    assert world.put(DATA).checked
    assert "Repr-Digest" in dict([each for each in world.requests if each.method == "PATCH"][-1].fields)
    assert world.methods()[2:] == ["OPTIONS", "HEAD", "PATCH", "HEAD"]


def test_a_source_that_changes_while_it_is_sent_is_noticed(world: World, directory: Path) -> None:
    path = directory / "source"
    path.write_bytes(DATA)
    world.before = lambda exchange: path.write_bytes(DATA + b"more") and None if exchange.method == "PATCH" else None
    with pytest.raises(SourceChanged, match="fresh=True sends it anew and removes") as raised:
        world.put(FileSource(path))
    assert not world.uploads[raised.value.url or ""].complete
    assert [each.url for each in world.state.entries()] == [raised.value.url]
    world.before = lambda exchange: None
    done = world.put(FileSource(path), fresh=True)
    assert stored(world, done.url) == DATA + b"more" and list(world.uploads) == [done.url]


def test_a_source_that_changes_after_its_last_byte_is_noticed_as_well(world: World, directory: Path) -> None:
    path = directory / "source"
    path.write_bytes(bytes(2 << 20))
    world.before = lambda exchange: (
        path.write_bytes(b"other") and None if "final;" in dict(exchange.fields).get("Upload-Concat", "") else None
    )
    with pytest.raises(SourceChanged, match="bytes of before and after; fresh=True") as raised:
        world.put(FileSource(path), ClientOptions(parts=2))
    assert raised.value.url in world.uploads
    world.before = lambda exchange: None
    done = world.put(FileSource(path), fresh=True)
    assert list(world.uploads) == [done.url]


def test_parts_of_a_source_that_has_changed_arent_put_together(world: World, directory: Path) -> None:
    path = directory / "source"
    path.write_bytes(bytes(2 << 20))
    source = FileSource(path)
    looks = iter([None, None])

    def recheck() -> None:
        if next(looks, source) is source:
            raise SourceChanged("it has changed", "source")

    source.recheck = recheck  # type: ignore[method-assign]
    with pytest.raises(SourceChanged, match="changed while it was sent; fresh=True"):
        world.put(source, ClientOptions(parts=2))
    assert len(world.uploads) == 2


def test_only_one_transfer_of_a_source_runs(world: World) -> None:
    key = world.state.key(BASE, BytesSource(DATA).identity)
    with pytest.raises(AlreadySending):
        claim = world.state.claim(key, "it")
        try:
            world.put(DATA)
        finally:
            claim.release()
    world.put(DATA)


def test_nothing_is_sent_outside_the_window_and_that_time_isnt_counted(world: World) -> None:
    world.fails(None, Fault(arrives=100, done=True, cut=5.0), None, LOST_BEFORE)
    waits = iter([0.0, 0.0, 30.0, 0.0])
    done = world.put(DATA, ClientOptions(may_send=lambda: next(waits, 0.0), retry_for=1))
    assert stored(world, done.url) == DATA
    assert [event.wait for event in world.told("waiting")] == [30.0]  # type: ignore[attr-defined]


def test_a_token_is_asked_for_at_each_request_and_goes_only_to_its_host(world: World) -> None:
    tokens = iter(["one", "two", "three", "four"])
    world.put(DATA, ClientOptions(token=lambda: next(tokens), headers={"X-Team": "a"}))
    assert [dict(each.fields)["Authorization"] for each in world.requests] == [
        "Bearer one",
        "Bearer two",
        "Bearer three",
    ]
    transfer = world.transfer(ClientOptions(token="secret"))
    world.fails(answer(308, ("location", "http://other/files/")))
    world.run(transfer.ask(Exchange(method="OPTIONS", url=BASE)))
    assert "Authorization" not in dict(world.requests[-1].fields)


def test_a_redirection_out_of_tls_is_refused(directory: Path) -> None:
    world = new_world(directory)
    world.fails(answer(308, ("location", "http://server/files/")))
    transfer = world.transfer(address="https://me:pass%20word@server/files/")
    with pytest.raises(BadOption, match="isn't encrypted"):
        world.run(transfer.ask(Exchange(method="POST", url=transfer.address)))
    assert dict(world.requests[-1].fields)["Authorization"] == "Basic bWU6cGFzcyB3b3Jk"


def test_retries_may_go_on_for_days(world: World) -> None:
    world.fails(None, *[LOST_BEFORE] * 5000)
    assert stored(world, world.put(DATA, ClientOptions(retry_for=math.inf)).url) == DATA
    assert world.now > 3 * 86400
