"""The promises of `resumable.remotes.interfaces`, as a suite that any backend can run. Public.

    class TestTape(RemoteContract, unittest.TestCase):
        def make_remote(self, journal): ...
        def read_object(self, key): ...

See docs/writing-a-backend.md. Tests of capabilities that the backend doesn't have are skipped.
"""

from resumable.testing.contract.capabilities import Capabilities, Readers
from resumable.testing.contract.case import RemoteCase
from resumable.testing.contract.crashes import Crashes
from resumable.testing.contract.operations import Operations

__all__ = ["RemoteContract"]


class RemoteContract(Operations, Crashes, Capabilities, Readers, RemoteCase):
    """All of it. `RemoteCase` lists the methods that a test case must have."""
