"""``--check`` for each kind of remote: a line that it works, or one that says what to change."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest
import pytest_twisted
from twisted.internet import reactor

from resumable.config.options import Options
from resumable.daemon import remote_tier as tiers
from tests.remotes.azure_servers import ACCOUNT, AZURITE, CONTAINER, KEY, azurite
from tests.remotes.gcs_servers import BUCKET as GOOGLE_BUCKET
from tests.remotes.gcs_servers import started as google
from tests.remotes.s3_servers import ACCESS, BUCKET, SECRET
from tests.remotes.s3_servers import started as s3


@pytest.fixture(scope="module", params=["file", "memory", "s3", AZURITE, "gs"])
def place(request, tmp_path_factory):
    """URLs of what is there, and of what isn't; what the second is told to do."""
    directory = tmp_path_factory.mktemp("store")
    with ExitStack() as stack:
        match request.param:
            case "file":
                yield f"file://{directory}", f"file://{directory}/none", "mount it"
            case "memory":
                yield "memory://it", None, ""
            case "s3":
                server = stack.enter_context(s3("moto", directory / "root"))
                options = f"?endpoint={server.url}&dialect=minio"
                yield f"s3://{BUCKET}/x{options}", f"s3://none{options}", "create the bucket"
            case "azurite":
                server = stack.enter_context(azurite(directory))
                options = f"?account={ACCOUNT}&endpoint={server.endpoint()}&api-version=2025-11-05"
                yield f"az://{CONTAINER}/x{options}", f"az://none{options}", "create the container"
            case "gs":
                server = stack.enter_context(google("ours", directory / "root"))
                yield f"gs://{GOOGLE_BUCKET}/x?endpoint={server.url}", f"gs://none?endpoint={server.url}", "create the"


async def check(url: str) -> tuple[int, list[str]]:
    """The status that it ends with, and what it says."""
    options = Options({})
    options.parseOptions(["--remote", f"{url}{'&' if '?' in url else '?'}name=it", "--check"])
    said: list[str] = []
    try:
        await tiers.check(reactor, options.settings(), time.time, said.append)
    except SystemExit as ended:
        return int(ended.code or 0), said
    return 0, said


@pytest.fixture(autouse=True)
def credentials(monkeypatch):
    for name, value in (
        ("AWS_ACCESS_KEY_ID", ACCESS),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AZURE_STORAGE_KEY", KEY),
    ):
        monkeypatch.setenv(name, value)


@pytest_twisted.ensureDeferred
async def test_what_works_is_said_to_work(place):
    right, _, _ = place
    assert await check(right) == (0, ["resumable: remote it: works"])


@pytest_twisted.ensureDeferred
async def test_what_is_not_there_is_one_line_that_says_what_to_do(place):
    _, wrong, advice = place
    if wrong is None:
        pytest.skip("it is always there")
    status, (line,) = await check(wrong)
    assert status == 1 and line.startswith("resumable: remote it: ") and advice in line and "\n" not in line
