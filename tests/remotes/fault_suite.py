"""What goes wrong between us and a store: one suite for S3, Azure and Google.

A store gives the suite the names of its operations at the proxy, its answers, and how to look at what it keeps. A test
module has the fixtures ``server``, and ``strict`` for the tests that need a server that does all that the store does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar

import pytest
import pytest_twisted
from attrs import frozen
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock, deferLater
from twisted.logger import capturedLogs, formatEvent

from resumable.httpclient.client import HttpLimits
from resumable.model import keys
from resumable.remotes.errors import AuthFailed, RemoteError, Throttled, Transient
from resumable.remotes.interfaces import RegionLost
from resumable.remotes.regions import BytesRegion
from tests.remotes.counting_region import CountingRegion
from tests.remotes.simple_engine import persist, upload

U1, U2 = "1" * 32, "2" * 32
MIB = 1 << 20
SMALL = b"a small one"
SAID = {"filename": "größe.txt".encode(), "filetype": b"text/css", "note": b"n" * 300}


@frozen
class Described:
    """What the store says of an object, beside its bytes."""

    metadata: dict[str, str]
    type: str
    disposition: str | None


class FaultSuite:
    """``small`` makes an object of one request, ``begin`` takes the metadata of others, ``finish`` makes them of their
    parts, ``look`` looks one up: names of operations.

    ``matrix``: (operation, how, more) of `Proxy.trouble`. ``unwelcome``: answers that refuse metadata; the first says
    so. ``refusals``: (answer, kind of error, code or None). ``repeatable``: operations with the call that makes them
    (progress, delete or abort). ``refusable``: the operation that refuses those of several parts.
    """

    small: ClassVar[str]
    begin: ClassVar[str]
    finish: ClassVar[str]
    look: ClassVar[str]
    refusable: ClassVar[str]
    id_name: ClassVar[str] = "resumable-upload-id"
    part_size: ClassVar[int]
    big: ClassVar[bytes]
    most_requests: ClassVar[int] = 12
    matrix: ClassVar[Sequence[Any]]
    unwelcome: ClassVar[Sequence[Any]]
    refusals: ClassVar[Sequence[tuple[bytes, type[RemoteError], str | None]]]
    repeatable: ClassVar[Sequence[tuple[str, str]]]
    busy_code: ClassVar[str]
    slow: ClassVar[Sequence[Any]] = ()
    """Marks of the tests that try every refusal of metadata."""

    def pytest_generate_tests(self, metafunc: Any) -> None:
        cases: dict[str, tuple[Sequence[Any], Any]] = {
            "trouble": (self.matrix, lambda value: "-".join(str(each)[:20] for each in value)),
            "refusal": (self.refusals, lambda value: f"{value[1].__name__}-{value[2]}"),
            "unwelcome_answer": (
                [pytest.param(each, marks=self.slow) for each in self.unwelcome],
                [str(number) for number in range(len(self.unwelcome))],
            ),
            "describing": ((self.small, self.begin), str),
            "repeated": (self.repeatable, lambda value: value[0]),
        }
        for name, (values, ids) in cases.items():
            if name in metafunc.fixturenames:
                metafunc.parametrize(name, values, ids=ids)

    @pytest.fixture
    def prefix(self, request: pytest.FixtureRequest) -> str:
        """Of its own for each test."""
        return "".join(c for c in request.node.name if c.isalnum())[-80:]

    # -- in what stores differ

    def rig(self, server: Any) -> AbstractAsyncContextManager[Any]:
        """Everything started; ``proxy`` of what it gives stands before the server."""
        raise NotImplementedError

    def remote(self, it: Any, prefix: str, **more: Any) -> Any:
        """A remote over the rig's journal; another is a restart."""
        more.setdefault("part_size", self.part_size)
        return it.remote(template=keys.parse(prefix=prefix), **more)

    def busy(self, seconds: int | None = None) -> bytes:
        """An answer that asks for a pause."""
        raise NotImplementedError

    async def described(self, it: Any, key: str) -> Described:
        """What the store says of the object."""
        raise NotImplementedError

    def names_kept(self, record: dict[str, Any]) -> set[str]:
        """The names of the metadata that the journal has."""
        raise NotImplementedError

    async def unfinished(self, it: Any, prefix: str, key: str) -> list[str]:
        """Keys of what is unfinished."""
        raise NotImplementedError

    def check_failures(self, failures: list[RemoteError]) -> None:
        """None: the connection was an old one, which is tried again."""
        assert len(failures) <= 1

    def check_requests(self, requests: dict[str, int], wanted: dict[str, int]) -> None:
        """That what was asked is what had to be."""
        assert requests == wanted

    async def check_end(self, it: Any, server: Any, remote: Any, operation: str, requests: dict[str, int]) -> None:
        """What else is true once all is well, and clean up."""

    def data_for(self, operation: str) -> bytes:
        """An object that needs that operation."""
        return SMALL if operation == self.small else self.big

    # -- tests

    @pytest_twisted.ensureDeferred
    async def test_whatever_goes_wrong_once_the_object_is_right_in_the_end(self, server, prefix, trouble):
        operation, how, more = trouble
        data = self.data_for(operation)
        async with self.rig(server) as it:
            it.proxy.trouble(operation, how, **more)
            remote = self.remote(it, prefix)
            stored, failures = await persist(remote, U1, data)
            self.check_failures(failures)
            assert await it.content(stored.key) == data
            requests = dict(it.proxy.requests)
            assert sum(requests.values()) <= self.most_requests
            assert (await self.described(it, stored.key)).metadata[self.id_name] == U1
            again = self.remote(it, prefix)
            assert await again.finalize_upload(U1) == stored and await again.get_upload_progress(U1) == len(data)
            await self.check_end(it, server, remote, operation, requests)

    @pytest.mark.parametrize("times", [1, 2])
    @pytest_twisted.ensureDeferred
    async def test_metadata_that_the_store_refuses_is_left_out(
        self, strict, prefix, describing, unwelcome_answer, times
    ):
        """Nothing is parked for it: first the metadata goes, then type and name; the id stays, and so is it kept."""
        data = self.data_for(describing)
        async with self.rig(strict) as it:
            it.proxy.trouble(describing, "answer", answer=unwelcome_answer, times=times)
            with capturedLogs() as logged:
                stored = await upload(self.remote(it, prefix), U1, data, SAID)
            assert it.proxy.requests[describing] == times + 1
            found = await self.described(it, stored.key)
            assert await it.content(stored.key) == data and found.metadata == {self.id_name: U1}
            assert found.type == ("text/css" if times == 1 else "application/octet-stream")
            assert bool(found.disposition) is (times == 1)
            assert [event for event in logged if event.get("upload") == U1 and "goes without" in formatEvent(event)]
            names = self.names_kept(await it.journal.load(U1))
            assert "note" not in names and self.id_name in names
            assert await self.remote(it, prefix).delete_object(U1) is True

    @pytest_twisted.ensureDeferred
    async def test_what_was_refused_once_is_not_asked_for_again_after_a_restart(self, strict, prefix, describing):
        data = self.data_for(describing)
        async with self.rig(strict) as it:
            it.proxy.trouble(describing, "answer", answer=self.unwelcome[0])
            it.proxy.trouble(describing, "answer", answer=self.busy())
            with pytest.raises(Throttled):
                await upload(self.remote(it, prefix), U1, data, SAID)
            with capturedLogs() as logged:
                stored = await upload(self.remote(it, prefix), U1, data, SAID)
            assert it.proxy.requests[describing] == 3
            found = await self.described(it, stored.key)
            assert found.metadata == {self.id_name: U1}, "although the second process was told the metadata again"
            assert not [event for event in logged if "goes without" in formatEvent(event)], "it was told once"

    @pytest.mark.parametrize("how", ["refuse", "lose"])
    @pytest_twisted.ensureDeferred
    async def test_the_other_operations_may_be_repeated_too(self, strict, prefix, repeated, how):
        async with self.rig(strict) as it:
            remote = self.remote(it, prefix)
            key = await remote.initiate_upload(U1, len(self.big), {})
            await remote.write_chunk(U1, 0, BytesRegion(self.big[: self.part_size]), self.part_size)
            await upload(remote, U2, SMALL)
            # the second for a request that is sent again on a new connection
            operation, called = repeated
            it.proxy.trouble(operation, how, times=2)
            calls: dict[str, Callable[[], Deferred[Any]]] = {
                "progress": lambda: remote.get_upload_progress(U1),
                "delete": lambda: remote.delete_object(U2),
                "abort": lambda: remote.abort_upload(U1),
            }
            call = calls[called]
            with pytest.raises(Transient):
                await call()
            it.proxy.calm()
            await call()
            await remote.abort_upload(U1)
            assert await self.unfinished(it, prefix, key) == []

    @pytest_twisted.ensureDeferred
    async def test_a_lost_answer_to_the_end_is_looked_up_before_it_is_asked_again(self, server, prefix):
        async with self.rig(server) as it:
            it.proxy.trouble(self.finish, "lose", times=2)
            with pytest.raises(Transient):
                await upload(self.remote(it, prefix), U1, self.big)
            it.proxy.calm()
            again = self.remote(it, prefix)
            it.proxy.requests.clear()
            stored = await again.finalize_upload(U1)
            self.check_requests(it.proxy.requests, {self.look: 1})
            assert await again.finalize_upload(U1) == stored
            assert stored.size == len(self.big) and await again.get_upload_progress(U1) == len(self.big)

    @pytest_twisted.ensureDeferred
    async def test_a_lost_answer_is_found_out_by_asking_for_the_progress_too(self, server, prefix):
        async with self.rig(server) as it:
            remote = self.remote(it, prefix)
            it.proxy.trouble(self.finish, "lose", times=2)
            with pytest.raises(Transient):
                await upload(remote, U1, self.big)
            it.proxy.calm()
            assert await remote.get_upload_progress(U1) == len(self.big)
            assert await remote.delete_object(U1) is True

    @pytest_twisted.ensureDeferred
    async def test_a_lost_answer_of_a_small_one_finds_our_own_object_there(self, server, prefix):
        async with self.rig(server) as it:
            remote = self.remote(it, prefix)
            it.proxy.trouble(self.small, "lose")
            await remote.initiate_upload(U1, len(SMALL), {})
            with pytest.raises(Transient):
                await remote.write_chunk(U1, 0, BytesRegion(SMALL), len(SMALL))
            await self.remote(it, prefix).write_chunk(U1, 0, BytesRegion(SMALL), len(SMALL))
            self.check_requests(it.proxy.requests, {self.small: 2, self.look: 1})
            assert (await remote.finalize_upload(U1)).size == len(SMALL)

    @pytest_twisted.ensureDeferred
    async def test_the_pause_that_a_store_asks_for_is_passed_on(self, strict, prefix):
        async with self.rig(strict) as it:
            remote = self.remote(it, prefix)
            it.proxy.trouble(self.small, "answer", answer=self.busy(7))
            with pytest.raises(Throttled) as caught:
                await upload(remote, U1, SMALL)
            assert caught.value.retry_after == 7.0 and caught.value.code == self.busy_code
            assert it.proxy.requests == {self.small: 1}, "it was tried again below us"

    @pytest_twisted.ensureDeferred
    async def test_refusals_are_told_apart(self, strict, prefix, refusal):
        answered, kind, code = refusal
        async with self.rig(strict) as it:
            remote = self.remote(it, prefix)
            for upload_id, data, operation in ((U2, SMALL, self.small), (U1, self.big, self.refusable)):
                it.proxy.trouble(operation, "answer", answer=answered)
                with pytest.raises(kind) as caught:
                    await upload(remote, upload_id, data)
                assert type(caught.value) is kind and "\n" not in caught.value.reason
                assert caught.value.advice or kind is Throttled
                assert code in (None, caught.value.code)
            await remote.abort_upload(U1)


