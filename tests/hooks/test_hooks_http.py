"""Hooks behind a URL, on servers that do anything."""

from __future__ import annotations

import json
import time
from random import Random

import pytest
import pytest_twisted
from attrs import evolve
from OpenSSL import SSL
from standardwebhooks import Webhook
from twisted.internet import error, reactor
from twisted.internet.defer import Deferred
from twisted.internet.ssl import Certificate, PrivateCertificate
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure
from twisted.web.client import ResponseNeverReceived
from zope.interface.verify import verifyObject

from resumable.hooks.ask import Guard, Guards
from resumable.hooks.deliver import Deliverer
from resumable.hooks.http import Poster, Posting, Tls, check_forward, check_url, from_files
from resumable.hooks.interfaces import Allow, BadVerdict, EventKind, HookFailed, IGuard, IHook, IWatcher, Refuse
from resumable.hooks.retry_policy import RetryPolicy
from resumable.httpclient.client import retry_after
from resumable.httpclient.errors import HttpError, TimedOut, TooLong, Unreached, error_for
from resumable.model.hooks import Answer, Changes, QuestionKind
from resumable.model.upload import FactKind
from resumable.protocol.errors import Refused, Unavailable
from tests.certificates import Authority
from tests.hooks.outbox import MemoryOutbox, fact
from tests.hooks.servers import REQUEST, SECRET, UPLOAD, HookServer, RawServer, event, question

# of Twisted with a pyOpenSSL that is newer
pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")

JSON = {"Content-Type": "application/json"}
YES = {"allow": True}
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest_twisted.ensureDeferred
async def test_an_event_is_posted_signed_and_the_same_each_time(rig):
    server = HookServer((204, {}, b""))
    it = rig(server)
    now = iter([time.time(), time.time() + 5])
    hook = it.hook(SECRET, b"x" * 32, wall=lambda: next(now))
    assert verifyObject(IHook, hook) and verifyObject(IGuard, hook) and verifyObject(IWatcher, hook)
    await hook.deliver(event())
    await hook.deliver(event())
    first, second = server.requests
    assert (first.method, first.uri) == (b"POST", b"/hook")
    assert first.getHeader("content-type") == "application/cloudevents+json"
    assert server.bodies[0] == server.bodies[1]
    for index, request in enumerate((first, second)):
        headers = {name: request.getHeader(name) for name in ("webhook-id", "webhook-timestamp", "webhook-signature")}
        assert headers["webhook-id"] == event().id == json.loads(server.bodies[index])["id"]
        for secret in (SECRET, b"x" * 32):
            assert Webhook(secret).verify(server.bodies[index], headers)["type"] == "resumable.upload.finished"
    assert first.getHeader("webhook-signature") != second.getHeader("webhook-signature")


@pytest_twisted.ensureDeferred
async def test_a_connection_is_used_again(rig):
    server = HookServer((204, {}, b""))
    hook = rig(server).hook()
    for _ in range(5):
        await hook.deliver(event())
    assert len(server.transports) == 1


@pytest_twisted.ensureDeferred
async def test_headers_of_the_client_go_along_only_if_chosen(rig):
    server = HookServer((204, {}, b""))
    await rig(server, Posting(forward=("Cookie", "X-Own", "X-Absent"))).hook().deliver(event())
    assert (server.header("cookie"), server.header("x-own")) == ("a=1; b=2", "yes")
    assert server.header("authorization") is None and server.header("x-absent") is None


@pytest_twisted.ensureDeferred
async def test_a_hook_allows_changes_and_refuses(rig):
    server = HookServer(
        YES,
        {"allow": True, "change": {"key": "a/b"}, "response": {"headers": {"X-A": "1"}}},
        {"allow": False, "response": {"status": 402, "body": "pay"}},
    )
    hook = rig(server).hook()
    assert await hook.ask(question()) == Allow()
    assert await hook.ask(question()) == Allow(Changes(key="a/b"), Answer(headers={"X-A": "1"}))
    assert await hook.ask(question()) == Refuse(Answer(402, body=b"pay"))
    assert json.loads(server.bodies[0])["type"] == "resumable.upload.before-create"
    assert server.header("webhook-id") == "ask_1"


