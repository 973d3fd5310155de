"""What the engine does with a remote, as far as the tests of the remotes need one."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater

from resumable.remotes.errors import RemoteError
from resumable.remotes.interfaces import IPartRemote, Part
from tests.remotes.file_region import FileRegion


async def upload(remote: Any, upload_id: str, data: bytes, metadata: dict[str, bytes] | None = None) -> Any:
    """When nothing goes wrong."""
    await remote.initiate_upload(upload_id, len(data), metadata or {})
    plan = await remote.part_plan(upload_id)
    for part in plan.parts(len(data)):
        await write(remote, upload_id, data, part)
    return await remote.finalize_upload(upload_id)


async def persist(remote: Any, upload_id: str, data: bytes, tries: int = 8) -> tuple[Any, list[RemoteError]]:
    """Begins where the store says, again and again. Answers what failed, too."""
    failures: list[RemoteError] = []
    while True:
        try:
            await remote.initiate_upload(upload_id, len(data), {})
            for part in await _missing(remote, upload_id, len(data), bool(failures)):
                await write(remote, upload_id, data, part)
            return await remote.finalize_upload(upload_id), failures
        except RemoteError as failure:
            if not failure.may_retry or len(failures) == tries:
                raise
            failures.append(failure)


async def write(remote: Any, upload_id: str, data: bytes, part: Part) -> None:
    """One part, out of a file."""
    with FileRegion(data[part.offset : part.end]) as region:
        try:
            await remote.write_chunk(upload_id, part.offset, region, part.size)
        finally:
            while region.lent:
                await deferLater(reactor, 0)


async def _missing(remote: Any, upload_id: str, size: int, ask: bool) -> list[Part]:
    plan = await remote.part_plan(upload_id)
    if not ask:
        return list(plan.parts(size))
    if IPartRemote.providedBy(remote):
        have = await remote.confirmed_parts(upload_id)
        return [part for part in plan.parts(size) if part not in have]
    return list(plan.parts_within(size, size, True, await remote.get_upload_progress(upload_id)))
