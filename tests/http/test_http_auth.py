"""Who may do what, over HTTP: everybody is asked about, before anything else is done for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IAddress
from twisted.python.failure import Failure

from resumable.auth.guard import AccessGuard
from resumable.auth.interfaces import AuthRequest
from resumable.auth.rates import Rate, Rates
from resumable.http.admission import Admission
from resumable.http.cors import CrossOrigin
from resumable.http.origin import Origin
from resumable.model.errors import CatalogUnavailable
from resumable.model.principal import ALL, EVERYDAY, Action, Principal
from resumable.model.values import networks
from resumable.protocol.errors import Forbidden, TooManyRequests, TusError, Unauthorized, Unavailable
from tests.http.visitor import Client, Reply, created, serving
from tests.uploads.harness import EPOCH, LONG, Server, pattern

DATA = b"0123456789"
UNKNOWN = "f" * 32
CHALLENGE = 'Bearer realm="resumable"'


class Authorizer:
    """Knows people by the header X-Who, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[AuthRequest] = []
        self.answers: Callable[[AuthRequest], Deferred[Principal]] = self.known

    def authorize(self, ask: AuthRequest) -> Deferred[Principal]:
        self.asked.append(ask)
        return self.answers(ask)

    @staticmethod
    def known(ask: AuthRequest) -> Deferred[Principal]:
        who = ask.one("x-who")
        return fail(Unauthorized("Who are you?", [CHALLENGE])) if who is None else succeed(Principal(who))

    def refuse(self, error: TusError) -> None:
        self.answers = lambda _: fail(error)

    def grant(self, **given: Any) -> None:
        self.answers = lambda ask: succeed(Principal(**{"name": ask.one("x-who") or "ann", **given}))


@pytest.fixture
def authorizer() -> Authorizer:
    return Authorizer()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


def admission(
    server: Server, authorizer: Authorizer | None, trusted: str = "", rates: Rates | None = None
) -> Admission:
    guard = None
    if authorizer is not None:
        guard = AccessGuard(authorizer, server.catalog.owner_of, lambda: EPOCH, admins=frozenset({"root"}), rates=rates)
    return Admission(Origin("/files/", None, networks([trusted] if trusted else [])), guard, rates)


@pytest.fixture
def client(server: Server, authorizer: Authorizer) -> Client:
    return Client(server, admission=admission(server, authorizer))


def new(client: Client, who: str = "ann", length: int = 10, *fields: str) -> str:
    return created(client.ask("POST", "/files/", f"Upload-Length: {length}", f"X-Who: {who}", *fields))


PATCH = ("Content-Type: application/offset+octet-stream", "Upload-Offset: 0", "Content-Length: 0")
VERBS: list[tuple[str, str, tuple[str, ...], Action]] = [
    ("POST", "/files/", ("Upload-Length: 5",), Action.CREATE),
    ("PATCH", "/files/{id}", PATCH, Action.APPEND),
    ("HEAD", "/files/{id}", (), Action.INSPECT),
    ("GET", "/files/{id}", (), Action.READ),
    ("DELETE", "/files/{id}", (), Action.TERMINATE),
    ("GET", "/files/{id}/status", (), Action.STATUS),
    ("HEAD", "/files/{id}/status", (), Action.STATUS),
]
OF_UPLOADS = [verb for verb in VERBS if "{id}" in verb[1]]


@pytest.mark.parametrize(("method", "path", "fields", "action"), VERBS)
def test_everybody_is_asked_about_every_verb(
    client: Client, authorizer: Authorizer, method: str, path: str, fields: tuple[str, ...], action: Action
) -> None:
    upload_id = new(client)
    authorizer.asked.clear()
    reply = client.ask(method, path.format(id=upload_id), *fields)
    assert (reply.status, reply.get("WWW-Authenticate")) == (401, CHALLENGE)
    (ask,) = authorizer.asked
    assert (ask.action, ask.method, ask.path) == (action, method, path.format(id=upload_id))
    assert ask.upload_id == (upload_id if "{id}" in path else None)
    assert client.server.row(upload_id).gone is None


