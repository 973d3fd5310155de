"""The contract of remotes, over each S3 server that there is."""

from __future__ import annotations

import time
import unittest
from random import Random
from typing import ClassVar

import pytest
from attrs import evolve
from twisted.internet import reactor

from resumable.model import keys
from resumable.remotes import urls
from resumable.remotes.errors import NotThere
from resumable.remotes.regions import STEP
from tests.remotes.live_contract import LiveContract
from tests.remotes.s3_rig import MIB, rig, tiny
from tests.remotes.s3_servers import ACCESS, BUCKET, SECRET, started


class Against(LiveContract):
    more: ClassVar[dict[str, object]] = {}
    chunk_size = 5 * MIB

    @classmethod
    def started(cls, directory):
        return started(cls.name, directory)

    def rigged(self):
        return rig(self.server)

    def make_remote(self, journal):
        self.rig.journal = journal
        return self.rig.remote(template=keys.parse(prefix=self.prefix), part_size=self.chunk_size, **self.more)

    def read_object(self, key: str) -> bytes | None:
        try:
            return super().read_object(key)
        except NotThere:
            return None

    def put_foreign(self, key: str, data: bytes) -> None:
        self.blocked(self.rig.client.put_object(key, data))


class WithTinyParts(Against):
    """Parts that a real store would refuse; those of 5 MiB take twenty times as long, most of it in the store."""

    chunk_size = 3 * STEP

    def make_remote(self, journal):
        self.more = {**type(self).more, "dialect": evolve(self.server.dialect, limits=tiny())}
        return super().make_remote(journal)


@pytest.mark.slow
class TestMoto(WithTinyParts, unittest.TestCase):
    name = "moto"

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        tiny_parts = pytest.MonkeyPatch()
        tiny_parts.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 1)
        cls.stack.callback(tiny_parts.undo)


@pytest.mark.slow
@pytest.mark.process
class TestVersitygw(Against, unittest.TestCase):
    """Over remotes that are made from a URL and the environment, as the service does."""

    name = "versitygw"

    def setUp(self) -> None:
        self.made = []
        self.environ = pytest.MonkeyPatch()
        self.environ.setenv("AWS_ACCESS_KEY_ID", ACCESS)
        self.environ.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            self.environ.delenv(name, raising=False)
        super().setUp()

    def tearDown(self) -> None:
        for each in self.made:
            self.ask(each.close())
        self.environ.undo()
        super().tearDown()

    def make_remote(self, journal):
        url = f"s3://{BUCKET}/{self.prefix}?endpoint={self.server.url}&dialect=aws&style=path&part-size=5M&tags=a=b"
        means = urls.BackendServices(reactor, self.rig.pool, journal, None, time.time, Random(1))
        self.made.append(urls.make(urls.parse(url), means))
        return self.made[-1]


@pytest.mark.process
class TestRclone(WithTinyParts, unittest.TestCase):
    name = "rclone"
    more: ClassVar[dict[str, object]] = {"look_first": True}  # it knows no conditions

    def fetch(self, url, headers):
        status, got, body = super().fetch(url, headers)
        return 206 if "content-range" in got else status, got, body  # it says 200