@pytest_twisted.ensureDeferred
async def test_a_progress_event_may_be_answered_with_a_stop(rig):
    server = HookServer((204, {}, b""), (200, {"Content-Type": "text/html"}, b"<p>"), {"stop": True})
    hook = rig(server).hook()
    assert await hook.watch(event(EventKind.PROGRESS)) is None
    assert await hook.watch(event(EventKind.PROGRESS)) is None
    assert await hook.watch(event(EventKind.PROGRESS)) == Refuse()


NONSENSE = {
    "204": (204, {}, b""),
    "202": (202, JSON, b'{"allow": true}'),
    "no type": (200, {}, b'{"allow": true}'),
    "html": (200, {"Content-Type": "text/html"}, b'{"allow": true}'),
    "garbage": (200, JSON, b"\x00\xffgarbage"),
    "empty": (200, JSON, b""),
    "empty object": (200, JSON, b"{}"),
    "redirect": (302, {"Location": "/yes"}, b'{"allow": true}'),
    "permanent redirect": (308, {"Location": "/yes"}, b'{"allow": true}'),
    "401": (401, JSON, b'{"allow": true}'),
    "500": (500, JSON, b'{"allow": true}'),
    "huge": (200, JSON, b'{"allow": true}' + b" " * (300 << 10)),
}


@pytest.mark.parametrize("answer", NONSENSE.values(), ids=NONSENSE)
@pytest_twisted.ensureDeferred
async def test_an_answer_that_is_no_clear_yes_opens_nothing(rig, answer):
    server = HookServer(answer)
    it = rig(server)
    guards = Guards([Guard("hook", it.hook())], clock=Clock(), wall=lambda: 0.0, new_id=lambda: "ask_1")
    with pytest.raises(Unavailable):
        await guards.before(QuestionKind.CREATE, UPLOAD)
    assert {request.uri for request in server.requests} == {b"/hook"}


@pytest.mark.parametrize(
    "say",
    [
        b"",
        b"garbage\r\n\r\n",
        OK,
        OK + b'Content-Length: 99\r\n\r\n{"allow": true}',
        OK + b'Transfer-Encoding: chunked\r\n\r\nf\r\n{"allow": true}\r\n',
        OK + b"Content-Length: x\r\n\r\n",
    ],
    ids=["closes", "garbage", "head cut", "body cut", "chunks cut", "bad length"],
)
@pytest_twisted.ensureDeferred
async def test_a_server_that_dies_in_the_middle_has_not_said_yes(rig, say):
    server = RawServer(say)
    with pytest.raises(HookFailed) as caught:
        await rig(server, Posting(attempts=2, pause=0)).hook().ask(question())
    assert server.count >= 1 and not caught.value.unreached and not caught.value.unanswered


@pytest.mark.parametrize("say", [b"HTTP/1.0 200 OK\r\n\r\n", OK + b"\r\n", OK + b'\r\n{"allow": true}'])
@pytest_twisted.ensureDeferred
async def test_an_answer_may_end_with_its_connection(rig, say):
    hook = rig(RawServer(say)).hook()
    await hook.deliver(event())
    if b"{" in say:
        assert await hook.ask(question()) == Allow()


@pytest.mark.parametrize(
    "server",
    [
        HookServer(None),
        RawServer(None, close=False),
        RawServer(OK + b'Content-Length: 16\r\n\r\n{"allow": true}', False),
    ],
    ids=["never answers", "says nothing", "never ends"],
)
@pytest_twisted.ensureDeferred
async def test_a_server_that_is_too_slow_has_not_said_yes(rig, server):
    it = rig(server, Posting(attempts=1))
    asked = it.hook().ask(question())
    failed = pytest.raises(HookFailed)
    await it.timed_out(asked)
    with failed as caught:
        await asked
    assert caught.value.may_retry and not caught.value.unreached and caught.value.unanswered


@pytest_twisted.ensureDeferred
async def test_a_server_that_is_not_there_has_not_said_yes(rig):
    it = rig(HookServer(YES))
    await it.port.stopListening()
    with pytest.raises(HookFailed, match="no answer") as caught:
        await Poster(
            it.url, it.http, clock=it.clock, wall=lambda: 0.0, rng=Random(1), posting=Posting(attempts=1)
        ).insist(dict, b"")
    assert caught.value.unreached and not caught.value.unanswered


