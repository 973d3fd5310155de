"""Azure and Google for the remote tier: Azurite, our strict fake of Cloud Storage, and what is really in them.

Each has what `stores.Bucket` asks for.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import urlopen

import pytest

from tests.remotes.gcs_rig import OPERATIONS as GCS_OPERATIONS
from tests.remotes.gcs_servers import BUCKET

from .daemon import ROOT, environment, eventually, free_port


class Azure:
    """``steps``: the requests that make a small blob, and those that make a large one; ``requests``: how many."""

    steps: Mapping[str, str] = {"Put Blob": "small", "Put Block": "large", "Put Block List": "large"}
    bodies = ("Put Blob", "Put Block")
    requests: Mapping[str, int] = {"small": 1, "large": 4}

    def __init__(self, server: Any, client: Any) -> None:
        from tests.remotes.azure_rig import OPERATIONS
        from tests.remotes.azure_servers import KEY

        self.operations: Sequence[tuple[str, bytes]] = OPERATIONS
        self.port: int = server.port
        self.env: Mapping[str, str] = {"AZURE_STORAGE_KEY": KEY}
        self.secrets = (KEY,)
        self._client = client

    def remote(self, endpoint: str, prefix: str) -> str:
        from tests.remotes.azure_servers import ACCOUNT, CONTAINER

        return f"az://{CONTAINER}/{prefix}?account={ACCOUNT}&endpoint={endpoint}/{ACCOUNT}"

    def objects(self, prefix: str) -> dict[str, int]:
        listed = self._client.list_blobs(f"{prefix}/")
        return {blob.name.removeprefix(f"{prefix}/"): blob.size for blob in listed}

    def content(self, prefix: str, key: str) -> bytes:
        content: bytes = self._client.download_blob(f"{prefix}/{key}").readall()
        return content

    def multiparts(self, prefix: str) -> dict[str, str]:
        listed = self._client.list_blobs(f"{prefix}/", include=["uncommittedblobs"])
        there = self.objects(prefix)
        names = [blob.name.removeprefix(f"{prefix}/") for blob in listed]
        return {name: "uncommitted" for name in names if name not in there and not name.startswith(".")}


class Google:
    """As `Azure`."""

    steps: Mapping[str, str] = {"Insert": "small", "StartSession": "large", "Chunk": "large", "Finish": "large"}
    bodies = ("Insert", "Chunk")
    requests: Mapping[str, int] = {"small": 1, "large": 4}
    operations: Sequence[tuple[str, bytes]] = GCS_OPERATIONS

    secrets = ("upload_id=",)
    """What every session's URI has in it."""

    def __init__(self, port: int) -> None:
        self.env: Mapping[str, str] = {}
        self.port = port

    def remote(self, endpoint: str, prefix: str) -> str:
        return f"gs://{BUCKET}/{prefix}?endpoint={endpoint}"

    def objects(self, prefix: str) -> dict[str, int]:
        made = json.loads(self._read("/made"))
        return {key.removeprefix(f"{prefix}/"): size for key, size in made.items() if key.startswith(f"{prefix}/")}

    def content(self, prefix: str, key: str) -> bytes:
        return self._read(f"/storage/v1/b/{BUCKET}/o/{quote(f'{prefix}/{key}', safe='')}?alt=media")

    def multiparts(self, prefix: str) -> dict[str, str]:
        """Nothing of an upload that is over. A session that was begun, and whose URI was lost with the answer, nobody
        can cancel or see; the store drops it after a week."""
        return {}

    def _read(self, path: str) -> bytes:
        with urlopen(f"http://127.0.0.1:{self.port}{path}") as answer:
            content: bytes = answer.read()
            return content


@contextmanager
def azure(directory: Path) -> Iterator[Azure]:
    pytest.importorskip("azure.storage.blob", reason="pip install resumable-server[azure]")
    from azure.storage.blob import BlobServiceClient

    from tests.remotes.azure_servers import ACCOUNT, CONTAINER, KEY, azurite

    with azurite(directory) as server:
        account = {"account_name": ACCOUNT, "account_key": KEY}
        with BlobServiceClient(server.endpoint(), account, retry_total=0) as service:
            yield Azure(server, service.get_container_client(CONTAINER))


@contextmanager
def google(directory: Path) -> Iterator[Google]:
    port = free_port()
    command = [sys.executable, "-m", "tests.remotes.gcs_fake", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL)
    store = Google(port)

    def answers() -> bool:
        with suppress(HTTPError, OSError):
            return store.objects("") == {}
        return False

    try:
        eventually(answers)
        yield store
    finally:
        process.kill()
        process.wait()


CLOUDS = {"az": azure, "gs": google}
