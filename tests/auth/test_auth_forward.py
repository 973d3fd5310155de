"""Asking another server over real HTTP: only its 2xx opens, whatever else it does."""

from __future__ import annotations

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock, deferLater
from twisted.logger import capturedLogs, formatEvent
from twisted.web.server import NOT_DONE_YET

from resumable.auth.fetch import Fetch, FetchFailed
from resumable.auth.forward import ROOM, ForwardAuth, ForwardRules
from resumable.auth.guard import AccessGuard
from resumable.auth.interfaces import IAuthorizer
from resumable.auth.rates import Rate, Rates
from resumable.model.principal import Action
from resumable.protocol.errors import Forbidden, TusError, Unauthorized, Unavailable
from tests.auth.auth_rig import ID, LOOK, SALT, Answering, Server, asking
from tests.daemon.site_rig import Listening

ASK = asking(evolve(LOOK, query="a=1"), authorization="Bearer abc", cookie="session=1", x_api_key="k", user_agent="u")


def turn():
    """One turn of the reactor."""
    return deferLater(reactor, 0)


class Rig:
    def __init__(self, status=200, body=b"", **headers):
        self.page = Answering(status, body, **headers)
        self.server = Server(self.page)
        self.clock = Clock()
        self.fetch = Fetch(reactor, timeout=5.0, clock=self.clock, most=4)
        self.auth = self.forward()

    def forward(self, **changes):
        rules = evolve(ForwardRules(self.server.url), **changes)
        return ForwardAuth(rules, self.fetch, self.clock, SALT)

    async def refused(self, kind, ask=ASK):
        with pytest.raises(kind) as caught:
            await self.auth.authorize(ask)
        return caught.value

    async def asked(self, times):
        """When as many requests have come."""
        while len(self.page.requests) < times:
            await turn()


@pytest.fixture
def rig():
    made = Rig(remote_user="alice")

    async def stop():
        await made.fetch.close()
        await made.server.stop()

    yield made
    pytest_twisted.blockon(Deferred.fromCoroutine(stop()))


def test_it_is_an_authorizer(rig):
    assert IAuthorizer.providedBy(rig.auth)


@pytest.mark.parametrize("status", [200, 202, 204, 299])
@pytest_twisted.ensureDeferred
async def test_2xx_lets_in_whom_it_names(rig, status):
    rig.page.status = status
    assert (await rig.auth.authorize(ASK)).name == "alice"


@pytest_twisted.ensureDeferred
async def test_what_is_asked_is_what_nginx_and_traefik_ask(rig):
    await rig.auth.authorize(evolve(ASK, action=Action.CREATE, length=7, path="/files/ü x"))
    (seen,) = rig.page.requests
    assert {name: seen[name] for name in seen if name.startswith("x-")} == {
        "x-original-method": "HEAD",
        "x-original-uri": "/files/%C3%BC%20x?a=1",
        "x-forwarded-method": "HEAD",
        "x-forwarded-uri": "/files/%C3%BC%20x?a=1",
        "x-forwarded-proto": "http",
        "x-forwarded-host": "example.org",
        "x-forwarded-for": "192.0.2.1",
        "x-upload-action": "create",
        "x-upload-id": ID,
        "x-upload-length": "7",
    }
    assert (seen["authorization"], seen["cookie"]) == ("Bearer abc", "session=1")
    assert "content-length" not in seen and seen.get("user-agent") != "u"


@pytest_twisted.ensureDeferred
async def test_a_prefix_that_a_proxy_took_off_is_told_beside_the_path_that_counts(rig):
    await rig.auth.authorize(evolve(ASK, prefix="/up"))
    (seen,) = rig.page.requests
    assert (seen["x-forwarded-prefix"], seen["x-forwarded-uri"]) == ("/up", seen["x-original-uri"])


@pytest_twisted.ensureDeferred
async def test_only_the_chosen_headers_are_passed_on(rig):
    rig.auth = rig.forward(headers=("x-api-key",))
    await rig.auth.authorize(ASK)
    assert rig.page.requests[0]["x-api-key"] == "k"
    assert not {"authorization", "cookie"} & rig.page.requests[0].keys()


@pytest_twisted.ensureDeferred
async def test_a_client_cannot_say_what_only_we_say(rig):
    ours = ("x-original-uri", "x-upload-action", "x-upload-length", "x-forwarded-prefix")
    rig.auth = rig.forward(headers=("authorization", *ours))
    said = {"x_original_uri": "/", "x_upload_action": "read", "x_upload_length": "7", "x_forwarded_prefix": "/evil"}
    await rig.auth.authorize(asking(evolve(LOOK, action=Action.TERMINATE), **said))
    assert not {"x-upload-length", "x-forwarded-prefix"} & rig.page.requests[0].keys()
    assert rig.page.requests[0]["x-original-uri"] == f"/files/{ID}"
    assert rig.page.requests[0]["x-upload-action"] == "terminate"