@pytest.mark.parametrize(
    ("problem", "unreached"),
    [
        (error.ConnectionRefusedError(), True),
        (error.TimeoutError(), True),
        (error.NoRouteError(), True),
        (error.DNSLookupError(), True),
        (ResponseNeverReceived([Failure(SSL.Error("no certificate"))]), True),
        (error.ConnectionLost(), False),
        (error.ConnectionDone(), False),
        (TooLong(10), False),
        (TimedOut(60), False),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_server_is_out_of_reach_where_no_connection_was_made(problem, unreached):
    found = error_for(problem)
    assert isinstance(found, HttpError) and isinstance(found, Unreached) is unreached


@pytest_twisted.ensureDeferred
async def test_a_question_is_repeated_a_few_times_with_the_same_id(rig):
    server = HookServer((503, {}, b""), (500, {}, b""), YES)
    assert await rig(server).hook().ask(question()) == Allow()
    assert {request.getHeader("webhook-id") for request in server.requests} == {"ask_1"}


@pytest_twisted.ensureDeferred
async def test_what_a_repetition_will_not_change_is_not_repeated(rig):
    server = HookServer((404, {}, b""))
    with pytest.raises(HookFailed, match="404"):
        await rig(server).hook().ask(question())
    assert len(server.requests) == 1


@pytest_twisted.ensureDeferred
async def test_a_kept_connection_that_was_closed_costs_no_attempt(rig):
    server = HookServer((204, {}, b""))
    hook = rig(server).hook()
    await hook.deliver(event())
    for transport in server.transports:
        transport.abortConnection()
    await hook.deliver(event())
    assert len(server.bodies) == 2


@pytest_twisted.ensureDeferred
async def test_an_event_has_not_arrived_when_the_answer_is_an_error_or_a_redirect(rig):
    server = HookServer((302, {"Location": "/"}, b""), (503, {"Retry-After": "9"}, b""), (400, {}, b""))
    hook = rig(server).hook()
    for wait in (None, 9.0, None):
        with pytest.raises(HookFailed) as caught:
            await hook.deliver(event())
        assert caught.value.retry_after == wait
    assert len(server.requests) == 3


@pytest_twisted.ensureDeferred
async def test_a_huge_answer_to_an_event_is_a_failure(rig):
    server = HookServer((200, {}, b"x" * (300 << 10)))
    with pytest.raises(HookFailed):
        await rig(server).hook().deliver(event())


@pytest_twisted.ensureDeferred
async def test_events_arrive_through_a_deliverer_though_the_server_fails_at_first(rig):
    server = HookServer((500, {}, b""), (302, {"Location": "/"}, b""), (200, {}, b""))
    it, outbox, clock = rig(server), MemoryOutbox(), Clock()
    outbox.post(fact("u"), fact("u", FactKind.FINISHED))
    deliverer = Deliverer(
        "hook", it.hook(), outbox, clock=clock, wall=clock.seconds, rng=Random(1), policy=RetryPolicy(timeout=1e9)
    )
    deliverer.start()
    while outbox.events:
        await deferLater(reactor, 0.001)
        clock.advance(1)
    await deliverer.stop()
    assert [json.loads(body)["type"].rpartition(".")[2] for body in server.bodies] == ["created"] * 3 + ["finished"]
    assert len({json.loads(body)["id"] for body in server.bodies}) == 2


@pytest_twisted.ensureDeferred
async def test_a_refusal_reaches_the_client_as_the_hook_said_it(rig):
    server = HookServer({"allow": False, "response": {"status": 402, "headers": {"X-Why": "quota"}, "body": "pay"}})
    guards = Guards([Guard("hook", rig(server).hook())], clock=Clock(), wall=lambda: 0.0, new_id=lambda: "ask_1")
    with pytest.raises(Refused) as caught:
        await guards.before(QuestionKind.APPEND, UPLOAD)
    assert (caught.value.status, caught.value.headers["X-Why"], caught.value.body.strip()) == (402, "quota", b"pay")


@pytest.mark.parametrize(
    "url",
    ["", "ftp://h/", "h:80/x", "http://", "http://u:p@h/", "https://h/ x", "https://h/\r\nX: y", "https://h/é",
     "http://h:99999/", "http://h:0/", "http://h/#x", "http://[::1"],
)  # fmt: skip
def test_a_url_that_cannot_be_posted_to_is_refused_and_not_repeated(url):
    with pytest.raises(ValueError, match=r"looks like https://host/path") as caught:
        check_url(url)
    assert not url or url not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["Host", "content-length", "Content-Type", "webhook-id", "Connection", "a b", "", "TE", "Expect"]
)
def test_headers_that_are_the_hooks_own_are_not_forwarded(name):
    with pytest.raises(ValueError, match="the header"):
        check_forward([name])


def test_headers_that_may_be_forwarded():
    assert check_forward([" Cookie", "Upload-Metadata", "Authorization"]) == (
        "cookie",
        "upload-metadata",
        "authorization",
    )


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(None, None), ("7", 7.0), ("-7", None), ("soon", None), ("²", None), ("Thu, 01 Jan 1970 00:02:00 GMT", 20.0),
     ("Wed, 01 Jan 1969 00:00:00 GMT", 0.0), ("9" * 30, 3600.0)],
)  # fmt: skip
def test_retry_after_in_seconds_or_as_a_date(value, seconds):
    assert retry_after({} if value is None else {"retry-after": value}, 100.0) == seconds


