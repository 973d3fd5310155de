"""S3 as a spool: the contract of object stores over each server that there is, and what goes wrong on the way."""

from __future__ import annotations

import time
import unittest
from random import Random
from typing import Any, ClassVar

import pytest
from attrs import evolve
from twisted.internet import reactor

from resumable.model import keys
from resumable.remotes import urls
from resumable.remotes.errors import CannotCopy
from resumable.remotes.regions import STEP, BytesRegion
from resumable.remotes.s3.s3_spool import S3SpoolStore
from tests.remotes.live_contract import LiveStoreContract
from tests.remotes.s3_rig import MIB, rig, tiny
from tests.remotes.s3_servers import ACCESS, BUCKET, SECRET, started


class Against(LiveStoreContract):
    """With tiny parts, which real stores would refuse."""

    part = 2 * STEP
    changes: ClassVar[dict[str, Any]] = {}

    @classmethod
    def started(cls, directory):
        return started(cls.name, directory)

    def rigged(self):
        return rig(self.server)

    def make_store(self):
        dialect = evolve(self.server.dialect, limits=tiny(), **self.changes)
        template = keys.parse(prefix=self.prefix)
        return S3SpoolStore(
            self.rig.client, self.rig.pool, time.time, template=template, dialect=dialect, part_size=self.part
        )


class TestMoto(Against, unittest.TestCase):
    name = "moto"
    tells_what_is_over = False  # it answers 500

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        tiny_parts = pytest.MonkeyPatch()
        tiny_parts.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 1)
        cls.stack.callback(tiny_parts.undo)


@pytest.mark.slow
@pytest.mark.process
class TestVersitygw(Against, unittest.TestCase):
    """Made from a URL and the environment, as the service does."""

    name = "versitygw"
    part = 5 * MIB

    def setUp(self) -> None:
        self.environ = pytest.MonkeyPatch()
        self.environ.setenv("AWS_ACCESS_KEY_ID", ACCESS)
        self.environ.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            self.environ.delenv(name, raising=False)
        super().setUp()

    def tearDown(self) -> None:
        self.ask(self.store.close())
        self.environ.undo()
        super().tearDown()

    def make_store(self):
        url = f"s3://{BUCKET}/{self.prefix}?endpoint={self.server.url}&dialect=aws&style=path&part-size=5M&tags=a=b"
        means = urls.BackendServices(reactor, self.rig.pool, self.rig.journal, None, time.time, Random(1))
        return urls.make_store(urls.parse(url), means)


@pytest.mark.process
class TestRclone(Against, unittest.TestCase):
    """It knows no conditions, and its multiparts don't do for a spool: numbers can't jump."""

    name = "rclone"
    rewrites_parts = False  # it refuses a second part of the same number
    numbers_jump = False  # InvalidPart, and the multipart is gone

    copies_parts = False  # it has no UploadPartCopy

    def test_what_it_takes_for_a_part_is_no_copy(self) -> None:
        """It answers 200 as if an empty part had been sent: CannotCopy."""
        source = f"{self.store.prefix}.tails/w-1"
        self.ask(self.store.write(source, BytesRegion(b"123456789")))
        self.refusal(self.store.copy_part(self.key, self.begin(), 1, "w-1", source, 0, 9), CannotCopy)

    def fetch(self, url, headers):
        status, got, body = super().fetch(url, headers)
        return 206 if "content-range" in got else status, got, body  # it says 200
