"""An Azure remote over a real socket, and what a test needs to look at it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any
from urllib.parse import quote

from attrs import define
from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import BlobServiceClient, ContainerClient
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from resumable.remotes import urls
from resumable.remotes.azure.scheme import SCHEME
from resumable.remotes.interfaces import IJournal
from resumable.remotes.journals import MemoryJournal
from resumable.remotes.regions import BytesRegion
from tests.remotes.azure_servers import ACCOUNT, CONTAINER, KEY, Azurite
from tests.remotes.s3_proxy import Proxy

OPERATIONS = [
    ("Put Block From URL", rb"(?is)PUT [^ ]*[?&]comp=block&.*\r\nx-ms-copy-source:"),
    ("Blob Batch", rb"POST [^ ]*[?&]comp=batch"),
    ("Put Block List", rb"PUT [^ ]*[?&]comp=blocklist"),
    ("Put Block", rb"PUT [^ ]*[?&]comp=block&"),
    ("Get Block List", rb"GET [^ ]*[?&]comp=blocklist"),
    ("List Blobs", rb"GET [^ ]*[?&]comp=list"),
    ("Put Blob", rb"PUT "),
    ("Get Blob Properties", rb"HEAD "),
    ("Get Blob", rb"GET "),
    ("Delete Blob", rb"DELETE "),
]


@define
class Rig:
    """``proxy`` stands before the server; ``blobs`` goes past it. `remote` makes another over the same journal."""

    proxy: Proxy
    blobs: ContainerClient
    endpoint: str
    journal: IJournal
    remotes: list[Any]

    def remote(self, prefix: str = "", **more: Any) -> Any:
        return self._made(urls.make, prefix, **more)

    def store(self, prefix: str = "", **more: Any) -> Any:
        """The same place as a spool."""
        return self._made(SCHEME.make_store, prefix, **more)

    def _made(self, make: Any, prefix: str, *, part_size: int = 64 << 10, environ: Any = None, **options: str) -> Any:
        means = urls.BackendServices(
            reactor=reactor,
            pool=None,
            journal=self.journal,
            disk=None,
            now=time.time,
            rng=Random(0),
            environ={"AZURE_STORAGE_KEY": KEY} if environ is None else environ,
            part_size=part_size,
            timeout=float(options.pop("timeout", "10")),
            parts=4,
        )
        options = {name.replace("_", "-"): value for name, value in options.items()}
        options = {"endpoint": self.endpoint, "account": ACCOUNT, **options}
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in options.items())
        spec = urls.parse(f"az://{CONTAINER}/{prefix}?{query}")
        made = make(spec, means)
        self.remotes.append(made)
        return made

    async def content(self, key: str) -> bytes | None:
        try:
            return await deferToThread(lambda: self.blobs.download_blob(key).readall())
        except ResourceNotFoundError:
            return None

    async def put(self, key: str, data: bytes) -> None:
        await deferToThread(lambda: self.blobs.upload_blob(key, data, overwrite=True))

    async def blob(self, key: str) -> Any:
        return await deferToThread(lambda: self.blobs.get_blob_client(key).get_blob_properties())

    async def names(self) -> list[str]:
        """Everything, what is uncommitted too."""
        return await deferToThread(lambda: [blob.name for blob in self.blobs.list_blobs(include=["uncommittedblobs"])])


@asynccontextmanager
async def rig(server: Azurite) -> AsyncIterator[Rig]:
    """Everything started, and stopped at the end."""
    proxy = Proxy(reactor, server.port, OPERATIONS)
    port = reactor.listenTCP(0, proxy, interface="127.0.0.1")
    service = BlobServiceClient(server.endpoint(), {"account_name": ACCOUNT, "account_key": KEY}, retry_total=0)
    it = Rig(proxy, service.get_container_client(CONTAINER), server.endpoint(port.getHost().port), MemoryJournal(), [])
    try:
        yield it
    finally:
        await port.stopListening()
        for each in list(proxy.open):
            each.transport.abortConnection()
        for remote in it.remotes:
            await remote.close()
        service.close()
        while proxy.open:
            await deferLater(reactor, 0)
        await deferLater(reactor, 0)


async def upload(remote: Any, upload_id: str, data: bytes, metadata: dict[str, bytes] | None = None) -> Any:
    """What the engine does when nothing goes wrong."""
    await remote.initiate_upload(upload_id, len(data), metadata or {})
    await write(remote, upload_id, data)
    return await remote.finalize_upload(upload_id)


async def write(remote: Any, upload_id: str, data: bytes, most: int | None = None) -> None:
    """The parts that the store hasn't; ``most`` of them."""
    plan, have = await remote.part_plan(upload_id), await remote.confirmed_parts(upload_id)
    for part in [part for part in plan.parts(len(data)) if part not in have][:most]:
        await remote.write_chunk(upload_id, part.offset, BytesRegion(data[part.offset : part.end]), part.size)