@pytest.fixture(scope="module")
def authority():
    return Authority()


def context(authority, name="localhost"):
    """A server's, that wants certificates of its clients."""
    certificate = PrivateCertificate.loadPEM("".join(authority.issue(name)).encode())
    return certificate.options(Certificate.loadPEM(authority.pem.encode()))


@pytest_twisted.ensureDeferred
async def test_an_authority_of_ones_own_and_a_certificate_to_show(rig, authority, tmp_path):
    for name, text in zip(("ca.pem", "cert.pem", "key.pem"), (authority.pem, *authority.issue("client")), strict=True):
        (tmp_path / name).write_text(text)
    policy = from_files(*(tmp_path / name for name in ("ca.pem", "cert.pem", "key.pem")))
    server = HookServer((204, {}, b""))
    await rig(server, context=context(authority), policy=policy).hook().deliver(event())
    (transport,) = server.transports
    assert transport.getPeerCertificate().to_cryptography().subject.rfc4514_string() == "CN=client"


@pytest.mark.parametrize("case", ["no certificate to show", "another authority", "another name"])
@pytest_twisted.ensureDeferred
async def test_a_connection_that_is_not_trusted_carries_nothing(rig, authority, case):
    own = Authority() if case == "another authority" else authority
    identity = None if case == "no certificate to show" else "\n".join(authority.issue("client"))
    server = HookServer((204, {}, b""))
    name = "elsewhere" if case == "another name" else "localhost"
    it = rig(server, context=context(authority, name), policy=Tls(own.pem, identity))
    with pytest.raises(HookFailed) as caught:
        await it.hook().deliver(event())
    assert server.bodies == [] and caught.value.unreached


@pytest.mark.parametrize(("authorities", "identity"), [("", None), ("nonsense", None), (None, "nonsense")])
def test_what_is_no_certificate_is_told_at_the_start(authorities, identity):
    with pytest.raises(ValueError, match="PEM"):
        Tls(authorities, identity)


@pytest_twisted.ensureDeferred
async def test_what_a_client_sent_in_utf8_is_forwarded_in_utf8(rig):
    server = HookServer((204, {}, b""))
    request = evolve(REQUEST, headers={"x-own": ("Grüße ☃",)})
    await rig(server, Posting(forward=("X-Own",))).hook().deliver(evolve(event(), request=request))
    assert server.requests[0].requestHeaders.getRawHeaders(b"x-own") == ["Grüße ☃".encode()]
    assert json.loads(server.bodies[0])["data"]["request"]["headers"] == {"x-own": ["Grüße ☃"]}


@pytest_twisted.ensureDeferred
async def test_bad_verdicts_are_failures(rig):
    with pytest.raises(BadVerdict):
        await rig(HookServer({"allow": "yes"})).hook().ask(question())


@pytest_twisted.ensureDeferred
async def test_a_question_that_nobody_waits_for_any_more_is_cancelled(rig):
    server = HookServer(None)
    it = rig(server)
    asked = it.hook().ask(question())
    await server.came
    gone: Deferred = server.requests[0].notifyFinish()
    asked.cancel()
    failures = []
    asked.addErrback(failures.append)
    gone.addErrback(lambda _: None)
    await gone
    assert failures
