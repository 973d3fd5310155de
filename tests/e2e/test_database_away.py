"""The database goes away and comes back under load: nothing acknowledged is missing, and nobody ends for it."""

from __future__ import annotations

import itertools
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resumable.cli.admin_client import AdminLine
from tests.own_postgres import Lines, OwnPostgres
from tests.postgres import database
from tests.waiting import long

from .commands import ask
from .daemon import Daemon, eventually
from .nodes import Nodes
from .tus import Tus, pattern

pytestmark = pytest.mark.process

SIZE = 200_000
PIECE = 40_000


@pytest.fixture
def postgres() -> Iterator[OwnPostgres]:
    with OwnPostgres() as server:
        yield server


class Uploader:
    """Uploads one file after the other in pieces, each to the next node, until it is told to end; goes on after errors
    as clients do. ``answers``: how often each verb was answered with each status. ``known``: by path, the seed and the
    highest offset that was acknowledged."""

    def __init__(self, nodes: Nodes, number: int) -> None:
        self._all = [Tus(node.port) for node in nodes.daemons]
        self._clients = itertools.cycle(self._all)
        self._seeds = itertools.count(number * 1000)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answers: Counter[tuple[str, int]] = Counter()
        self.without_retry: list[str] = []
        self.known: dict[str, tuple[int, int]] = {}
        self.errors: list[Exception] = []
        self._thread.start()

    def end(self) -> None:
        self._ending.set()
        self._thread.join()
        for each in self._all:
            each.close()

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                self._upload(next(self._seeds))
            except Exception as error:
                self.errors.append(error)
                return

    def _upload(self, seed: int) -> None:
        data = pattern(SIZE, seed)
        path = None
        while path is None and not self._ending.is_set():
            answer = self._asked("POST", lambda client: client.post(SIZE))
            path = Tus.path(answer) if answer.status == 201 else None
        if path is None:
            return
        at = 0
        self.known[path] = (seed, at)
        while at < SIZE and not self._ending.is_set():
            piece = data[at : at + PIECE]
            answer = self._asked("PATCH", lambda client, at=at, piece=piece: client.patch(path, at, piece))  # type: ignore[misc]
            if answer.status == 204:
                at += len(piece)
            else:
                answer = self._asked("HEAD", lambda client: client.head(path))
                if answer.status == 200:
                    found = int(answer["upload-offset"])
                    assert found >= self.known[path][1], "an acknowledged byte is missing"
                    at = found
            self.known[path] = (seed, max(at, self.known[path][1]))

    def _asked(self, verb: str, request: Callable[[Tus], object]) -> object:
        answer = request(next(self._clients))
        self.answers[verb, answer.status] += 1  # type: ignore[attr-defined]
        if answer.status in (423, 503):  # type: ignore[attr-defined]
            if not answer.get("retry-after"):  # type: ignore[attr-defined]
                self.without_retry.append(str(answer))
            self._ending.wait(0.05)  # a client that is in a hurry
        return answer


def ready(node: Daemon) -> tuple[int, dict[str, str]]:
    """The status of /readyz, and what is wrong, as operators see it."""
    socket = Path(node.flags[node.flags.index("--run-dir") + 1]) / "admin.sock"
    told = AdminLine(f"unix:{socket}").ask("GET", "/readyz").document
    assert told is not None
    return ask(node, "GET", "/readyz")[0], told["wrong"]


def healthy(node: Daemon) -> bool:
    return ask(node, "GET", "/healthz")[0] == 200


@pytest.mark.parametrize(
    "ends", [pytest.param(OwnPostgres.stop, id="stopped", marks=long), pytest.param(OwnPostgres.kill, id="killed")]
)
def test_the_database_goes_away_under_load_and_comes_back(
    ends: Callable[[OwnPostgres], None], postgres: OwnPostgres
) -> None:
    with Nodes(2, url=postgres.at()) as nodes:
        workers = {name for (name,) in postgres.do("SELECT id FROM workers")}
        uploaders = [Uploader(nodes, number) for number in range(4)]
        try:
            for _ in range(2):
                seen = Counter[tuple[str, int]]()
                assert eventually(lambda seen=seen: more(uploaders, "PATCH", 204, seen, 20))
                before = total(uploaders)
                ends(postgres)
                assert eventually(
                    lambda before=before: (
                        more(uploaders, "PATCH", 503, before, 1) or more(uploaders, "POST", 503, before, 4)
                    )
                )
                for node in nodes.daemons:
                    assert eventually(lambda node=node: ready(node)[0] == 503)
                    assert "catalog" in ready(node)[1] and healthy(node)
                postgres.start()
                for node in nodes.daemons:
                    assert eventually(lambda node=node: ready(node) == (200, {}))
        finally:
            for each in uploaders:
                each.end()
        assert [error for each in uploaders for error in each.errors] == []
        assert [one for each in uploaders for one in each.without_retry] == []
        assert {status for (_, status) in total(uploaders)} <= {200, 201, 204, 409, 423, 503}
        assert {status for (verb, status) in total(uploaders) if verb == "HEAD"} <= {200, 423}
        assert all(node.alive for node in nodes.daemons) and not nodes.complaints()
        assert {name for (name,) in postgres.do("SELECT id FROM workers")} == workers
        for node in nodes.daemons:
            told = Counter(re.findall(r"#(?:warn|error|critical)\] (\w+ \w+ \w+)", node.log))
            assert told["the catalog failed"] == told["the catalog works"] >= 1
            assert all(count <= told["the catalog failed"] for count in told.values()), told
        for at, (path, (seed, offset)) in enumerate(((p, k) for each in uploaders for p, k in each.known.items())):
            client = nodes.tus[at % 2]
            assert client.offset(path) >= offset
            client.finish(path, pattern(SIZE, seed))
            assert nodes.tus[(at + 1) % 2].content(path) == pattern(SIZE, seed)