def test_a_preflight_needs_no_credentials_and_pages_may_read_the_challenge(
    client: Client, authorizer: Authorizer
) -> None:
    origin = "Origin: https://app.example"
    for path in ("/files/", f"/files/{UNKNOWN}", f"/files/{UNKNOWN}/status"):
        preflight = client.ask("OPTIONS", path, origin, "Access-Control-Request-Headers: authorization")
        assert preflight.status == 200 and "Authorization" in (preflight.get("Access-Control-Allow-Headers") or "")
    assert not authorizer.asked
    asked = ("Access-Control-Request-Method: PATCH", "Access-Control-Request-Headers: authorization")
    cookies = CrossOrigin(("https://*.app.example", "https://app.example"), credentials=True)
    strict = Client(client.server, admission=admission(client.server, authorizer), cors=cookies).ask(
        "OPTIONS", "/files/", origin, *asked
    )
    assert (strict.status, strict.get("Access-Control-Allow-Credentials")) == (200, "true")
    assert not authorizer.asked
    refused = client.ask("POST", "/files/", "Upload-Length: 5", origin)
    assert refused.status == 401 and refused.get("Access-Control-Allow-Origin") == "*"
    assert "WWW-Authenticate" in (refused.get("Access-Control-Expose-Headers") or "").split(", ")


def test_what_the_question_says_of_a_creation(client: Client, authorizer: Authorizer) -> None:
    fields = ["Upload-Length: 5", "Upload-Metadata: a YQ==", "X-Twice: 1", "x-twice:  2", "X-Who: ann"]
    assert client.ask("POST", "/files/?a=%20b&c", *fields).status == 201
    (ask,) = authorizer.asked
    assert (ask.query, ask.length, ask.metadata, ask.upload_id) == ("a=%20b&c", 5, "a YQ==", None)
    assert (ask.scheme, ask.host, ask.peer, ask.tls) == ("http", "up.example", "192.0.2.1", None)
    assert ask.headers["x-twice"] == ("1", "2") and ask.one("x-who") == "ann"


def test_the_method_that_counts_is_asked_about(client: Client, authorizer: Authorizer) -> None:
    upload_id = new(client)
    client.ask("POST", f"/files/{upload_id}", "X-HTTP-Method-Override: DELETE", "X-Who: eve")
    assert authorizer.asked[-1].action is Action.TERMINATE and client.server.row(upload_id).gone is None


def test_escapes_in_the_path_are_undone_once(client: Client, authorizer: Authorizer) -> None:
    upload_id = new(client)
    assert client.ask("HEAD", f"/%66iles/%{ord(upload_id[0]):x}{upload_id[1:]}", "X-Who: ann").status == 200
    assert authorizer.asked[-1].path == f"/files/{upload_id}" and authorizer.asked[-1].upload_id == upload_id


def test_what_cannot_be_an_id_is_not_asked_about(client: Client, authorizer: Authorizer) -> None:
    for path in ("/files/short", "/files/..%2e%2e%2e%2e%2e%2e%2e%2e%2e%2e%2e%2e%2e%2ex"):
        assert client.ask("HEAD", path).status == 404
    assert not authorizer.asked


@pytest.mark.parametrize("length", ["10", str(LONG)])
def test_a_body_is_not_asked_for_before_its_sender_was_let_in(
    client: Client, authorizer: Authorizer, length: str
) -> None:
    kind = "Content-Type: application/offset+octet-stream"
    fields = [f"Upload-Length: {length}", f"Content-Length: {length}", "Expect: 100-continue", kind]
    refused = client.ask("POST", "/files/", *fields)
    assert refused.status == 401 and not client.server.names()
    again = Client(client.server, admission=admission(client.server, authorizer))
    again.begin("POST", "/files/", *fields, "X-Who: ann")
    interim = again.reply()
    assert interim is not None and interim.status == 100
    # or the garbage collector ends what waits for the body, in the middle of a test to come
    again.channel.connectionLost(Failure(ConnectionLost()))
    client.server.pump()


