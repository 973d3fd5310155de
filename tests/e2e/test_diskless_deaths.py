"""Nodes without disks die or freeze, and their store fails, in the middle of everything: no byte is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress

import psycopg
import pytest

from tests.waiting import long

from .daemon import eventually
from .diskless import QUICK, Diskless, diskless, meanwhile, patched, upload_id
from .nodes import frozen
from .stores import LONG, MIB
from .tus import Tus, check, holder, pattern

pytestmark = [pytest.mark.process, pytest.mark.slow]

DATA = pattern(12 * MIB + 5, 1)
KNOWN = 3 * MIB
SLOW_DOWN = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
#: Seconds until a frozen node is declared dead, and some for a busy machine.
DEAD = 40


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Diskless]:
    with diskless(tmp_path_factory.mktemp("store"), 3, *QUICK) as three:
        yield three


@pytest.fixture
def tus(nodes: Diskless) -> Iterator[list[Tus]]:
    for node in nodes.nodes:
        if not node.alive:
            node.kill()
    nodes.start()
    nodes.fresh()
    yield nodes.tus
    nodes.proxy.up()
    nodes.proxy.calm()


def begun(tus: list[Tus]) -> str:
    """An upload of which `KNOWN` bytes are acknowledged, by the last node."""
    path = tus[2].create(len(DATA))
    assert tus[2].patch(path, 0, DATA[:KNOWN]).offset == KNOWN
    return path


def goes_on(tus: list[Tus], path: str, data: bytes = DATA, least: int = KNOWN) -> None:
    """At the two other nodes; its bytes are right. A late request of the first one may still take it over once."""
    for client, step in ((tus[1], 2 * MIB), (tus[2], len(data))):
        answered = False
        while not answered and (at := client.offset(path)) < len(data):
            assert least <= at
            answer = client.patch(path, at, data[at : at + step])
            answered = answer.status == 204
            assert answered or answer.status in (409, 423), answer
            least = max(least, answer.offset if answered else at)


def lost(nodes: Diskless, path: str, data: bytes, offset: int) -> None:
    """A PATCH to the first node, which won't answer."""
    with suppress(OSError, EOFError):
        patched(nodes.nodes[0].port, path, offset, data[offset:])
    eventually(lambda: not nodes.nodes[0].alive)
    nodes.nodes[0].kill()


KILLS = [
    ("UploadPart", "reset"),
    pytest.param("UploadPart", "lose", marks=long),
    pytest.param("UploadPart", "refuse", marks=long),
    pytest.param("CreateMultipartUpload", "lose", marks=long),
    pytest.param("CreateMultipartUpload", "refuse", marks=long),
]


@pytest.mark.parametrize(("operation", "how"), KILLS)
@pytest.mark.parametrize("skip", range(2) if LONG else [0])
def test_killed_in_the_middle_of_a_part(operation: str, how: str, skip: int, nodes: Diskless, tus: list[Tus]) -> None:
    if operation == "CreateMultipartUpload" and skip:
        pytest.skip("there is one")
    path = begun(tus)
    nodes.strike(nodes.nodes[0], operation, how, skip=skip)
    lost(nodes, path, DATA, KNOWN)
    goes_on(tus, path)
    assert tus[1].content(path) == DATA


@pytest.mark.parametrize("how", ["lose", pytest.param("reset", marks=long), pytest.param("refuse", marks=long)])
def test_killed_in_the_middle_of_a_piece(how: str, nodes: Diskless, tus: list[Tus]) -> None:
    path = begun(tus)
    nodes.strike(nodes.nodes[0], "PutObject", how)
    with suppress(OSError, EOFError):
        patched(nodes.nodes[0].port, path, KNOWN, DATA[KNOWN : KNOWN + MIB])
    eventually(lambda: not nodes.nodes[0].alive)
    nodes.nodes[0].kill()
    assert tus[1].offset(path) == KNOWN
    goes_on(tus, path)
    assert tus[2].content(path) == DATA


@long
@pytest.mark.parametrize("how", ["lose", "reset", "refuse"])
def test_killed_in_the_middle_of_a_whole_file(how: str, nodes: Diskless, tus: list[Tus]) -> None:
    """The object may be there, under a token that no row has: it is ours all the same, and nobody's after it."""
    data = pattern(2 * MIB, 2)
    path = tus[0].create(len(data))
    nodes.strike(nodes.nodes[0], "PutObject", how)
    lost(nodes, path, data, 0)
    assert tus[1].offset(path) == 0
    other = pattern(2 * MIB, 3)  # the client has changed its mind, and nothing of the first try may count
    goes_on(tus, path, other, 0)
    nodes.whole(path)
    assert tus[2].content(path) == other
    assert nodes.store.content(nodes.prefix, upload_id(path)) == other


