"""Hooks and guards, each looked at without sending anything."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import SSL4ServerEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol

from resumable.doctor.hook_targets import check_hooks
from tests.certificates import certified
from tests.parsing import parse


class Heard(Protocol):
    """``lost`` fires with all that was received, at the end."""

    def __init__(self):
        self.data, self.lost = b"", Deferred()

    def dataReceived(self, data):
        self.data += data

    def connectionLost(self, reason):
        self.lost.callback(self.data)


def look(*flags, **more):
    return Deferred.fromCoroutine(check_hooks(reactor, parse(*flags), **more))


@pytest_twisted.ensureDeferred
async def test_without_hooks_that_is_said():
    (found,) = await look()
    assert (found.name, found.level) == ("hooks", "ok") and "none" in found.what


@pytest.mark.parametrize("kind", ["hook", "guard"])
@pytest_twisted.ensureDeferred
async def test_a_server_that_takes_connections_is_well_and_gets_no_byte(kind):
    heard = Heard()
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory.forProtocol(lambda: heard))
    try:
        (found,) = await look(f"--{kind}", f"http://127.0.0.1:{port.getHost().port}/secret")
        assert (found.name, found.level) == (kind, "ok")
        assert "secret" not in found.what and "not looked at" in found.what
        assert await heard.lost == b""
    finally:
        await port.stopListening()


@pytest.mark.parametrize(("kind", "words"), [("hook", "Events wait"), ("guard", "clients get 503")])
@pytest_twisted.ensureDeferred
async def test_a_server_that_nobody_runs_is_bad(kind, words):
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        (found,) = await look(f"--{kind}", f"billing=http://127.0.0.1:{bound.getsockname()[1]}/secret")
    assert (found.name, found.level) == (f"{kind} billing", "bad")
    assert "nobody listens there" in found.what and words in found.advice and "secret" not in found.what


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Twisted calls what pyOpenSSL has deprecated
@pytest_twisted.ensureDeferred
async def test_a_certificate_that_is_not_trusted_is_bad_and_one_that_is_is_well(tmp_path):
    authority = certified("ours")
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    options = certified("server", authority).private.options()
    port = await SSL4ServerEndpoint(reactor, 0, options, interface="127.0.0.1").listen(Factory.forProtocol(Protocol))
    try:
        url = f"https://localhost:{port.getHost().port}/"
        (found,) = await look("--hook", url)
        assert found.level == "bad" and "no secure connection" in found.what
        (found,) = await look("--hook", url, "--hook-ca", str(tmp_path / "ca.pem"))
        assert found.level == "ok", found
    finally:
        await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_server_that_says_nothing_to_a_handshake_is_given_up():
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        (found,) = await look("--hook", f"https://localhost:{silent.getsockname()[1]}/", patience=0.1)
    assert found.level == "bad" and "no connection within 0.1 s" in found.what


@pytest_twisted.ensureDeferred
async def test_a_command_is_looked_for_and_not_run(tmp_path):
    script, ran = tmp_path / "script", tmp_path / "ran"
    script.write_text(f"#!/bin/sh\ntouch {ran}\n")
    (found,) = await look("--hook", f"exec:{script} --key hunter2")
    assert found.level == "bad" and "can't be run" in found.what and "chmod +x" in found.advice
    script.chmod(0o755)
    (found,) = await look("--hook", f"exec:{script} --key hunter2")
    assert found.level == "ok" and "hunter2" not in found.what and not ran.exists()
    (found,) = await look("--guard", "exec:no-such-program")
    assert found.level == "bad" and "no-such-program" in found.what and found.advice


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_module:Hook", "can't be loaded"),
        ("os:path", "has no function with @on or @before"),
        ("nobody", "no package here"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_python_hook_that_can_not_be_had_is_bad(name, words):
    (found,) = await look("--hook", f"python:{name}")
    assert found.level == "bad" and words in found.what and "docs/hooks.md" in found.advice


@pytest_twisted.ensureDeferred
async def test_a_python_hook_is_imported_and_has_to_be_what_it_is_used_for(tmp_path, monkeypatch):
    source = (
        "from zope.interface import implementer\nfrom resumable.hooks import IHook\n"
        "@implementer(IHook)\nclass Mine:\n    def deliver(self, event): ...\n"
    )
    (tmp_path / "mine_for_doctor.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    hook, guard = await look("--hook", "python:mine_for_doctor:Mine", "--guard", "python:mine_for_doctor:Mine")
    assert (hook.level, guard.level) == ("ok", "bad") and "IGuard" in guard.what


@pytest_twisted.ensureDeferred
async def test_a_hook_that_is_wrong_spoils_no_other():
    found = await look("--hook", "a=exec:no-such-program", "--hook", "b=exec:sh", "--guard", "c=python:nobody")
    assert [(each.name, each.level) for each in found] == [("hook a", "bad"), ("hook b", "ok"), ("guard c", "bad")]