def test_a_body_that_comes_before_the_answer_is_not_lost(client: Client, authorizer: Authorizer) -> None:
    upload_id = new(client)
    waiting: Deferred[Principal] = Deferred()
    authorizer.answers = lambda _: waiting
    client.patch(upload_id, 0, DATA)
    assert client.reply() is None and client.server.row(upload_id).offset == 0
    waiting.callback(Principal("ann"))
    client.server.pump()
    reply = client.reply()
    assert reply is not None and (reply.status, reply.get("Upload-Offset")) == (204, "10")


def test_who_has_gone_before_the_answer_does_nothing(client: Client, authorizer: Authorizer) -> None:
    upload_id = new(client)
    waiting: Deferred[Principal] = Deferred()
    authorizer.answers = lambda _: waiting
    client.begin("DELETE", f"/files/{upload_id}")
    client.channel.connectionLost(Failure(ConnectionLost()))
    waiting.addErrback(lambda _: None)
    client.server.pump()
    assert client.server.row(upload_id).gone is None


# somebody else's


@pytest.mark.parametrize(("method", "path", "fields", "action"), OF_UPLOADS)
def test_somebody_elses_upload_and_one_that_never_was_are_the_same(
    client: Client, method: str, path: str, fields: tuple[str, ...], action: Action
) -> None:
    theirs, gone = new(client, "ann", 0), new(client, "ann")
    client.ask("DELETE", f"/files/{gone}", "X-Who: ann")
    replies = [client.ask(method, path.format(id=each), *fields, "X-Who: eve") for each in (theirs, gone, UNKNOWN)]
    assert [reply.status for reply in replies] == [404] * 3
    seen = [([f for f in reply.fields if f[0] != "Date"], reply.body) for reply in replies]
    assert seen[0] == seen[1] == seen[2]
    assert client.ask("HEAD", f"/files/{theirs}", "X-Who: ann").status == 200
    assert client.ask("HEAD", f"/files/{gone}", "X-Who: ann").status == 410
    assert client.ask("HEAD", f"/files/{theirs}", "X-Who: root").status == 200


def test_somebody_elses_partial_and_one_that_never_was_are_the_same(client: Client) -> None:
    theirs = new(client, "ann", 0, "Upload-Concat: partial")
    replies = [
        client.ask("POST", "/files/", f"Upload-Concat: final;/files/{each}", "X-Who: eve") for each in (theirs, UNKNOWN)
    ]
    assert [reply.status for reply in replies] == [400, 400]
    assert replies[0].body.replace(theirs.encode(), b"") == replies[1].body.replace(UNKNOWN.encode(), b"")
    assert client.ask("POST", "/files/", f"Upload-Concat: final;/files/{theirs}", "X-Who: ann").status == 201


def test_uploads_from_before_belong_to_nobody_and_are_for_whoever_is_let_in(
    server: Server, authorizer: Authorizer
) -> None:
    upload_id = server.upload(DATA)
    client = Client(server, admission=admission(server, authorizer))
    assert client.ask("HEAD", f"/files/{upload_id}", "X-Who: eve").status == 200


# refusals


@pytest.mark.parametrize(
    ("error", "told", "to_head"),
    [
        (Unauthorized("Who?", [CHALLENGE]), 401, 401),
        (Forbidden("No."), 403, 403),
        (TooManyRequests("Slow.", 7), 429, 423),
        (Unavailable("Don't know.", 7), 503, 423),
    ],
)
def test_a_head_is_refused_only_with_what_no_client_starts_over_on(
    client: Client, authorizer: Authorizer, error: TusError, told: int, to_head: int
) -> None:
    upload_id = new(client)
    authorizer.refuse(error)
    assert client.ask("DELETE", f"/files/{upload_id}").status == told
    head = client.ask("HEAD", f"/files/{upload_id}")
    assert head.status == to_head
    if to_head == 423:
        assert head.get("Retry-After") == "7"


def test_an_authorizer_that_breaks_lets_nobody_in(client: Client, authorizer: Authorizer) -> None:
    def broken(_: AuthRequest) -> Any:
        raise RuntimeError("a mistake")

    authorizer.answers = broken
    reply = client.ask("POST", "/files/", "Upload-Length: 5")
    assert reply.status == 503 and reply.get("Retry-After") and b"mistake" not in reply.body