def test_killed_in_the_middle_of_the_commit_that_finishes(nodes: Diskless, tus: list[Tus]) -> None:
    path = begun(tus)
    with nodes.locked(path), meanwhile(lambda: patched(nodes.nodes[0].port, path, KNOWN, DATA[KNOWN:])):
        assert eventually(nodes.commit_waits)
        nodes.nodes[0].kill()
    goes_on(tus, path)
    nodes.nodes[0].start()  # what it held is anybody's now
    nodes.whole(path)
    assert tus[1].content(path) == DATA


@pytest.mark.parametrize("how", ["lose", pytest.param("refuse", marks=long)])
def test_killed_in_the_middle_of_complete(how: str, nodes: Diskless, tus: list[Tus]) -> None:
    path = begun(tus)
    nodes.strike(nodes.nodes[0], "CompleteMultipartUpload", how)
    with suppress(OSError, EOFError):
        patched(nodes.nodes[0].port, path, KNOWN, DATA[KNOWN:])
    eventually(lambda: not nodes.nodes[0].alive)
    nodes.nodes[0].kill()
    assert tus[1].offset(path) == len(DATA), "the client was, or may have been, told so"
    nodes.nodes[0].start()
    nodes.whole(path)
    assert tus[2].content(path) == DATA
    assert not nodes.store.multiparts(nodes.prefix).get(upload_id(path))


@pytest.mark.parametrize("operation", ["UploadPartCopy", pytest.param("CompleteMultipartUpload", marks=long)])
def test_killed_in_the_middle_of_a_final(operation: str, nodes: Diskless, tus: list[Tus]) -> None:
    """Those partials are whole before: only the final's requests are struck."""
    contents = [pattern(6 * MIB, 4), pattern(6 * MIB + 1, 5)]
    parts = [client.partial(data) for client, data in zip(tus[1:], contents, strict=True)]
    for each in parts:
        nodes.whole(each)
    nodes.strike(nodes.nodes[0], operation, "lose")
    with suppress(OSError, EOFError):
        tus[0].post(None, {"Upload-Concat": "final;" + " ".join(parts)})
    eventually(lambda: not nodes.nodes[0].alive)
    nodes.nodes[0].kill()
    nodes.nodes[0].start()
    for path in (tus[1].concat(*parts), tus[2].concat(*parts)):
        assert tus[1].content(path) == b"".join(contents)


@pytest.mark.parametrize("operation", ["UploadPart", "PutObject"])
def test_a_frozen_node_that_wakes_changes_nothing(operation: str, nodes: Diskless, tus: list[Tus]) -> None:
    """Its request comes to the store when all is over, and it goes on where it stood."""
    path = begun(tus)
    piece = DATA[KNOWN:] if operation == "UploadPart" else DATA[KNOWN : KNOWN + MIB]
    nodes.proxy.trouble(operation, "hold")
    statuses: list[int] = []
    with meanwhile(lambda: statuses.append(patched(nodes.nodes[0].port, path, KNOWN, piece))):
        nodes.proxy.wait_for(1)
        with frozen(nodes.nodes[0]):
            at = tus[1].offset(path)
            assert at == KNOWN
            data = DATA[:at] + pattern(len(DATA) - at, 6)  # nobody takes those bytes for the others
            goes_on(tus, path, data)
            nodes.whole(path)
            assert tus[2].content(path) == data
            nodes.proxy.calm()
    assert not set(statuses) & {204}, statuses
    assert [each.content(path) for each in tus] == [data] * 3
    assert nodes.store.content(nodes.prefix, upload_id(path)) == data


def test_frozen_in_the_middle_of_complete_it_says_the_same_late(nodes: Diskless, tus: list[Tus]) -> None:
    path = begun(tus)
    nodes.proxy.trouble("CompleteMultipartUpload", "hold")
    assert tus[0].patch(path, KNOWN, DATA[KNOWN:]).offset == len(DATA)
    nodes.proxy.wait_for(1)
    with frozen(nodes.nodes[0]):
        assert tus[1].offset(path) == len(DATA)
        nodes.proxy.calm()
    nodes.whole(path)
    assert tus[2].content(path) == DATA


