"""The hooks of one daemon. Invariant: without hooks there are none of their objects, and none of their threads."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from resumable.aio.threads import Pool
from resumable.config.options import Settings
from resumable.hooks.hooks import HookDependencies, Hooks
from resumable.model.errors import StartupError
from resumable.model.outbox import IOutbox
from resumable.protocol.errors import Refused, TusError

log = Logger()


def hooks_of(
    settings: Settings,
    reactor: Any,
    outbox: IOutbox,
    stop: Callable[[str, TusError], Deferred[None]],
    path_of: Callable[[str], str],
) -> Hooks | None:
    """The hooks that the settings name; None: they name none. Raises StartupError.

    ``stop``: ends an upload, and answers its running request with that error. ``path_of``: where an upload's data is.
    """
    hooks = settings.hooks
    if not hooks.deliverers and not hooks.guards:
        return None

    def stop_upload(upload_id: str, answer: Refused) -> None:
        stop(upload_id, answer).addErrback(_not_stopped, upload_id)

    needs = HookDependencies(
        reactor=reactor,
        clock=reactor,
        wall=time.time,
        monotonic=time.monotonic,
        rng=Random(secrets.randbits(64)),
        new_id=lambda: f"ask_{secrets.token_hex(16)}",
        pool=lambda size: Pool(reactor, size, "hooks"),
        environment=os.environ,
        source=settings.public_url or settings.base_path,
        path_of=path_of,
        stop_upload=stop_upload,
        remotes=[spec.name for spec in settings.remotes],
    )
    try:
        return Hooks(hooks, needs, outbox)
    except ValueError as problem:
        raise StartupError(str(problem)) from problem


def _not_stopped(failure: Failure, upload_id: str) -> None:
    if not failure.check(TusError):  # the upload is gone by now
        log.failure("an upload could not be stopped", failure, upload=upload_id)