def test_while_the_catalog_cannot_tell_whose_it_is_nobody_gets_it(
    client: Client, server: Server, authorizer: Authorizer
) -> None:
    upload_id = new(client)
    broken = AccessGuard(authorizer, lambda _: fail(CatalogUnavailable("broken")), lambda: EPOCH)
    closed = Client(server, admission=Admission(Origin("/files/", None, ()), broken))
    assert closed.ask("DELETE", f"/files/{upload_id}", "X-Who: ann").status == 503
    assert closed.ask("HEAD", f"/files/{upload_id}", "X-Who: ann").status == 423
    assert server.row(upload_id).gone is None


def test_an_action_that_was_not_granted_is_403(client: Client, authorizer: Authorizer) -> None:
    upload_id = new(client)
    authorizer.grant(actions=frozenset({Action.INSPECT}))
    assert client.ask("HEAD", f"/files/{upload_id}").status == 200
    assert client.ask("DELETE", f"/files/{upload_id}").status == 403
    assert client.ask("POST", "/files/", "Upload-Length: 5").status == 403


def test_the_maximum_of_who_asks_is_kept_to(client: Client, authorizer: Authorizer) -> None:
    authorizer.grant(max_size=5)
    assert client.ask("POST", "/files/", "Upload-Length: 6").status == 413
    upload_id = created(client.ask("POST", "/files/", "Upload-Defer-Length: 1"))
    authorizer.grant()
    client.patch(upload_id, 0, b"abcdef")
    reply = client.reply()
    assert reply is not None and reply.status == 413


# what a client carries along


def test_a_location_has_what_its_client_must_bring_along(client: Client, authorizer: Authorizer) -> None:
    authorizer.grant(carry="token=v1.a.b")
    reply = client.ask("POST", "/files/?token=v1.a.b", "Upload-Length: 0", "Upload-Concat: partial")
    location = reply.get("Location") or ""
    assert location.endswith("?token=v1.a.b")
    assert client.ask("HEAD", location.removeprefix("http://up.example")).status == 200
    final = client.ask("POST", "/files/?token=v1.a.b", f"Upload-Concat: final;{location} {location}")
    assert final.status == 201 and (final.get("Location") or "").endswith("?token=v1.a.b")


def test_a_creation_that_was_cut_has_it_too(client: Client, authorizer: Authorizer) -> None:
    authorizer.grant(carry="token=v1.a.b")
    kind = "Content-Type: application/offset+octet-stream"
    data = pattern(2 * LONG)
    fields = (f"Upload-Length: {LONG + 5}", "Transfer-Encoding: chunked", "Content-Length-Unknown: 1", kind)
    client.begin("POST", "/files/", *fields)
    client.send(b"%x\r\n%s\r\n" % (LONG, data[:LONG]))
    client.send(b"%x\r\n%s\r\n0\r\n\r\n" % (LONG, data[LONG:]))
    reply = client.reply()
    assert reply is not None and reply.status == 413
    assert (reply.get("Location") or "").endswith("?token=v1.a.b")


# without a way in


def test_without_a_way_in_only_what_is_for_admins_is_refused(server: Server) -> None:
    nobody = admission(server, None)
    assert nobody.open
    for action in EVERYDAY:
        assert _outcome(nobody, action) == ""
    for action in ALL - EVERYDAY:
        assert isinstance(_outcome(nobody, action), Forbidden)


def _outcome(asked: Admission, action: Action) -> Any:
    """The name of who was let in, or why not."""
    found: list[Any] = []
    request: Any = type("R", (), {"getClientAddress": lambda self: IPv4Address("TCP", "192.0.2.1", 1)})()
    asking = Deferred.fromCoroutine(asked.admit(request, action))
    asking.addCallbacks(lambda principal: found.append(principal.name), lambda why: found.append(why.value))
    return found[0]