@pytest_twisted.ensureDeferred
async def test_401_passes_its_challenge_on(rig):
    rig.page.status, rig.page.headers = 401, {"WWW-Authenticate": 'Basic realm="there"'}
    assert (await rig.refused(Unauthorized)).headers["WWW-Authenticate"] == 'Basic realm="there"'
    rig.page.headers = {}
    assert (await rig.refused(Unauthorized)).headers["WWW-Authenticate"]


@pytest_twisted.ensureDeferred
async def test_403_is_403(rig):
    rig.page.status = 403
    await rig.refused(Forbidden)


@pytest.mark.parametrize("status", [300, 301, 302, 307, 308, 400, 402, 404, 407, 429, 500, 502, 503])
@pytest_twisted.ensureDeferred
async def test_anything_else_is_503_and_no_redirect_is_followed(rig, status):
    rig.page.status, rig.page.headers = status, {"location": rig.server.url, "remote-user": "alice"}
    assert (await rig.refused(Unavailable)).headers["Retry-After"]
    assert len(rig.page.requests) == 1


@pytest_twisted.ensureDeferred
async def test_a_server_that_is_down_is_503_and_later_open_again(rig):
    await rig.server.stop()
    await rig.refused(Unavailable)
    await rig.server.start_again()
    assert (await rig.auth.authorize(ASK)).name == "alice"


@pytest_twisted.ensureDeferred
async def test_a_server_that_does_not_answer_is_503_after_the_time_out(rig):
    rig.page.body = None
    refused = rig.refused(Unavailable)
    waiting = Deferred.fromCoroutine(refused)
    await rig.asked(1)
    rig.clock.advance(4.9)
    assert not waiting.called
    rig.clock.advance(0.1)
    await waiting


class Half(Answering):
    """Stops in the middle of its answer."""

    def render(self, request):
        super().render(request)
        request.setHeader("Content-Length", "10")
        request.write(b"12345")
        return NOT_DONE_YET


@pytest_twisted.ensureDeferred
async def test_a_server_that_stops_in_the_middle_of_its_answer_is_503_and_no_error_of_ours(rig):
    rig.server.factory.wrappedFactory.resource = rig.page = Half()
    with capturedLogs() as logged:
        asking = Deferred.fromCoroutine(rig.refused(Unavailable))
        await rig.asked(1)
        for _ in range(100):  # until what it has said is here
            await turn()
        rig.clock.advance(5)
        await asking
        while rig.server.factory.protocols:
            await turn()
        await turn()
    assert [each for each in logged if "log_failure" in each] == []


@pytest_twisted.ensureDeferred
async def test_no_more_than_so_many_wait_for_a_slow_server(rig):
    rig.page.body = None
    waiting = [Deferred.fromCoroutine(rig.refused(Unavailable, evolve(ASK, peer=f"192.0.2.{n}"))) for n in range(4)]
    await rig.refused(Unavailable, evolve(ASK, peer="192.0.2.9"))
    await rig.asked(4)
    rig.clock.advance(5)
    await gatherResults(waiting)
    rig.page.body = b""
    assert (await rig.auth.authorize(ASK)).name == "alice"


@pytest_twisted.ensureDeferred
async def test_a_huge_answer_is_503(rig):
    rig.page.body = b"x" * 5_000_000
    await rig.refused(Unavailable)


class Raw(Protocol):
    """Says one thing, whatever it hears, and hangs up."""

    said = b""

    def dataReceived(self, data):
        self.transport.write(self.said)
        self.transport.loseConnection()


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\0" * 100,
        b"HTTP/1.1 200",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 abc OK\r\nRemote-User: alice\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nRemote-User: alice\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\nRemote-User: alice\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nRemote-User: alice\r\n\r\nzz\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
    ],
)
@pytest_twisted.ensureDeferred
async def test_garbage_is_503(rig, said):
    factory = Factory.forProtocol(type("Saying", (Raw,), {"said": said}))
    factory.noisy = False
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    rig.auth = rig.forward(url=f"http://127.0.0.1:{port.getHost().port}/")
    await rig.refused(Unavailable)
    await port.stopListening()


