"""One upload, written by clients of both protocols in any order, against a simple model.

Invariants: an offset never decreases, the bytes are those that were acknowledged, in their order, and an upload is
complete only after an append with ?1 or, to tus, the last byte.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from random import Random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run

from tests.http.draft_client import COMPLETED, INCONSISTENT, MISMATCH, NEWEST, Draft, Said, appending, upload_id
from tests.http.visitor import serving
from tests.uploads.harness import LONG, pattern

RUN_LONG = bool(os.environ.get("RESUMABLE_LONG"))
SIZES = st.sampled_from([0, 1, 2, 7, LONG])
AWAY = st.sampled_from([0, 0, 0, 0, -1, 1, 5])
MORE = st.sampled_from([None, None, -1, 0, 1, 8])
"""How far past the content an announced length is."""
SOURCE = pattern(40 * LONG, seed=162)
OCTETS = "Content-Type: application/offset+octet-stream"


class Both(RuleBasedStateMachine):
    """``data``: what the server has. ``asked``: a client has said what ends the upload."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.server = self.stack.enter_context(serving())
        self.data = b""
        self.length: int | None = None
        self.asked = self.gone = False
        self.seen = 0
        self.by_draft = True

    def teardown(self) -> None:
        self.stack.close()

    def draft(self) -> Draft:
        """A new connection."""
        return Draft(self.server, NEWEST)

    def next(self, size: int) -> bytes:
        return SOURCE[len(self.data) : len(self.data) + size]

    def settle(self, client: Draft, said: Said) -> Said:
        """The answer, when an append before has been ended for it."""
        if said.status == 0:
            self.server.advance(2.0)
            said = client.heard()
        assert said.status, "never answered"
        return said

    @initialize(by_draft=st.booleans(), size=SIZES, more=MORE)
    def create(self, by_draft: bool, size: int, more: int | None) -> None:
        content = self.next(size)
        self.length = None if more is None or more < 0 else size + more
        sized = () if self.length is None else (f"Upload-Length: {self.length}",)
        self.by_draft = by_draft
        if by_draft:
            said = self.draft().post(content, "?0", *sized)
        else:
            sized = sized or ("Upload-Defer-Length: 1",)
            client = Draft(self.server, None)
            said = client.tell("POST", "/files/", "Tus-Resumable: 1.0.0", *sized, OCTETS, content=content)
            self.asked = self.length == size
        assert said.status == 201
        self.id, self.data = upload_id(said), content

    @property
    def all_there(self) -> bool:
        return self.length == len(self.data)

    @precondition(lambda self: not self.gone)
    @rule(away=AWAY, size=SIZES, complete=st.booleans(), more=MORE)
    def draft_appends(self, away: int, size: int, complete: bool, more: int | None) -> None:
        content, offset = self.next(size), max(0, len(self.data) + away)
        away = offset - len(self.data)
        length = None if more is None else max(0, len(self.data) + size + more)
        sized = () if length is None else (f"Upload-Length: {length}",)
        client = self.draft()
        said = self.settle(client, client.patch(self.id, offset, content, "?1" if complete else "?0", *sized))
        if self.asked:
            assert said.status in ((200, 400, 409) if complete and not (away or content) else (400, 409))
            assert said.status == 200 or said.problem["type"] in (COMPLETED, MISMATCH, INCONSISTENT)
            return
        ends = {each for each in (length, self.length, len(self.data) + size if complete else None) if each is not None}
        if away or len(ends) > 1 or any(len(self.data) + size > end for end in ends):
            assert said.status == 409 if away and not sized and not complete else said.status in (400, 409)
            return
        self.data += content
        self.length = ends.pop() if ends else None
        # of an upload that tus made, the last byte is the end
        self.asked = complete or (not self.by_draft and self.all_there and self.is_complete())
        assert (said.status, said.get("Upload-Complete")) == ((200, "?1") if self.asked else (204, "?0"))

    @precondition(lambda self: not self.gone)
    @rule(away=AWAY, size=SIZES, more=MORE)
    def tus_appends(self, away: int, size: int, more: int | None) -> None:
        content, offset = self.next(size), max(0, len(self.data) + away)
        withheld = self.all_there and not self.asked and bool(self.data)
        away = offset - len(self.data)
        length = None if more is None else max(0, len(self.data) + size + more)
        sized = () if length is None or self.length is not None else (f"Upload-Length: {length}",)
        client = Draft(self.server, None)
        fields = ("Tus-Resumable: 1.0.0", OCTETS, f"Upload-Offset: {offset}", *sized)
        said = self.settle(client, client.tell("PATCH", f"/files/{self.id}", *fields, content=content))
        if self.asked:
            assert said.status == 204 if not (away or content) else 400 <= said.status < 500
            return
        if withheld:
            if (away, content) == (-1, b""):
                assert said.status == 204
            else:
                assert 400 <= said.status < 500
            return
        end = self.length if not sized else length
        if away or (end is not None and len(self.data) + size > end):
            assert 400 <= said.status < 500
            return
        assert (said.status, said.get("Upload-Offset")) == (204, str(len(self.data) + size))
        self.data += content
        self.length = end
        self.asked = self.all_there

    @precondition(lambda self: self.all_there and not self.asked and self.data and not self.gone)
    @rule()
    def tus_sends_the_last_byte_again(self) -> None:
        seen = self.draft().tus("HEAD", self.id)
        assert seen.get("Upload-Offset") == str(len(self.data) - 1)
        fields = (OCTETS, f"Upload-Offset: {len(self.data) - 1}", "Content-Length: 1")
        assert self.draft().tus("PATCH", self.id, *fields, content=self.data[-1:]).status == 204
        self.asked = True

    @precondition(lambda self: not self.asked and not self.gone)
    @rule(size=SIZES, complete=st.booleans(), chunked=st.booleans(), seed=st.integers(0, 1000))
    def draft_appends_and_is_cut(self, size: int, complete: bool, chunked: bool, seed: int) -> None:
        content = self.next(size)
        if chunked:
            sent, framing = content, "Transfer-Encoding: chunked"
            wire = b"%x\r\n%s\r\n" % (len(sent), sent) if sent else b""
        else:
            sent = wire = content[: Random(seed).randrange(size)] if size else b""
            framing = f"Content-Length: {size + 1}"
        client, end = self.draft(), len(self.data) + size + 1
        offset = len(self.data)
        client.open("PATCH", f"/files/{self.id}", appending(offset, "?1" if complete else "?0", framing), wire)
        said = client.heard()
        client.lose()
        self.server.advance(0.5)
        if self.length is not None:
            past = end > self.length or (complete and end != self.length)
            if not chunked and past:
                assert said.status == 400
                return
            if chunked and offset + len(sent) > self.length:
                self.gone = self.draft().head(self.id).status == 410
                assert self.gone or said.status == 400
                return
        elif complete and not chunked:
            self.length = end
        now = int(self.draft().head(self.id).get("Upload-Offset") or -1)
        assert offset <= now <= offset + len(sent)
        assert chunked or now == offset + len(sent), "what arrived is kept"
        self.data += sent[: now - offset]
        if not self.by_draft and self.all_there:
            self.asked = self.is_complete()

    @precondition(lambda self: not self.gone)
    @rule()
    def tus_looks(self) -> None:
        seen = self.draft().tus("HEAD", self.id)
        withheld = self.all_there and not self.asked and bool(self.data)
        assert (seen.status, seen.get("Upload-Offset")) == (200, str(len(self.data) - withheld))

    @precondition(lambda self: not self.gone)
    @rule()
    def somebody_downloads(self) -> None:
        if self.asked:
            assert self.draft().file(self.id) == self.data
        else:
            assert Draft(self.server, None).tell("GET", f"/files/{self.id}").status == 404

    @rule(seconds=st.sampled_from([0.1, 3.0]))
    def time_passes(self, seconds: float) -> None:
        self.server.advance(seconds)
        self.server.tick()

    def is_complete(self) -> bool:
        return self.draft().head(self.id).get("Upload-Complete") == "?1"

    @invariant()
    def the_state_is_the_model_s(self) -> None:
        if not hasattr(self, "id"):
            return
        if self.gone:
            assert self.draft().head(self.id).status == 410
            return
        found = self.draft().head(self.id)
        offset = int(found.get("Upload-Offset") or -1)
        assert self.seen <= offset == len(self.data)
        self.seen = offset
        assert found.get("Upload-Complete") == ("?1" if self.asked else "?0")
        assert found.get("Upload-Length") == (None if self.length is None else str(self.length))
        assert (self.server.content(self.id) or b"")[:offset] == self.data


@pytest.mark.slow
def test_both_protocols_on_one_upload() -> None:
    """A stateful model of one upload, against the real routes and use cases."""
    run(
        Both,
        settings=settings(
            max_examples=2000 if RUN_LONG else 20,
            stateful_step_count=30 if RUN_LONG else 15,
            derandomize=not RUN_LONG,
            database=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