def test_requests_are_counted_by_address_where_nobody_is_asked(server: Server) -> None:
    rates = Rates(server.clock.seconds, requests=(Rate(0.1, burst=1), Rate()))
    ours = Client(server, admission=admission(server, None, rates=rates))
    assert ours.ask("POST", "/files/", "Upload-Length: 5").status == 201
    refused = ours.ask("POST", "/files/", "Upload-Length: 5")
    assert (refused.status, refused.get("Retry-After")) == (429, "10")
    other = Client(server, admission=admission(server, None, rates=rates), peer=IPv4Address("TCP", "192.0.2.2", 1))
    assert other.ask("POST", "/files/", "Upload-Length: 5").status == 201


def test_a_network_of_ipv6_counts_as_one_address(server: Server) -> None:
    """All of a /64 is one client's, and IPv4 within IPv6 is IPv4."""
    rates = Rates(server.clock.seconds, requests=(Rate(0.1, burst=1), Rate()))

    def status(address: str) -> int:
        peer = IPv6Address("TCP", address, 1) if ":" in address else IPv4Address("TCP", address, 1)
        client = Client(server, admission=admission(server, None, rates=rates), peer=peer)
        return client.ask("POST", "/files/", "Upload-Length: 5").status

    assert [status(f"2001:db8:1:2::{n}") for n in range(3)] == [201, 429, 429]
    assert status("2001:db8:1:3::1") == 201
    assert [status("::ffff:192.0.2.7"), status("192.0.2.7"), status("::ffff:192.0.2.8")] == [201, 429, 201]


def test_who_is_not_let_in_is_told_to_wait_and_nobody_else_is(server: Server, authorizer: Authorizer) -> None:
    rates = Rates(server.clock.seconds, requests=(Rate(2.0), Rate(2.0)))
    client = Client(server, admission=admission(server, authorizer, rates=rates))
    upload_id = new(client)
    strangers = [client.ask("GET", f"/files/{upload_id}") for _ in range(4)]
    assert [reply.status for reply in strangers] == [401, 401, 429, 429]
    assert strangers[-1].get("Retry-After") == "1"
    assert client.ask("HEAD", f"/files/{upload_id}").status == 423, "tus-js-client would start over on 429"
    assert client.ask("HEAD", f"/files/{upload_id}", "X-Who: ann").status == 200


@pytest.mark.parametrize("trusted", ["", "192.0.2.1"])
@pytest.mark.parametrize(
    "claim",
    [
        "X-Forwarded-For: 203.0.113.{n}\r\nX-Forwarded-For: 198.51.100.7",
        "X-Forwarded-For: 203.0.113.{n}, 198.51.100.7",
        "Forwarded: for=203.0.113.{n}, for=198.51.100.7",
        "Forwarded: for=203.0.113.{n}\r\nX-Forwarded-For: 198.51.100.7",
        "X-Real-IP: 203.0.113.{n}",
        "True-Client-IP: 203.0.113.{n}",
        "X-Forwarded-For: nonsense{n}",
    ],
)
def test_nobody_gets_around_a_rate_by_claiming_other_addresses(server: Server, claim: str, trusted: str) -> None:
    """Whether the peer is nobody's proxy or a proxy that adds to what a client has sent."""
    rates = Rates(server.clock.seconds, requests=(Rate(0.1, burst=1), Rate()))
    client = Client(server, admission=admission(server, None, trusted=trusted, rates=rates))
    found = [client.ask("POST", "/files/", "Upload-Length: 5", claim.format(n=n)).status for n in range(3)]
    assert found == [201, 429, 429]


@pytest.mark.parametrize("known", [True, False])
def test_bytes_are_counted_by_name_or_by_address(server: Server, authorizer: Authorizer, known: bool) -> None:
    told: list[tuple[str, int]] = []
    rates = Rates(server.clock.seconds, size=(Rate(1e9), Rate()))
    rates.received = lambda name, count: told.append((name, count)) or 0.0
    client = Client(server, admission=admission(server, authorizer if known else None, rates=rates))
    client.patch(new(client), 0, DATA, "X-Who: ann")
    reply = client.reply()
    assert reply is not None and reply.status == 204
    assert {name for name, _ in told} == {"ann" if known else " 192.0.2.1"} and sum(count for _, count in told) == 10


