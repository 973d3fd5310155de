"""The contracts of remotes and of object stores over a server that is started once for a class of tests."""

from __future__ import annotations

import uuid
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager, AbstractContextManager, ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from resumable.testing.contract import RemoteContract
from resumable.testing.contract.spool_stores import ObjectStoreContract
from tests.remotes.s3_rig import fetched


class Live:
    """A prefix of its own for each test. ``rig``: see the rigs of the stores."""

    name = ""

    @classmethod
    def started(cls, directory: Path) -> AbstractContextManager[Any]:
        """The server called ``name``, running."""
        raise NotImplementedError

    def rigged(self) -> AbstractAsyncContextManager[Any]:
        """The rig over it."""
        raise NotImplementedError

    @classmethod
    def setUpClass(cls) -> None:
        with ExitStack() as stack:
            directory = stack.enter_context(TemporaryDirectory())
            cls.server = stack.enter_context(cls.started(Path(directory) / "root"))
            cls.stack = stack.pop_all()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.stack.close()

    def setUp(self) -> None:
        self.prefix = uuid.uuid4().hex[:8]
        self.running = self.rigged()
        self.rig = self.blocked(self.running.__aenter__())
        super().setUp()

    def tearDown(self) -> None:
        self.blocked(self.running.__aexit__(None, None, None))

    def blocked(self, work: Coroutine[Any, Any, Any]) -> Any:
        """What it answers, once it does."""
        return pytest_twisted.blockon(ensureDeferred(work))

    def fetch(self, url, headers):
        return pytest_twisted.blockon(deferToThread(fetched, url, headers))

    def settle(self) -> None:
        pytest_twisted.blockon(deferLater(reactor, 0))

    def outcome(self, answer):
        return pytest_twisted.blockon(answer.addBoth(lambda result: [result]))[0]


class LiveContract(Live, RemoteContract):
    """Of a remote."""

    def read_object(self, key: str) -> bytes | None:
        return self.blocked(self.rig.content(key))

    def put_foreign(self, key: str, data: bytes) -> None:
        self.blocked(self.rig.put(key, data))


class LiveStoreContract(Live, ObjectStoreContract):
    """Of a spool's store. The rig's ``store`` makes it."""

    def make_store(self) -> Any:
        return self.rig.store(self.prefix)