@pytest.fixture
def lines() -> Iterator[Lines]:
    lines = Lines(database())
    yield lines
    lines.close()


def test_a_database_that_says_nothing_does_not_hold_up_a_stop(lines: Lines) -> None:
    """Nor the requests: they are answered, and what was acknowledged is there at the next start."""
    with Nodes(1, "--shutdown-timeout", "2", url=lines.url) as nodes:
        (node,) = nodes.daemons
        data = pattern(SIZE, 1)
        path = Tus.path(nodes.tus[0].post(SIZE))
        assert nodes.tus[0].patch(path, 0, data[:PIECE]).status == 204
        lines.cut()
        answers: list[tuple[int, bool]] = []

        def ask_for(request: Callable[[Tus], object]) -> None:
            client = Tus(node.port)
            answer = request(client)
            answers.append((answer.status, bool(answer.get("retry-after"))))  # type: ignore[attr-defined]
            client.close()

        requests = (lambda client: client.patch(path, PIECE, data[PIECE:]), lambda client: client.post(SIZE))
        threads = [threading.Thread(target=ask_for, args=(request,)) for request in requests]
        for thread in threads:
            thread.start()
        assert eventually(lambda: ready(node)[0] == 503)
        assert "catalog" in ready(node)[1] and healthy(node)
        assert node.stop() == 0
        for thread in threads:
            thread.join()
        assert answers == [(503, True)] * 2
        lines.mend()
        node.start()
        client = nodes.tus[0]
        assert client.offset(path) >= PIECE
        client.finish(path, data)
        assert client.content(path) == data


@long
def test_a_database_that_says_nothing_fails_requests_until_it_is_back(lines: Lines) -> None:
    with Nodes(2, url=lines.url) as nodes:
        uploaders = [Uploader(nodes, number) for number in range(4)]
        try:
            for _ in range(2):
                seen = Counter[tuple[str, int]]()
                assert eventually(lambda seen=seen: more(uploaders, "PATCH", 204, seen, 20))
                before = total(uploaders)
                lines.cut()
                assert eventually(
                    lambda before=before: (
                        more(uploaders, "PATCH", 503, before, 1) or more(uploaders, "POST", 503, before, 4)
                    )
                )
                for node in nodes.daemons:
                    assert eventually(lambda node=node: ready(node)[0] == 503)
                lines.mend()
                for node in nodes.daemons:
                    assert eventually(lambda node=node: ready(node) == (200, {}))
        finally:
            for each in uploaders:
                each.end()
        assert [error for each in uploaders for error in each.errors] == []
        assert [one for each in uploaders for one in each.without_retry] == []
        assert {status for (verb, status) in total(uploaders) if verb == "HEAD"} <= {200, 423}
        assert all(node.alive for node in nodes.daemons) and not nodes.complaints()
        for at, (path, (seed, offset)) in enumerate(((p, k) for each in uploaders for p, k in each.known.items())):
            client = nodes.tus[at % 2]
            assert client.offset(path) >= offset
            client.finish(path, pattern(SIZE, seed))
            assert nodes.tus[(at + 1) % 2].content(path) == pattern(SIZE, seed)


def total(uploaders: list[Uploader]) -> Counter[tuple[str, int]]:
    return sum((each.answers for each in uploaders), Counter())


def more(uploaders: list[Uploader], verb: str, status: int, before: Counter[tuple[str, int]], count: int) -> bool:
    """Whether so many more were answered so."""
    assert not [error for each in uploaders for error in each.errors]
    return total(uploaders)[verb, status] - before[verb, status] >= count
