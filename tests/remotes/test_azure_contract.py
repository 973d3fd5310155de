"""The contract of remotes, over Azurite."""

from __future__ import annotations

import unittest

import pytest

from tests.remotes.azure_rig import rig
from tests.remotes.azure_servers import azurite
from tests.remotes.live_contract import LiveContract


@pytest.mark.process
class TestAzurite(LiveContract, unittest.TestCase):
    @classmethod
    def started(cls, directory):
        directory.mkdir()
        return azurite(directory)

    def rigged(self):
        return rig(self.server)

    def make_remote(self, journal):
        self.rig.journal = journal
        return self.rig.remote(self.prefix, part_size=self.chunk_size)
