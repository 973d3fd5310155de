"""examples/hook_receiver.py is run, told, asked and lied to."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet import reactor
from twisted.internet.task import Clock

from resumable.aio.threads import Pool
from resumable.hooks.http import HttpHook, Poster, Posting
from resumable.hooks.interfaces import Allow, EventKind, HookFailed, Refuse
from resumable.hooks.messages import WebhookSigner
from resumable.httpclient.client import Http
from resumable.model.hooks import Answer, QuestionKind
from tests.hooks.servers import SECRET, UPLOAD, event, question

EXAMPLE = Path(__file__).parents[2] / "examples" / "hook_receiver.py"
OLD = b"an older secret, of 24 bytes or more"


def whsec(secret: bytes) -> str:
    return "whsec_" + base64.b64encode(secret).decode()


@pytest.fixture(params=[pytest.param("example", marks=pytest.mark.process)])
def receiver():
    """The process, and its address."""
    environment = {**os.environ, "HOOK_SECRETS": f"{whsec(OLD)} {whsec(SECRET)}"}
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLE), "--port", "0"], stdout=subprocess.PIPE, text=True, env=environment
    )
    yield process, process.stdout.readline().split()[-1]
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture
def hook(receiver):
    http, clock = Http(reactor), Clock()

    def make(secret: bytes = SECRET, wall=time.time) -> HttpHook:
        poster = Poster(receiver[1], http, clock=clock, wall=wall, rng=Random(1), posting=Posting(attempts=1))
        return HttpHook(poster, WebhookSigner([secret]), source="/files/", wall=wall)

    yield make
    pytest_twisted.blockon(http.close())


@pytest.fixture
def lines(receiver):
    """Reads what it prints, a line at a time, in a thread."""
    pool = Pool(reactor, 1, "lines")
    pool.start()
    yield lambda: pool.run(receiver[0].stdout.readline)
    pytest_twisted.blockon(pool.stop())


@pytest_twisted.ensureDeferred
async def test_it_prints_each_event_once_however_often_it_comes(hook, lines):
    for each in (event(), event(), event(EventKind.STORED, remote="s3")):
        await hook().deliver(each)
    first, second = await lines(), await lines()
    assert first.startswith("finished an-upload-id-1234 {") and second.startswith("stored an-upload-id-1234 {")


@pytest_twisted.ensureDeferred
async def test_it_decides_about_new_uploads(hook):
    assert await hook(OLD).ask(question()) == Allow()
    nameless = evolve(question(), upload=evolve(UPLOAD, metadata={}))
    assert await hook().ask(nameless) == Refuse(Answer(422, body=b"Give the file a name, please.\n"))
    assert await hook().ask(evolve(nameless, kind=QuestionKind.FINISH)) == Allow()


@pytest_twisted.ensureDeferred
async def test_it_believes_nobody_else(hook):
    for liar in (hook(b"not the secret, but of its length"), hook(wall=lambda: time.time() - 600)):
        with pytest.raises(HookFailed, match="401"):
            await liar.ask(question())


@pytest.mark.process
def test_it_wants_a_secret():
    environment = {name: value for name, value in os.environ.items() if name != "HOOK_SECRETS"}
    run = subprocess.run([sys.executable, str(EXAMPLE)], env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 2 and "HOOK_SECRETS" in run.stderr
