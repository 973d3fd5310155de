"""Azurite, Microsoft's emulator, from npm. Where it bends something, the tests say so."""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import frozen

from tests.e2e import tools
from tests.waiting import free_port, wait_until_it_listens

ACCOUNT, CONTAINER = "devstoreaccount1", "container"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The emulator's own, which everybody knows."""
PACKAGE = Path(__file__).parent / "azurite"
AZURITE = pytest.param("azurite", marks=pytest.mark.process)
"""For the params of a fixture that starts it."""
ENTRY = PACKAGE / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"


@frozen
class Azurite:
    port: int

    def endpoint(self, port: int | None = None) -> str:
        return f"http://127.0.0.1:{port or self.port}/{ACCOUNT}"


@contextmanager
def azurite(directory: Path) -> Iterator[Azurite]:
    """Running, with an empty container; the test is skipped where there is no npm, or no registry for it."""
    node = tools.need("node")
    tools.install_npm("azurite", PACKAGE)
    port = free_port()
    # the SDK may speak a newer version of the service than it knows
    command = [node, str(ENTRY), "--silent", "--skipApiVersionCheck", "--disableTelemetry", "--blobHost", "127.0.0.1",
               "--blobPort", str(port), "--location", str(directory)]  # fmt: skip
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_it_listens(port, process)
        server = Azurite(port)
        with _service(server) as service:
            service.create_container(CONTAINER)
        yield server
    finally:
        process.kill()
        process.wait()


def sas(**rights: bool) -> str:
    """A token of the account's key that gives these rights for an hour."""
    from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    kinds = ResourceTypes(container=True, object=True)
    return generate_account_sas(ACCOUNT, KEY, kinds, AccountSasPermissions(**rights), end)


def _service(server: Azurite):
    from azure.storage.blob import BlobServiceClient

    return BlobServiceClient(server.endpoint(), {"account_name": ACCOUNT, "account_key": KEY}, retry_total=0)