# where a client is


def peer(*fields: str, address: IAddress, trusted: str = "10.0.0.0/8") -> str:
    origin = Origin("/files/", None, networks([trusted] if trusted else []))
    lines: dict[bytes, list[bytes]] = {}
    for line in fields:
        name, _, value = line.partition(": ")
        lines.setdefault(name.lower().encode(), []).append(value.encode())
    headers = type("H", (), {"getRawHeaders": lambda self, name, default=None: lines.get(name, default)})()
    request = type("R", (), {"getClientAddress": lambda self: address, "requestHeaders": headers})()
    return origin.peer(request)


PROXY = IPv4Address("TCP", "10.0.0.1", 1)


def test_an_ipv4_client_is_the_same_at_a_socket_of_ipv6():
    mapped = IPv6Address("TCP", "::ffff:192.0.2.7", 1)
    assert peer(address=mapped) == peer(address=mapped, trusted="") == "192.0.2.7"
    proxy = IPv6Address("TCP", "::ffff:10.0.0.1", 1)
    assert peer("X-Forwarded-For: ::ffff:192.0.2.9", address=proxy) == "192.0.2.9"


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ((), "10.0.0.1"),
        (("X-Forwarded-For: 192.0.2.7",), "192.0.2.7"),
        (("X-Forwarded-For: 1.2.3.4, 192.0.2.7",), "192.0.2.7"),
        (("X-Forwarded-For: 1.2.3.4, 192.0.2.7, 10.0.0.2",), "192.0.2.7"),
        (("X-Forwarded-For: 1.2.3.4", "X-Forwarded-For: 192.0.2.7:4711"), "192.0.2.7"),
        (("X-Forwarded-For: 2001:DB8::7",), "2001:db8::7"),
        (("X-Forwarded-For: [2001:db8::7]:80",), "2001:db8::7"),
        (("X-Forwarded-For: 10.0.0.9, 10.0.0.2",), "10.0.0.9"),
        (("X-Forwarded-For: 1.2.3.4, nonsense",), "10.0.0.1"),
        (('Forwarded: for=1.2.3.4, for="[2001:db8::7]:80";proto=https',), "2001:db8::7"),
        (("Forwarded: for=1.2.3.4, for=192.0.2.7, for=10.0.0.2",), "192.0.2.7"),
        (("Forwarded: for=192.0.2.7", "X-Forwarded-For: 192.0.2.7"), "192.0.2.7"),
        (("Forwarded: for=1.2.3.4", "X-Forwarded-For: 192.0.2.7"), "10.0.0.1"),
        (("Forwarded: for=unknown",), "10.0.0.1"),
    ],
)
def test_a_clients_address_is_what_the_trusted_proxies_have_added(fields: tuple[str, ...], found: str) -> None:
    assert peer(*fields, address=PROXY) == found
    assert peer(*fields, address=IPv4Address("TCP", "203.0.113.9", 1)) == "203.0.113.9"
    assert peer(*fields, address=PROXY, trusted="") == "10.0.0.1"
    assert peer(*fields, address=UNIXAddress(None), trusted="") == ""


def test_zones_are_no_part_of_an_address() -> None:
    assert peer(address=IPv6Address("TCP", "fe80::1%eth0", 1)) == "fe80::1"


def test_the_question_has_the_address_and_the_host_from_outside(server: Server, authorizer: Authorizer) -> None:
    client = Client(server, admission=admission(server, authorizer, trusted="192.0.2.1"), trusted=["192.0.2.1"])
    fields = ["X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https", "X-Forwarded-Host: out.example"]
    fields += ["X-Forwarded-Port: 8443", "X-Forwarded-Prefix: /up"]
    reply: Reply = client.ask("POST", "/files/", "Upload-Length: 5", "X-Who: ann", *fields)
    assert reply.status == 201
    asked = authorizer.asked[0]
    assert (asked.scheme, asked.host, asked.peer) == ("https", "out.example:8443", "203.0.113.9")
    assert (asked.prefix, asked.path) == ("/up", "/files/")
