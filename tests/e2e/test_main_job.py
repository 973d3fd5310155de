"""The main job on real input: files of every size go through the README's commands and come out the same."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from .daemon import Daemon
from .readme import upload_with_curl
from .tus import Tus, patch_head, pattern

MIB = 2**20
GIB = 2**30


def write_file(path: Path, size: int) -> str:
    """Fill ``path`` with bytes no two MiB of which are the same; the SHA-256 of all of them."""
    block, digest = pattern(MIB, seed=17), hashlib.sha256()
    with path.open("wb") as file:
        for number in range(0, size, MIB):
            piece = (number.to_bytes(8, "big") + block[8:])[: size - number]
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.parametrize(
    ("size", "first_part"),
    [
        pytest.param(0, 0, id="0 B"),
        pytest.param(1, 0, id="1 B"),
        pytest.param(5 * MIB + 3, 2_000_000, id="5 MiB + 3"),
        pytest.param(GIB, 400_000_001, id="1 GiB", marks=pytest.mark.slow),
    ],
)
@pytest.mark.skipif(Daemon.shares, reason="files get their names a moment later there, and go a minute after a removal")
def test_a_file_goes_through_the_commands_of_the_readme(
    size: int, first_part: int, daemon: Daemon, tus: Tus, tmp_path: Path
) -> None:
    source = tmp_path / "big.bin"
    digest = write_file(source, size)
    done = upload_with_curl(daemon, source, first_part)
    source.unlink()
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith(f"intact: {daemon.url}"), done.stdout
    path = "/files/" + last.rsplit("/", 1)[-1]
    stored = daemon.upload_dir / path.removeprefix("/files/")
    assert stored.stat().st_size == size
    assert file_digest(stored) == digest
    assert tus.delete(path).status == 204
    assert not stored.exists()


@pytest.mark.parametrize("length", [2**32 - 1, 2**32, 2**32 + 1, 5 * GIB, 2**53 + 1, 2**63 - 1])
def test_lengths_beyond_32_bits_are_kept_to_the_last_digit(length: int, tus: Tus) -> None:
    path = tus.create(length, None, b"x" * 100)
    answer = tus.head(path)
    assert (answer["upload-length"], answer.offset) == (str(length), 100)
    assert tus.patch(path, 2**32 + 100, b"y").status == 409
    assert tus.patch(path, 100, b"y" * 70_000).offset == 70_100
    with tus.wire() as wire:  # one byte more than fits
        assert wire.send(patch_head(path, 70_100, length - 70_100 + 1)).answer().status == (
            413 if length < 2**59 else 400
        )
    with tus.wire() as wire:  # and as many as fit, cut off
        wire.send(patch_head(path, 70_100, min(length - 70_100, 10**17)) + b"z" * 10)
        wire.half_close()
        with pytest.raises(EOFError):
            wire.answer()
    assert tus.offset(path) == 70_110


def test_a_final_beyond_32_bits_knows_its_length(tus: Tus) -> None:
    parts = [tus.create(2**32 - 1, {"Upload-Concat": "partial"}) for _ in range(3)]
    assert tus.head(tus.concat(*parts))["upload-length"] == str(3 * (2**32 - 1))


@pytest.mark.skipif(Daemon.shares, reason="about the data file of an unfinished upload, and SQLite")
@pytest.mark.parametrize("step", [2**31, 2**32])
def test_appends_across_32_bits_land_where_they_belong(step: int) -> None:
    """In a sparse file: the catalog is told that the bytes below are there, and they are zeros."""
    before, data = step - 100_000, pattern(300_000, seed=19)
    length = before + len(data)
    with Daemon() as daemon:
        daemon.start()
        tus = daemon.attach(Tus(daemon.port))
        path = tus.create(length, None, b"\0")
        stored = daemon.upload_dir / path.removeprefix("/files/")
        assert daemon.stop() == 0
        os.truncate(stored, before)
        with closing(sqlite3.connect(daemon.upload_dir / ".resumable" / "catalog.sqlite3")) as catalog, catalog:
            catalog.execute("UPDATE uploads SET offset = ?, adoptable = ?", (before, before))
        daemon.start()
        assert tus.offset(path) == before
        assert tus.patch(path, before, data[:200_000]).offset == before + 200_000  # streamed
        daemon.restart()
        assert tus.offset(path) == before + 200_000
        assert tus.patch(path, before + 200_000, [data[200_000:250_000]]).offset == before + 250_000
        assert tus.patch(path, before + 250_000, data[250_000:]).offset == length
        assert stored.stat().st_size == length
        with stored.open("rb") as file:
            file.seek(before - 10)
            assert file.read() == bytes(10) + data


@pytest.mark.slow
@pytest.mark.skipif("RESUMABLE_LONG" not in os.environ, reason="5 GiB of real bytes: set RESUMABLE_LONG=1")
def test_real_bytes_beyond_32_bits_are_intact(daemon: Daemon, tus: Tus) -> None:
    """Two cuts, one below and one beyond 2^32."""
    size, block, digest = 5 * GIB, bytearray(pattern(MIB, seed=18)), hashlib.sha256()
    path = tus.create(size)
    sent = 0
    for until in (3 * GIB + 5 * MIB, 4 * GIB + 7 * MIB, size):
        with tus.wire() as wire:
            wire.send(patch_head(path, sent, until - sent))
            while sent < until:
                block[:8] = sent.to_bytes(8, "big")
                digest.update(block)
                wire.send(bytes(block))
                sent += MIB
            assert wire.answer().status == 204
        assert tus.offset(path) == until
        if until < size:
            daemon.restart()
    stored = daemon.upload_dir / path.removeprefix("/files/")
    assert file_digest(stored) == digest.hexdigest()
    tus.delete(path)
