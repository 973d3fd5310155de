"""The state file, and the sources whose fingerprints it keeps."""

from __future__ import annotations

import errno
import io
import json
import os
import threading
from pathlib import Path

import pytest

from resumable.client import AlreadySending, BadOption, ClientOptions, SourceChanged, SourceUnreadable, StateUnusable
from resumable.client.sources import SAMPLE, BytesSource, FileSource, StreamSource, source_of
from resumable.client.state_file import StateFile, UploadEntry, state_directory


def entry(key: str, **more: object) -> UploadEntry:
    known = {"source": "a", "endpoint": "http://s/", "protocol": "tus", "size": 5, "fingerprint": {"size": 5}}
    return UploadEntry(key=key, **{**known, **more})  # type: ignore[arg-type]


def test_entries_come_back_as_they_were_and_only_their_owner_reads_them(directory: Path) -> None:
    state = StateFile(directory / "deep/uploads.json")
    first = entry("a", parts=[(0, 2, None), (2, 3, "http://s/2")])
    state.save(first)
    state.save(entry("b", fingerprint=None))
    assert state.find("a") == first
    assert [(each.key, each.resumable, each.urls) for each in state.entries()] == [
        ("a", True, ("http://s/2",)),
        ("b", False, ()),
    ]
    assert state.path.stat().st_mode & 0o077 == 0
    state.forget("a")
    state.forget("a")
    assert state.find("a") is None


def test_many_who_write_at_once_lose_nothing(directory: Path) -> None:
    def write(number: int) -> None:
        StateFile(directory / "uploads.json").save(entry(f"k{number}"))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(StateFile(directory / "uploads.json").entries()) == 20


def test_what_is_no_state_file_is_not_overwritten(directory: Path) -> None:
    path = directory / "uploads.json"
    for text in ("nonsense", "[]", json.dumps({"version": 99, "uploads": {}})):
        path.write_text(text)
        with pytest.raises(StateUnusable, match="move it away"):
            StateFile(path).save(entry("a"))
        assert path.read_text() == text


def test_a_state_file_that_cant_be_written_is_told_of(directory: Path) -> None:
    (directory / "file").write_text("")
    with pytest.raises(StateUnusable, match="XDG_STATE_HOME"):
        StateFile(directory / "file/uploads.json").save(entry("a"))


def test_a_claim_is_one_transfers_and_ends_with_it(directory: Path) -> None:
    state = StateFile(directory / "uploads.json")
    claim = state.claim("a", "it")
    with pytest.raises(AlreadySending):
        state.claim("a", "it")
    state.claim("b", "another").release()
    claim.release()
    state.claim("a", "it").release()
    assert list((directory / "locks").iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EIO])
def test_a_claim_that_cant_be_locked_is_no_other_transfer(
    directory: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def flock(file: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(StateUnusable, match=f"{os.strerror(number)}; set XDG_STATE_HOME"):
        StateFile(directory / "uploads.json").claim("a", "it")


def test_the_state_directory_is_the_one_of_the_xdg_specification(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/somewhere")
    assert state_directory() == Path("/somewhere/resumable")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setattr("sys.platform", "linux")
    assert state_directory() == Path("/home/me/.local/state/resumable")
    monkeypatch.setattr("sys.platform", "darwin")
    assert state_directory() == Path("/home/me/Library/Application Support/resumable")


def test_a_fingerprint_is_that_of_size_time_and_sampled_content(directory: Path) -> None:
    path, copy = directory / "a", directory / "b"
    data = bytearray(os.urandom(1 << 20))
    path.write_bytes(data)
    times = path.stat()
    first = FileSource(path).fingerprint()
    copy.write_bytes(data)
    os.utime(copy, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert FileSource(copy).fingerprint() == first  # whatever its inode is
    for where in (0, SAMPLE - 1, len(data) - 1, (len(data) - SAMPLE) * 7 // 15):
        changed = bytearray(data)
        changed[where] ^= 1
        copy.write_bytes(changed)
        os.utime(copy, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert FileSource(copy).fingerprint() != first
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    assert FileSource(path).fingerprint() != first


@pytest.mark.parametrize("size", [0, 1, SAMPLE, SAMPLE + 1])
def test_small_files_have_fingerprints(directory: Path, size: int) -> None:
    (directory / "a").write_bytes(bytes(size))
    assert FileSource(directory / "a").fingerprint()["size"] == size


def test_a_file_that_changes_while_it_is_open_is_noticed_and_one_that_is_removed_is_sent(directory: Path) -> None:
    path = directory / "a"
    path.write_bytes(b"one")
    source = FileSource(path)
    source.recheck()
    path.unlink()
    source.recheck()
    assert source.read(0, 9) == b"one"
    path.write_bytes(b"other")
    with pytest.raises(SourceChanged):
        source.recheck()
    source.close()
    source.close()


def test_what_cant_be_sent_is_told_in_words(directory: Path) -> None:
    with pytest.raises(SourceUnreadable, match="No such file"):
        source_of(str(directory / "nothing"), None, 1)
    with pytest.raises(SourceUnreadable, match="a directory"):
        source_of(directory, None, 1)
    os.mkfifo(directory / "pipe")
    with pytest.raises(SourceUnreadable, match="standard input"):
        source_of(directory / "pipe", None, 1)


def test_a_stream_keeps_what_isnt_acknowledged_and_no_more() -> None:
    source = StreamSource(io.BytesIO(bytes(range(100))), 10, "s")
    window = source.window(0, None)
    assert 0 < window.size <= 10 and not window.last
    source.acknowledge(4)
    assert source.window(4, 3).size == 3
    assert source.read(4, 2) == bytes([4, 5])
    with pytest.raises(SourceChanged, match="are gone here"):
        source.window(3, None)
    source.close()


def test_a_stream_that_breaks_is_no_end() -> None:
    class Broken(io.RawIOBase):
        def read1(self, _: int = -1) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(SourceUnreadable, match="Input/output error"):
        StreamSource(Broken(), 10, "s").window(0, None)  # type: ignore[arg-type]


def test_bytes_are_known_by_their_content() -> None:
    assert BytesSource(b"a").identity == BytesSource(bytearray(b"a")).identity != BytesSource(b"b").identity


@pytest.mark.parametrize(
    "options",
    [
        {"protocol": "ftp"},
        {"checksum": "rot13"},
        {"on_changed": "ignore"},
        {"parts": 0},
        {"retry_for": -1},
        {"retry_for": float("nan")},
        {"chunk_size": 0},
        {"timeout": 0},
        {"limit_rate": -5},
        {"headers": {"X": "a\r\nb"}},
        {"headers": {"X y": "a"}},
    ],
)
def test_options_that_cant_be_are_told_before_any_request(options: dict[str, object]) -> None:
    with pytest.raises(BadOption):
        ClientOptions(**options)  # type: ignore[arg-type]


def test_a_token_in_a_file_is_read_each_time(directory: Path) -> None:
    path = directory / "token"
    path.write_text("one\n")
    options = ClientOptions(token=path)
    assert options.bearer() == "one"
    path.write_text("two\n")
    assert options.bearer() == "two"
    path.unlink()
    with pytest.raises(BadOption, match="can't be read"):
        options.bearer()