class HttpFaultSuite(FaultSuite):
    """For the stores that we speak to over our own HTTP client. ``part`` writes one, ``right`` is missing to look.

    ``failing_at``: bytes after which reading the spool fails: when it is digested first, and when it is sent.
    ``many``: size of parts, and of the uploads of which many are written at once.
    """

    part: ClassVar[str]
    right: ClassVar[str]
    failing_at: ClassVar[Sequence[int]]
    many: ClassVar[tuple[int, int]]
    forbidden: ClassVar[bytes]
    """An answer to a look that may not be taken."""

    def rig(
        self, server: Any, *, limits: HttpLimits | None = None, clock: Any = None
    ) -> AbstractAsyncContextManager[Any]:
        """See `FaultSuite.rig`."""
        raise NotImplementedError

    def most_connections(self, server: Any) -> int:
        """How many there may be at once, of four."""
        return 4

    @pytest_twisted.ensureDeferred
    async def test_a_stall_ends_with_the_time_out_of_the_clock(self, strict, prefix):
        clock = Clock()
        async with self.rig(strict, limits=HttpLimits(idle_timeout=30.0), clock=clock) as it:
            remote = self.remote(it, prefix)
            for operation, data in ((self.small, SMALL), (self.part, self.big), (self.finish, self.big)):
                it.proxy.requests.clear()
                it.proxy.trouble(operation, "stall")
                outcome: list[Any] = []
                Deferred.fromCoroutine(upload(remote, U2 if data is SMALL else U1, data)).addBoth(outcome.append)
                while not it.proxy.requests.get(operation):
                    await deferLater(reactor, 0.001)
                await deferLater(reactor, 0.05)
                assert not outcome
                for _ in range(23):
                    clock.advance(15)
                    await deferLater(reactor, 0.001)
                while not outcome:
                    await deferLater(reactor, 0.001)
                assert outcome[0].check(Transient) and outcome[0].value.code == "TimedOut"
                it.proxy.calm()

    @pytest_twisted.ensureDeferred
    async def test_when_nobody_may_look_an_object_up_it_is_told_which_right_is_missing(self, strict, prefix):
        async with self.rig(strict) as it:
            remote = self.remote(it, prefix)
            it.proxy.trouble(self.finish, "lose", times=2)
            with pytest.raises(Transient):
                await upload(remote, U1, self.big)
            it.proxy.calm()
            it.proxy.trouble(self.look, "answer", answer=self.forbidden)
            with pytest.raises(AuthFailed) as caught:
                await remote.finalize_upload(U1)
            assert self.right in caught.value.advice
            await remote.finalize_upload(U1)

    @pytest_twisted.ensureDeferred
    async def test_a_call_that_is_given_up_ends_at_once(self, server, prefix):
        async with self.rig(server) as it:
            remote = self.remote(it, prefix)
            it.proxy.trouble(self.small, "stall")
            await remote.initiate_upload(U1, len(SMALL), {})
            writing = remote.write_chunk(U1, 0, BytesRegion(SMALL), len(SMALL))
            while not it.proxy.requests.get(self.small):
                await deferLater(reactor, 0.001)
            writing.cancel()
            with pytest.raises(CancelledError):
                await writing
            assert await it.content((await upload(remote, U1, SMALL)).key) == SMALL

    @pytest_twisted.ensureDeferred
    async def test_what_reading_the_spool_fails_with_comes_through(self, server, prefix):
        async with self.rig(server) as it:
            remote = self.remote(it, prefix)
            await remote.initiate_upload(U1, len(self.big), {})
            for failing_at in self.failing_at:
                with pytest.raises(RegionLost):
                    await remote.write_chunk(U1, 0, CountingRegion(self.part_size, failing_at), self.part_size)
            stored, _ = await persist(remote, U1, self.big)
            assert await it.content(stored.key) == self.big

    @pytest_twisted.ensureDeferred
    async def test_memory_and_connections_are_bounded(self, strict, prefix):
        part_size, size = self.many
        async with self.rig(strict, limits=HttpLimits(connections=4)) as it:
            remote = self.remote(it, prefix, part_size=part_size)
            regions = [CountingRegion(4 * MIB) for _ in range(12)]
            ids = [f"{index:032x}" for index in range(12)]
            for one in ids:
                await remote.initiate_upload(one, size, {})
            writes = [remote.write_chunk(one, 0, region, region.size) for one, region in zip(ids, regions, strict=True)]
            for each in writes:
                await each
            assert it.proxy.most <= self.most_connections(strict)
            assert max(region.largest for region in regions) <= 256 << 10
