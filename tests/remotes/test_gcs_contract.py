"""The contracts of remotes and of object stores, over each store that speaks Google's API."""

from __future__ import annotations

import unittest

import pytest

from resumable.model import keys
from tests.remotes.gcs_rig import QUANTUM, rig
from tests.remotes.gcs_servers import started
from tests.remotes.live_contract import LiveContract, LiveStoreContract
from tests.waiting import long


class Against(LiveContract):
    chunk_size = 2 * QUANTUM

    @classmethod
    def started(cls, directory):
        return started(cls.name, directory)

    def rigged(self):
        return rig(self.server)

    def make_remote(self, journal):
        self.rig.journal = journal
        return self.rig.remote(template=keys.parse(prefix=self.prefix), part_size=self.chunk_size)


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


class AgainstSpool(LiveStoreContract):
    has_multiparts = False

    @classmethod
    def started(cls, directory):
        return started(cls.name, directory)

    def rigged(self):
        return rig(self.server)


class TestSpoolOnOurs(AgainstSpool, unittest.TestCase):
    name = "ours"

    def tearDown(self) -> None:
        super().tearDown()
        assert not self.server.store.refused
        assert not self.server.store.sessions


@long
@pytest.mark.process
class TestSpoolOnGcpStorageEmulator(AgainstSpool, unittest.TestCase):
    name = "emulator"
