"""The contract of remotes, over each store that speaks Google's API."""

from __future__ import annotations

import unittest
import uuid
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from resumable.model import keys
from resumable.testing.contract import RemoteContract
from tests.remotes.gcs_rig import QUANTUM, rig
from tests.remotes.gcs_servers import started
from tests.remotes.s3_rig import fetched


class Against(RemoteContract):
    """A prefix of its own for each test."""

    name = ""
    chunk_size = 2 * QUANTUM

    @classmethod
    def setUpClass(cls) -> None:
        with ExitStack() as stack:
            directory = stack.enter_context(TemporaryDirectory())
            cls.server = stack.enter_context(started(cls.name, Path(directory) / "root"))
            cls.stack = stack.pop_all()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.stack.close()

    def setUp(self) -> None:
        self.template = keys.parse(prefix=uuid.uuid4().hex[:8])
        self.rigged = rig(self.server)
        self.rig = self.blocked(self.rigged.__aenter__())
        super().setUp()

    def tearDown(self) -> None:
        self.blocked(self.rigged.__aexit__(None, None, None))

    def blocked(self, work):
        return pytest_twisted.blockon(pytest_twisted.defer.ensureDeferred(work))

    def make_remote(self, journal):
        self.rig.journal = journal
        return self.rig.remote(template=self.template, part_size=self.chunk_size)

    def read_object(self, key: str) -> bytes | None:
        return self.blocked(self.rig.content(key))

    def put_foreign(self, key: str, data: bytes) -> None:
        self.blocked(self.rig.put(key, data))

    def fetch(self, url, headers):
        return pytest_twisted.blockon(deferToThread(fetched, url, headers))

    def settle(self) -> None:
        pytest_twisted.blockon(deferLater(reactor, 0))

    def outcome(self, answer):
        return pytest_twisted.blockon(answer.addBoth(lambda result: [result]))[0]


class TestOurs(Against, unittest.TestCase):
    name = "ours"

    def tearDown(self) -> None:
        super().tearDown()
        assert not self.server.store.refused
        assert not [key for key in self.server.store.objects if ".resumable-probe" in key]


@pytest.mark.process
class TestGcpStorageEmulator(Against, unittest.TestCase):
    name = "emulator"


@pytest.mark.slow
@pytest.mark.process
class TestFakeGcsServer(Against, unittest.TestCase):
    name = "fake-gcs-server"
