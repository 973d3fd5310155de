"""Objects go without what a client wrote of them, rather than not at all; what was refused is remembered."""

from __future__ import annotations

import pytest
from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent

from resumable.remotes.errors import AuthFailed, Permanent, RemoteError, Transient, Unusable, Unwelcome
from resumable.remotes.metadata import ID_METADATA, MetadataRoom, fitting, in_ascii, stripped, taken

CLEAR, VAGUE, OTHER = Unwelcome("too large"), Unusable("hm", code="vague"), Permanent("key too long")


@frozen
class Record:
    """Three steps: all of it, without the metadata, with nothing of the client's."""

    said: int = 2
    key: str = "some/key"

    def plainer(self) -> Record | None:
        return evolve(self, said=self.said - 1) if self.said else None


class Store:
    """Answers each try with what ``answers`` has for it, then takes what comes."""

    def __init__(self, *answers: RemoteError) -> None:
        self.answers = list(answers)
        self.asked: list[int] = []
        self.saved: list[int] = []

    async def save(self, upload_id: str, record: Record) -> Record:
        self.saved.append(record.said)
        return record

    async def make(self, record: Record) -> str:
        self.asked.append(record.said)
        if self.answers:
            raise self.answers.pop(0)
        return "made"

    def taken(self, record: Record) -> tuple[Record, str]:
        made: list[tuple[Record, str]] = []
        work = taken(self, "u1", record, self.make, lambda error: error.code == "vague")
        failed: list[RemoteError] = []
        done: Deferred[tuple[Record, str]] = Deferred.fromCoroutine(work)
        done.addCallbacks(made.append, lambda failure: failed.append(failure.value))
        if failed:
            raise failed[0]
        return made[0]


@pytest.mark.parametrize(
    ("answers", "asked", "saved", "warnings"),
    [
        ([], [2], [], 0),
        ([CLEAR], [2, 1], [1], 1),
        ([CLEAR, CLEAR], [2, 1, 0], [1, 0], 1),
        ([VAGUE], [2, 1], [], 1),
        ([VAGUE, VAGUE], [2, 1, 0], [], 1),
        ([VAGUE, CLEAR], [2, 1, 0], [0], 1),
        ([CLEAR, VAGUE], [2, 1, 0], [1], 1),
    ],
)
def test_it_goes_without_step_by_step_with_one_warning(answers, asked, saved, warnings):
    store = Store(*answers)
    with capturedLogs() as logged:
        record, made = store.taken(Record())
    assert (made, record.said, store.asked) == ("made", asked[-1], asked)
    assert store.saved == saved, "what was clearly refused is remembered before the store is asked again"
    assert len(logged) == warnings
    for event in logged:
        assert event["upload"] == "u1" and "some/key" in formatEvent(event) and "without" in formatEvent(event)


@pytest.mark.parametrize("final", [OTHER, Transient("503"), AuthFailed("403")])
@pytest.mark.parametrize("before", [[], [CLEAR], [VAGUE]])
def test_other_failures_are_nobodys_fault_but_their_own(before, final):
    store = Store(*before, final)
    with pytest.raises(type(final)) as caught:
        store.taken(Record())
    assert caught.value is final and len(store.asked) == len(before) + 1


def test_a_failure_that_stays_is_the_last_one_and_nothing_is_forgotten_for_it():
    store = Store(VAGUE, VAGUE, VAGUE)
    with capturedLogs() as logged, pytest.raises(Unusable):
        store.taken(Record())
    assert store.asked == [2, 1, 0] and not store.saved and not logged
    store = Store(CLEAR)
    with pytest.raises(Unwelcome):
        store.taken(Record(0))


def test_headers_lose_the_metadata_first_and_keep_the_id_to_the_end():
    headers = {"x-meta-id": "1", "x-meta-a": "b", "Content-Type": "text/css", "Content-Disposition": "attachment"}
    first = stripped(headers, "x-meta-", "x-meta-id", {"Content-Type": "plain"})
    assert first == {"x-meta-id": "1", "Content-Type": "text/css", "Content-Disposition": "attachment"}
    second = stripped(first, "x-meta-", "x-meta-id", {"Content-Type": "plain"})
    assert second == {"x-meta-id": "1", "Content-Type": "plain"}
    assert stripped(second, "x-meta-", "x-meta-id", {"Content-Type": "plain"}) is None


OURS = {ID_METADATA: "1" * 32}
USED = len(ID_METADATA) + 32


@pytest.mark.parametrize(
    ("room", "kept"),
    [
        (MetadataRoom(USED + 4), {"a": "123"}),
        (MetadataRoom(USED + 9), {"a": "123", "c": "1234"}),
        (MetadataRoom(USED + 9, each=2), {"a": "123"}),
        (MetadataRoom(9999), {"a": "123", "b": "x" * 300, "c": "1234"}),
        (MetadataRoom(9999, value=256), {"a": "123", "c": "1234"}),
        (MetadataRoom(9999, entries=2), {"a": "123"}),
        (MetadataRoom(USED), {}),
    ],
)
def test_what_a_store_is_known_to_take_is_known_before_it_is_asked(room, kept):
    metadata = {"a": b"123", "b": b"x" * 300, "c": b"1234", "bad name": b"x", ID_METADATA: b"x"}
    assert in_ascii(metadata, room, OURS) == kept
    assert fitting({name: value.decode() for name, value in metadata.items()}, room, OURS) == kept
