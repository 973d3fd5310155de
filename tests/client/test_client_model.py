"""Whatever happens on the way, the bytes at the server are those of the source, or the client says that they aren't."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from resumable.client import ClientError, ClientOptions, GaveUp, sending
from resumable.client.sources import BytesSource, StreamSource
from tests.client.world import LOST_ANSWER, LOST_BEFORE, World, answer, cut_after, new_world

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
SIZE = 9000
DATA = bytes(number * 7 % 251 for number in range(SIZE))
FAULTS = st.one_of(
    st.none(),
    st.just(LOST_BEFORE),
    st.just(LOST_ANSWER),
    st.integers(0, SIZE).map(cut_after),
    st.sampled_from([423, 429, 500, 502, 503, 504]).map(answer),
    st.just(answer(503, ("retry-after", "3"))),
)
OPTIONS = st.builds(
    ClientOptions,
    protocol=st.sampled_from(["auto", "tus", "draft"]),
    chunk_size=st.sampled_from([None, 1000, 4096, 100_000]),
    checksum=st.sampled_from([None, "auto", "sha256"]),
    announce=st.booleans(),
    retry_for=st.sampled_from([0.0, 3.0, 1e9]),
)


def _sent_at_last(world: World, options: ClientOptions) -> None:
    """Call again and again, as somebody would whose program ends, or is killed, in between."""
    offsets = []
    for _ in range(100):
        try:
            done = world.put(DATA, options)
        except GaveUp:
            offsets.append(max((len(each.data) for each in world.uploads.values()), default=0))
            continue
        upload = world.uploads[done.url]
        assert (bytes(upload.data), upload.complete, done.checked) == (DATA, True, True)
        assert world.state.entries() == []
        assert offsets == sorted(offsets)
        return
    raise AssertionError("it never ended")


@settings(max_examples=100)
@given(st.lists(FAULTS, max_size=25), OPTIONS)
def test_random_failures_always_end_byte_identical(faults: list, options: ClientOptions) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        world = new_world(Path(directory))
        world.fails(*faults)
        _sent_at_last(world, options)


@settings(max_examples=40)
@given(st.lists(FAULTS, max_size=25), st.integers(2, 5))
def test_parallel_parts_end_byte_identical(faults: list, parts: int) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory, mock.patch.object(sending, "SMALLEST_PART", 1000):
        world = new_world(Path(directory))
        world.fails(*faults)
        done = world.put(DATA, ClientOptions(parts=parts, retry_for=1e9))
        assert bytes(world.uploads[done.url].data) == DATA
        assert len([each for each in world.uploads.values() if each.partial]) >= parts


@settings(max_examples=60)
@given(st.lists(FAULTS, max_size=25), st.sampled_from(["tus", "draft"]), st.sampled_from([1, 700, 4096, 100_000]))
def test_a_stream_ends_byte_identical_with_a_bounded_buffer(faults: list, protocol: str, buffer: int) -> None:
    data = DATA[: 50 if buffer == 1 else SIZE]
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        world = new_world(Path(directory))
        world.fails(*faults)
        source = StreamSource(io.BytesIO(data), buffer, "stream")
        done = world.put(source, ClientOptions(protocol=protocol, retry_for=1e9))
        assert bytes(world.uploads[done.url].data) == data
        assert done.checked and done.size == len(data)
        assert all(each.body.size <= buffer for each in world.requests if each.body)


@settings(max_examples=40)
@given(st.lists(FAULTS, max_size=8), st.integers(0, SIZE - 1))
def test_bytes_that_the_server_has_wrong_are_always_told(faults: list, where: int) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        world = new_world(Path(directory))
        world.fails(*faults)

        def damage(exchange) -> None:
            upload = world.uploads.get(exchange.url)
            if upload is not None and upload.complete:
                upload.data[where] = (DATA[where] + 1) % 256

        world.before = damage
        try:
            world.put(BytesSource(DATA), ClientOptions(retry_for=1e9))
        except ClientError as error:
            assert "another digest" in str(error)
        else:
            raise AssertionError("nothing was noticed")