@pytest.mark.parametrize("name", [None, "", "a\tb", "x" * 256, "\xff"])
@pytest_twisted.ensureDeferred
async def test_an_answer_without_a_usable_name_is_503(rig, name):
    rig.page.headers = {} if name is None else {"remote-user": name.encode("latin-1")}
    await rig.refused(Unavailable)


@pytest_twisted.ensureDeferred
async def test_without_a_name_header_everybody_is_nobody(rig):
    assert (await rig.forward(name_header=None).authorize(ASK)).name == ""


@pytest_twisted.ensureDeferred
async def test_being_let_in_is_remembered_for_the_same_question_only(rig):
    for _ in range(3):
        await rig.auth.authorize(ASK)
    assert len(rig.page.requests) == 1
    others = [
        evolve(ASK, action=Action.TERMINATE),
        evolve(ASK, path="/files/other"),
        evolve(ASK, query=""),
        evolve(ASK, peer="192.0.2.2"),
        asking(evolve(ASK, query="a=1"), authorization="Bearer abd", cookie="session=1"),
        asking(evolve(ASK, query="a=1"), cookie="session=1"),
    ]
    rig.page.status = 403
    for other in others:
        await rig.refused(Forbidden, other)
    assert (await rig.auth.authorize(ASK)).name == "alice"
    rig.clock.advance(5)
    await rig.refused(Forbidden)


@pytest_twisted.ensureDeferred
async def test_a_refusal_is_never_remembered(rig):
    rig.page.status = 401
    await rig.refused(Unauthorized)
    rig.page.status = 200
    assert (await rig.auth.authorize(ASK)).name == "alice"


@pytest_twisted.ensureDeferred
async def test_a_client_that_goes_away_takes_nothing_from_another(rig):
    first, second = rig.auth.authorize(ASK), rig.auth.authorize(ASK)
    first.addErrback(lambda failure: None)
    first.cancel()
    assert (await second).name == "alice"
    assert len(rig.page.requests) == 1


@pytest_twisted.ensureDeferred
async def test_a_failure_to_fetch_is_one_line(rig):
    await rig.server.stop()
    with pytest.raises(FetchFailed) as caught:
        await rig.fetch.get(rig.server.url, {})
    assert "\n" not in str(caught.value) and "refused" in str(caught.value)


@pytest_twisted.ensureDeferred
async def test_what_is_logged_names_the_server_and_nothing_else_of_its_url(rig):
    """Its path and its query may be secrets."""
    rig.auth = rig.forward(url=f"{rig.server.url}/hunter2?key=hunter2")
    rig.page.status = 500
    with Listening() as events:
        await rig.refused(Unavailable)
    assert rig.page.paths == [b"/check/hunter2?key=hunter2"]
    said = [formatEvent(event) for event in events]
    assert f"http://127.0.0.1:{rig.server.number}/... doesn't tell who may come in: it answers 500" in said
    assert "hunter2" not in str(events) and "hunter2" not in repr(ForwardRules("http://h/?hunter2"))


@pytest_twisted.ensureDeferred
async def test_an_address_that_can_afford_no_more_asks_nothing(rig):
    rates = Rates(rig.clock.seconds, requests=(Rate(2.0), Rate()))
    rig.auth = ForwardAuth(ForwardRules(rig.server.url), rig.fetch, rig.clock, SALT, rates.afford)
    rig.page.status = 401
    guard = AccessGuard(rig.auth, lambda upload_id: None, lambda: 0.0, rates=rates)
    statuses = []
    for n in range(4):
        ask = evolve(asking(LOOK, authorization=f"Bearer {n}"), upload_id=None, peer=f"2001:db8::{n}")
        with pytest.raises(TusError) as caught:
            await Deferred.fromCoroutine(guard.check(ask))
        statuses.append(caught.value.status)
    assert statuses == [401, 401, 429, 429] and len(rig.page.requests) == 2


@pytest_twisted.ensureDeferred
async def test_one_address_with_many_questions_keeps_no_other_from_asking(rig):
    rig.fetch = Fetch(reactor, timeout=180.0, clock=rig.clock)  # for connections it is real
    rig.auth = rig.forward()
    rig.page.body = None
    ask = evolve(LOOK, peer="198.51.100.9")
    flood = [rig.auth.authorize(asking(ask, authorization=f"Bearer {n}")) for n in range(ROOM.at_once + 2 * ROOM.each)]
    await rig.asked(ROOM.at_once)
    assert sum(each.called for each in flood) == ROOM.each, "the rest is refused"
    rig.page.body = b""
    friend = rig.auth.authorize(ASK)
    rig.clock.advance(180.0)
    assert (await friend).name == "alice"
    for each in flood:
        each.addErrback(lambda failure: failure.trap(Unavailable))
        await each
