"""The outbox in memory keeps what every outbox promises."""

from __future__ import annotations

import unittest

from tests.hooks.outbox import MemoryOutbox, OutboxContract


class TestMemoryOutbox(OutboxContract, unittest.TestCase):
    def make_outbox(self, deliverers):
        return MemoryOutbox(deliverers)

    def post(self, outbox, *facts):
        outbox.post(*facts)
