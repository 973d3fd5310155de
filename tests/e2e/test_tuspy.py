"""tuspy 1.1.0, the Python client that the README shows."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tusclient.client import TusClient
from tusclient.storage.filestorage import FileStorage

from .daemon import Daemon
from .tus import Tus, head_bytes, metadata, pattern

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # it leaves the source open

DATA = pattern(1_200_007, seed=14)


@pytest.fixture
def source(tmp_path: Path) -> str:
    path = tmp_path / "source.bin"
    path.write_bytes(DATA)
    return str(path)


def path_of(uploader: Any) -> str:
    return urlsplit(uploader.url).path


@pytest.mark.parametrize("chunk_size", [2**40, 100_003])
@pytest.mark.parametrize("upload_checksum", [False, True])
def test_a_file_arrives_whole(daemon: Daemon, tus: Tus, source: str, chunk_size: int, upload_checksum: bool) -> None:
    uploader = TusClient(daemon.url).uploader(source, chunk_size=chunk_size, upload_checksum=upload_checksum)
    uploader.upload()
    assert tus.content(path_of(uploader)) == DATA


def test_an_empty_file_is_finished(daemon: Daemon, tus: Tus) -> None:
    uploader = TusClient(daemon.url).uploader(file_stream=io.BytesIO(b""))
    uploader.upload()
    assert tus.content(path_of(uploader)) == b""


def test_metadata_beyond_ascii_comes_back(daemon: Daemon, tus: Tus, source: str) -> None:
    name = "naïve 文件 🎈.bin"
    uploader = TusClient(daemon.url).uploader(source, metadata={"filename": name})
    uploader.upload()
    assert tus.head(path_of(uploader))["upload-metadata"] == metadata(filename=name)


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[FileStorage]:
    it = FileStorage(str(tmp_path / "urls"))
    yield it
    it.close()


def test_an_interrupted_upload_goes_on_later(daemon: Daemon, tus: Tus, source: str, storage: FileStorage) -> None:
    client = TusClient(daemon.url)
    first = client.uploader(source, chunk_size=100_000, store_url=True, url_storage=storage)
    first.upload(stop_at=500_000)
    daemon.restart()
    second = client.uploader(source, chunk_size=100_000, store_url=True, url_storage=storage)
    assert (second.url, second.offset) == (first.url, 500_000)
    second.upload()
    assert tus.content(path_of(second)) == DATA


def test_an_empty_metadata_header_is_none(tus: Tus) -> None:
    """It sends an empty ``upload-metadata:`` header when there is none."""
    answer = tus.post(3, {"upload-metadata": ""})
    assert answer.status == 201
    assert "upload-metadata" not in tus.head(tus.path(answer))


def test_after_a_lost_answer_an_empty_patch_at_the_end_is_answered(tus: Tus) -> None:
    """After a lost answer it sends an empty PATCH at offset == length and needs 204 with Upload-Offset."""
    path = tus.create(3, None, b"abc")
    fields = {"Upload-Offset": "3", "Content-Type": "application/offset+octet-stream", "Content-Length": "0"}
    with tus.wire() as wire:
        answer = wire.send(head_bytes("PATCH", path, fields)).answer()
    assert (answer.status, answer.offset) == (204, 3)