def test_frozen_in_a_commit_it_holds_up_nobody_for_good(nodes: Diskless, tus: list[Tus]) -> None:
    path = begun(tus)
    with nodes.locked(path):
        sender = threading.Thread(target=_send, args=(nodes.nodes[0].port, path))
        sender.start()
        assert eventually(nodes.commit_waits)
        freeze = frozen(nodes.nodes[0])
        freeze.__enter__()
    try:
        goes_on(tus, path)
        assert tus[1].content(path) == DATA
    finally:
        freeze.__exit__(None, None, None)
    sender.join()
    assert [each.content(path) for each in tus] == [DATA] * 3


def _send(port: int, path: str) -> None:
    with suppress(OSError, EOFError):
        patched(port, path, KNOWN, DATA[KNOWN:])


@pytest.mark.parametrize("operation", ["CreateMultipartUpload", "UploadPart", "PutObject", "CompleteMultipartUpload"])
@pytest.mark.parametrize(
    "how", ["lose", *(pytest.param(each, marks=long) for each in ("throttle", "refuse", "reset", "half", "corrupt"))]
)
def test_requests_that_fail_or_whose_answer_is_lost_cost_no_byte(
    operation: str, how: str, nodes: Diskless, tus: list[Tus]
) -> None:
    data = pattern(12 * MIB, 15)
    more = {"answer": SLOW_DOWN} if how == "throttle" else {}
    nodes.proxy.trouble(operation, "answer" if how == "throttle" else how, **more)
    path = tus[0].create(len(data))
    client, at = tus[1], 0
    for step in (3 * MIB, 4 * MIB, 5 * MIB):
        answer = client.patch(path, at, data[at : at + step])
        assert answer.status in (204, 503), answer
        at = tus[2].offset(path)
    while (at := tus[2].offset(path)) < len(data):
        assert client.patch(path, at, data[at:]).status in (204, 503)
    nodes.whole(path)
    assert nodes.proxy.struck == 1
    assert tus[0].content(path) == data


@long
def test_a_node_that_was_taken_for_dead_ends_with_one_line(nodes: Diskless, tus: list[Tus]) -> None:
    path = begun(tus)
    sleeper = nodes.nodes[0]
    assert sleeper.process is not None
    with holder(tus[0], path, KNOWN, len(DATA) - KNOWN, DATA[KNOWN : 9 * MIB]) as first:
        assert eventually(lambda: tus[1].offset(path) >= 5 * MIB)
        with frozen(sleeper):
            first.offer(DATA[9 * MIB :])
            pid = sleeper.process.pid
            assert eventually(lambda: pid not in {one for (one,) in nodes.ask("SELECT pid FROM workers")}, DEAD)
            goes_on(tus, path)
        assert sleeper.wait() == 1
    said = [line for line in sleeper.log.splitlines() if "#critical" in line]
    assert len(said) == 1 and "taken for dead" in said[0], said
    assert tus[1].content(path) == DATA


def test_of_eight_patches_at_one_offset_one_is_left(nodes: Diskless, tus: list[Tus]) -> None:
    size = 6 * MIB
    path = tus[0].create(size)
    bodies = [bytes([65 + number]) * size for number in range(8)]
    answers: list[int] = []

    def send(number: int) -> None:
        with suppress(OSError, EOFError):
            answers.append(patched(nodes.nodes[number % 3].port, path, 0, bodies[number]))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert set(answers) <= {204, 409, 423}, answers
    at = tus[1].offset(path)
    if at < size:
        tus[1].finish(path, bodies[0])
    found = tus[2].content(path)
    assert found in bodies or (at < size and len(set(found[:at])) <= 1)


def test_the_database_away_for_a_moment_costs_no_byte(nodes: Diskless, tus: list[Tus]) -> None:
    """All connections break in the middle of a part."""
    path = begun(tus)
    nodes.proxy.trouble("UploadPart", "hold")
    statuses: list[int] = []
    with meanwhile(lambda: statuses.append(patched(nodes.nodes[0].port, path, KNOWN, DATA[KNOWN:]))):
        nodes.proxy.wait_for(1)
        with psycopg.connect(nodes.url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid()"
            )
        nodes.proxy.calm()
    assert set(statuses) <= {204, 423, 503}

    def at() -> int | None:
        head = check("HEAD", tus[1].head(path))
        return head.offset + 1 if head.status == 200 else None

    offset = (eventually(at) or 0) - 1
    assert offset >= KNOWN and (204 not in statuses or offset == len(DATA))
    while (offset := tus[1].offset(path)) < len(DATA):
        tus[1].patch(path, offset, DATA[offset:])
    assert tus[2].content(path) == DATA
