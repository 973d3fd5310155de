"""Who may use the admin API: the listener and the token tell, never an address; pages of other sites may nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet.defer import Deferred, fail, succeed

from resumable.auth.guard import AccessGuard
from resumable.auth.interfaces import AuthRequest
from resumable.auth.rates import Rate, Rates
from resumable.auth.secret import Secret
from resumable.http.admin.api import AdminAuth, PrincipalAuth, SocketAuth, TokenAuth
from resumable.http.admission import Admission
from resumable.http.origin import Origin
from resumable.model.principal import Action, Principal
from resumable.protocol.errors import Unauthorized
from tests.http.admin_rig import DOCUMENT, Office
from tests.http.visitor import serving
from tests.uploads.harness import EPOCH, Server

TOKEN = "0123456789abcdef"
GOOD = f"Authorization: Bearer {TOKEN}"
OPEN = {"/metrics", "/healthz", "/readyz"}
ROUTES = sorted(
    (method.upper(), path.replace("{upload_id}", "f" * 32).replace("{hook}", "hook"))
    for path, operations in DOCUMENT["paths"].items()
    for method in operations
    if method != "parameters"
)
API = [route for route in ROUTES if route[1] not in OPEN]


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


def bearer(token: str | None, rates: Rates | None = None) -> TokenAuth:
    return TokenAuth(
        None if token is None else Secret(token.encode()), Admission(Origin("/files/", None, []), None, rates)
    )


def with_token(server: Server) -> Office:
    return Office(server, bearer(TOKEN))


def target(path: str) -> str:
    return f"{path}?remote=far" if path == "/v1/retry" else path


@pytest.mark.parametrize(("method", "path"), API)
def test_nothing_of_the_api_is_told_without_the_token(server: Server, method: str, path: str) -> None:
    reply = with_token(server).ask(method, target(path))
    assert (reply.status, reply.get("WWW-Authenticate")) == (401, 'Bearer realm="resumable"')
    assert server.context.drain.since is None


@pytest.mark.parametrize(("method", "path"), API)
def test_with_the_token_all_of_it_is(server: Server, method: str, path: str) -> None:
    assert with_token(server).ask(method, target(path), GOOD).status in (200, 204, 404)


@pytest.mark.parametrize(
    "fields",
    [
        ["Authorization: Bearer"],
        ["Authorization: Bearer "],
        [f"Authorization: Bearer {TOKEN}0"],
        [f"Authorization: Bearer {TOKEN[:-1]}"],
        [f"Authorization: Basic {TOKEN}"],
        [f"Authorization: {TOKEN}"],
        ["Authorization: Bearer \xff\xfe"],
        [GOOD, GOOD],
        [f"X-Authorization: Bearer {TOKEN}"],
    ],
)
def test_any_other_token_is_none(server: Server, fields: list[str]) -> None:
    assert with_token(server).refused("GET", "/v1/uploads", *fields)[0] == 401


def test_who_guesses_at_the_token_is_told_to_wait(server: Server) -> None:
    """And nobody with the token is: the limits are those of who isn't let in."""
    office = Office(server, bearer(TOKEN, Rates(server.clock.seconds, requests=(Rate(2.0), Rate(2.0)))))
    guesses = [office.refused("GET", "/v1/uploads", f"Authorization: Bearer {n:032}")[0] for n in range(4)]
    assert guesses == [401, 401, 429, 429]
    assert [office.ask("GET", "/v1/uploads", GOOD).status for _ in range(4)] == [200] * 4
    assert office.ask("GET", "/metrics").status == 200


def test_the_scheme_may_be_written_in_any_case(server: Server) -> None:
    assert with_token(server).ask("GET", "/v1/uploads", f"authorization: bearer {TOKEN}").status == 200


@pytest.mark.parametrize(("method", "path"), API)
def test_where_there_is_no_token_a_port_has_figures_only(server: Server, method: str, path: str) -> None:
    """Not even for somebody on this machine: behind a local proxy everybody is."""
    status, detail = Office(server, bearer(None)).refused(method, target(path), "X-Forwarded-For: 127.0.0.1", GOOD)
    assert status == 403 and "--admin-token-file" in detail


@pytest.mark.parametrize("path", sorted(OPEN))
@pytest.mark.parametrize("auth", [SocketAuth(), bearer(None), bearer(TOKEN)])
def test_figures_are_for_all_who_get_there(server: Server, auth: AdminAuth, path: str) -> None:
    assert Office(server, auth).ask("GET", path).status == 200


@pytest.mark.parametrize(
    "field",
    [
        "Origin: https://evil.example",
        "Origin: null",
        "Origin: http://t:81",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
    ],
)
@pytest.mark.parametrize(("method", "path"), [("PUT", "/v1/drain"), ("GET", "/v1/uploads")])
def test_pages_in_a_browser_are_refused(server: Server, method: str, path: str, field: str) -> None:
    for office in (Office(server), with_token(server)):
        assert office.refused(method, path, field, GOOD)[0] == 403
    assert server.context.drain.since is None


def test_an_operator_who_types_the_address_is_not_a_page(server: Server) -> None:
    assert Office(server).ask("GET", "/v1/status", "Sec-Fetch-Site: none").status == 200


@pytest.mark.parametrize("method", ["put", "Put"])
def test_methods_are_case_sensitive(server: Server, method: str) -> None:
    assert Office(server).ask(method, "/v1/drain").status == 405
    assert server.context.drain.since is None


@pytest.mark.parametrize("path", ["//v1/drain", "/v1//drain", "/v1/drain/", "/v1%2Fdrain", "/./v1/drain", "/V1/drain"])
def test_an_address_has_one_spelling(server: Server, path: str) -> None:
    office = with_token(server)
    assert office.ask("PUT", path).status in (401, 404)
    assert office.ask("PUT", path, GOOD).status == 404
    assert server.context.drain.since is None


# On a port for uploads


class People:
    """Knows everybody by the header X-Who."""

    def authorize(self, ask: AuthRequest) -> Deferred[Principal]:
        who = ask.one("x-who")
        return fail(Unauthorized("Who are you?", ["Basic"])) if who is None else succeed(Principal(who))


@pytest.fixture
def public(server: Server) -> Office:
    guard = AccessGuard(People(), server.catalog.owner_of, lambda: EPOCH, admins=frozenset({"root"}))
    return Office(server, PrincipalAuth(Admission(Origin("/files/", None, ()), guard)))


@pytest.mark.parametrize(("method", "path"), [route for route in ROUTES if route[1] != "/healthz"])
def test_there_it_is_for_admins(public: Office, method: str, path: str) -> None:
    assert public.ask(method, target(path)).status == 401
    assert public.ask(method, target(path), "X-Who: ann").status == 403
    assert public.ask(method, target(path), "X-Who: root").status in (200, 204, 404)


def test_who_may_list_may_not_change(server: Server) -> None:
    class Lister(People):
        def authorize(self, ask: AuthRequest) -> Deferred[Principal]:
            return succeed(Principal("viewer", actions=frozenset({Action.LIST})))

    guard = AccessGuard(Lister(), server.catalog.owner_of, lambda: EPOCH)
    office = Office(server, PrincipalAuth(Admission(Origin("/files/", None, ()), guard)))
    assert office.ask("GET", "/v1/uploads").status == 200
    assert office.ask("PUT", "/v1/drain").status == 403


def test_a_browser_that_knows_a_password_is_no_way_in(public: Office) -> None:
    assert public.ask("PUT", "/v1/drain", "X-Who: root", "Origin: https://evil.example").status == 403
