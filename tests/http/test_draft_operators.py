"""What operators set up holds for the draft too: access, quotas, rates, hooks, expiry, stores that must have a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from resumable.auth.guard import AccessGuard
from resumable.auth.interfaces import AuthRequest
from resumable.auth.quota import Ledger
from resumable.auth.rates import Rate, Rates
from resumable.http.admission import Admission
from resumable.http.draft import DraftSettings
from resumable.http.origin import Origin
from resumable.http.request import RequestObserver, StreamingRequest
from resumable.model.hooks import Answer, Changes, Granted, IHooks, QuestionKind, RequestView, UploadView
from resumable.model.principal import EVERYDAY, Action, Principal
from resumable.model.usage import Quota
from resumable.protocol.draft import Limits
from resumable.protocol.errors import Forbidden, Refused, Unauthorized, Unavailable
from resumable.uploads.context import Questions
from resumable.uploads.limits import UploadLimits
from tests.http.draft_client import Draft, Said, limits, upload_id
from tests.http.visitor import serving
from tests.uploads.fakes import FakeReplication
from tests.uploads.harness import EPOCH, LONG, Server, pattern

DATA = b"0123456789"
CHALLENGE = 'Bearer realm="resumable"'
ORIGIN = Origin("/files/", None, ())


class Authorizer:
    """Knows people by X-Who, and remembers what it was asked. ``grants``: what each principal has beside a name."""

    def __init__(self) -> None:
        self.asked: list[AuthRequest] = []
        self.grants: dict[str, Any] = {}
        self.actions = EVERYDAY

    def authorize(self, ask: AuthRequest) -> Deferred[Principal]:
        self.asked.append(ask)
        who = ask.one("x-who")
        if who is None:
            return fail(Unauthorized("Who are you?", [CHALLENGE]))
        if ask.action not in self.actions:
            return fail(Forbidden("You may not do this."))
        return succeed(Principal(who, **self.grants))


@implementer(IHooks)
class Says:
    """Says the same to every question of its kinds, and keeps them."""

    def __init__(self) -> None:
        self.kinds: tuple[QuestionKind, ...] = ()
        self.says: Granted | Exception = Granted()
        self.asked: list[tuple[QuestionKind, UploadView, RequestView | None]] = []

    def asks(self, kind: QuestionKind) -> bool:
        return kind in self.kinds

    def before(self, kind: QuestionKind, upload: UploadView, request: RequestView | None = None) -> Deferred[Granted]:
        self.asked.append((kind, upload, request))
        return fail(self.says) if isinstance(self.says, Exception) else succeed(self.says)


class Place:
    """A server whose operator has set up much; `client` makes connections to it."""

    def __init__(self, stack: ExitStack, **options: Any) -> None:
        self.hooks = Says()
        self.remote = FakeReplication()
        self.authorizer = Authorizer()
        given = {"questions": Questions(self.hooks), "replication": self.remote, **options}
        self.server: Server = stack.enter_context(serving(**given))

    def client(
        self, *, guarded: bool = False, rates: Rates | None = None, version: int | None = 10, **more: Any
    ) -> Draft:
        guard = None
        if guarded:
            guard = AccessGuard(self.authorizer, self.server.catalog.owner_of, lambda: EPOCH, rates=rates)
        admission = Admission(ORIGIN, guard, rates, forward=("x-own",))
        return Draft(self.server, version, admission=admission, **{"draft": DraftSettings(), **more})

    def gone(self, upload: str) -> bool:
        return self.server.row(upload).gone is not None


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def place(stack: ExitStack) -> Place:
    return Place(stack)


ANN, BOB = "X-Who: ann", "X-Who: bob"


# Access


def test_everybody_is_asked_about_every_verb_and_a_refusal_has_its_challenge(place: Place) -> None:
    client = place.client(guarded=True)
    upload = client.created(b"", ANN)
    place.authorizer.asked.clear()
    said = [client.post(DATA, "?1"), client.patch(upload, 0, DATA, "?1"), client.head(upload), client.delete(upload)]
    assert {(each.status, each.get("WWW-Authenticate")) for each in said} == {(401, CHALLENGE)}
    actions = [ask.action for ask in place.authorizer.asked]
    assert actions == [Action.CREATE, Action.APPEND, Action.INSPECT, Action.TERMINATE]
    assert {ask.upload_id for ask in place.authorizer.asked} == {None, upload}
    assert not place.gone(upload) and place.server.context.counts.created == 1


@pytest.mark.parametrize(
    ("complete", "fields", "length"),
    [
        ("?1", (), 10),
        ("?0", ("Upload-Length: 99",), 99),
        ("?0", (), None),
        ("?1", ("Transfer-Encoding: chunked",), None),
    ],
)
def test_an_authorizer_sees_the_length_of_a_new_upload_where_it_is_known(
    place: Place, complete: str, fields: tuple[str, ...], length: int | None
) -> None:
    place.client(guarded=True).post(DATA, complete, ANN, *fields)
    assert [ask.length for ask in place.authorizer.asked] == [length]


def test_an_authorizer_sees_what_the_contents_own_fields_say(place: Place) -> None:
    place.client(guarded=True).post(DATA, "?1", ANN, "Content-Type: image/png")
    assert place.authorizer.asked[0].metadata == "filetype aW1hZ2UvcG5n"


def test_another_ones_upload_is_not_there_whatever_is_asked_of_it(place: Place) -> None:
    client = place.client(guarded=True)
    upload = client.created(DATA, ANN)
    path = f"/files/{upload}"
    bare = place.client(guarded=True, version=None)
    said = [client.patch(upload, 10, b"x", "?1", BOB), client.head(upload, BOB), client.tell("DELETE", path, BOB)]
    said += [bare.tell("HEAD", path, BOB), bare.tell("DELETE", path, BOB)]
    assert [each.status for each in said] == [404] * 5
    assert client.head(upload, ANN).state == (204, "?0", "10")


def test_what_a_location_has_to_carry_is_in_the_104_too(place: Place) -> None:
    place.authorizer.grants["carry"] = "token=v1.x.y"
    client = place.client(guarded=True)
    assert (client.post(b"", "?0", ANN).get("Location") or "").endswith("?token=v1.x.y")
    client.open("POST", "/files/", ("Upload-Complete: ?1", "Content-Length: 100000", ANN), pattern(LONG + 1000))
    (informed,) = client.heard().of(104)
    assert (informed.get("Location") or "").endswith("?token=v1.x.y")
    client.send(bytes(100_000 - LONG - 1000))
    assert client.heard().get("Location") == informed.get("Location")


@pytest.mark.parametrize(("ours", "theirs", "told"), [(None, 5000, 5000), (4000, 5000, 4000), (6000, 5000, 5000)])
def test_the_lower_maximum_is_the_limit_that_is_told(
    stack: ExitStack, ours: int | None, theirs: int, told: int
) -> None:
    place = Place(stack, limits=UploadLimits(max_size=ours))
    place.authorizer.grants["max_size"] = theirs
    client = place.client(guarded=True, draft=DraftSettings(Limits(max_size=ours)))
    said = client.post(b"", "?0", ANN)
    upload = upload_id(said)
    assert limits(said)["max-size"] == limits(client.head(upload, ANN))["max-size"] == told
    assert client.patch(upload, 0, pattern(told + 1), "?1", ANN).status == 413
    assert client.post(pattern(told + 1), "?1", ANN).status == 413
    assert client.post(pattern(told), "?1", ANN).status == 200


# A HEAD or DELETE that names no protocol


def test_who_may_only_download_gets_the_file_and_ends_no_transfer(place: Place) -> None:
    client = place.client(guarded=True)
    head = ("Upload-Complete: ?1", "Content-Length: 100000", ANN)
    client.open("POST", "/files/", head, pattern(LONG + 1000))
    upload = client.heard().named
    assert upload is not None
    place.authorizer.actions = frozenset({Action.READ})
    assert place.client(guarded=True, version=None).tell("HEAD", f"/files/{upload}", ANN).status == 403
    client.send(bytes(100_000 - LONG - 1000))
    assert client.heard().state == (200, "?1", "100000"), "it went on"
    seen = place.client(guarded=True, version=None).tell("HEAD", f"/files/{upload}", ANN)
    assert (seen.state, seen.get("Content-Length")) == ((200, "?1", "100000"), "100000")


def test_who_may_only_look_gets_the_offset_before_and_after_the_end(place: Place) -> None:
    client = place.client(guarded=True)
    upload = client.created(DATA, ANN)
    place.authorizer.actions = EVERYDAY - {Action.READ}
    bare = place.client(guarded=True, version=None)
    assert bare.tell("HEAD", f"/files/{upload}", ANN).state == (204, "?0", "10")
    assert client.patch(upload, 10, b"", "?1", ANN).status == 200
    assert bare.tell("HEAD", f"/files/{upload}", ANN).state == (204, "?1", "10")


def test_who_may_do_neither_is_refused(place: Place) -> None:
    upload = place.client(guarded=True).created(DATA, ANN)
    place.authorizer.actions = frozenset({Action.APPEND})
    assert place.client(guarded=True, version=None).tell("HEAD", f"/files/{upload}", ANN).status == 403
    assert place.client(guarded=True, version=None).tell("DELETE", f"/files/{upload}", ANN).status == 403
    assert not place.gone(upload)


# Quotas and rates


def test_a_quota_counts_uploads_of_the_draft_and_a_deferred_length_gains_nothing(stack: ExitStack) -> None:
    ledger = Ledger(Quota(size=15))
    place = Place(stack, quota=ledger)
    client = place.client(guarded=True)
    upload = client.created(DATA, ANN)
    assert ledger.usage("ann").size == 10
    for version in (None, 10):  # a refusal, which asking again won't change
        said = place.client(guarded=True, version=version).patch(upload, 10, DATA, "?1", ANN)
        assert (said.status, said.get("Upload-Complete")) == (507, "?0")
    assert client.post(DATA, "?1", ANN).status == 507
    assert client.post(DATA, "?1", BOB).status == 200
    assert client.patch(upload, 10, b"01234", "?1", ANN).status == 200
    assert (ledger.usage("ann").size, ledger.usage("ann").unfinished) == (15, 0)


def test_too_many_unfinished_uploads_are_429_with_retry_after(stack: ExitStack) -> None:
    place = Place(stack, quota=Ledger(Quota(unfinished=1)))
    client = place.client(guarded=True)
    client.created(b"", ANN)
    said = client.post(b"", "?0", ANN)
    assert said.status == 429 and said.get("Retry-After") and said.get("Upload-Complete") == "?0"


def test_rates_of_requests_hold(place: Place) -> None:
    rates = Rates(place.server.clock.seconds, requests=(Rate(1.0, 2.0), Rate()))
    client = place.client(guarded=True, rates=rates)
    upload = client.created(DATA, ANN)
    assert client.head(upload, ANN).status == 204
    said = client.patch(upload, 10, b"", "?1", ANN)
    assert (said.status, said.get("Retry-After"), said.get("Upload-Complete")) == (429, "1", "?0")


# Hooks


def test_hooks_see_the_protocol_and_the_version_that_the_client_names(place: Place) -> None:
    place.hooks.kinds = tuple(QuestionKind)
    for version, told in ((8, "8"), (3, "3"), (None, None), (99, None)):
        client = place.client(version=version)
        complete = "Upload-Incomplete: ?0" if version == 3 else "Upload-Complete: ?1"
        assert client.tell("POST", "/files/", complete, content=DATA).status == 200
        requests = [request for _, _, request in place.hooks.asked]
        assert {(each.protocol, each.protocol_version) for each in requests if each} == {("draft", told)}
        place.hooks.asked.clear()


def test_hooks_see_it_of_a_delete_that_names_no_protocol_too(place: Place) -> None:
    client = place.client()
    upload = client.created(DATA)
    place.hooks.kinds = (QuestionKind.TERMINATE,)
    assert place.client(version=None).delete(upload).status == 204
    ((_, _, request),) = place.hooks.asked
    assert request is not None and (request.protocol, request.protocol_version) == ("draft", None)


def test_a_tus_request_for_an_upload_of_the_draft_is_one_of_tus(place: Place) -> None:
    client = place.client()
    upload = client.created(DATA)
    place.hooks.kinds = (QuestionKind.APPEND,)
    assert (
        place.client(version=None)
        .tell(
            *("PATCH", f"/files/{upload}", "Tus-Resumable: 1.0.0", "Upload-Offset: 10"),
            *("Content-Type: application/offset+octet-stream",),
            content=b"x",
        )
        .status
        == 204
    )
    ((_, _, request),) = place.hooks.asked
    assert request is not None and (request.protocol, request.protocol_version) == ("tus", "1.0.0")


def test_a_hook_that_refuses_a_creation_answers_in_its_words_and_nothing_is_made(place: Place) -> None:
    place.hooks.kinds = (QuestionKind.CREATE,)
    place.hooks.says = Refused(402, {"Content-Type": "application/json", "X-Why": "money"}, b'{"error": "money"}')
    said = place.client().post(DATA, "?1")
    assert said.final is not None and (said.status, said.final.body) == (402, b'{"error": "money"}')
    assert (said.get("X-Why"), said.get("Location"), said.get("Upload-Complete")) == ("money", None, "?0")
    assert limits(said) and not place.server.names() and not said.interims


def test_a_hook_gives_id_metadata_and_a_maximum(place: Place) -> None:
    place.hooks.kinds = (QuestionKind.CREATE,)
    place.hooks.says = Granted(
        Changes(id="an-id-that-was-given", metadata={"a": b"1"}, max_size=50), raw_metadata="a MQ=="
    )
    client = place.client()
    said = client.post(DATA, "?0", "Content-Type: image/png")
    assert (upload_id(said), limits(said)["max-size"]) == ("an-id-that-was-given", 50)
    assert place.server.row("an-id-that-was-given").metadata == "a MQ=="
    assert client.patch("an-id-that-was-given", 10, bytes(41), "?1").status == 413
    assert client.patch("an-id-that-was-given", 10, bytes(40), "?1").status == 200
    assert client.post(DATA, "?1").status == 400, "the id was given before"


def test_a_104_names_the_id_that_a_hook_gave(place: Place) -> None:
    place.hooks.kinds = (QuestionKind.CREATE,)
    place.hooks.says = Granted(Changes(id="an-id-that-was-given"))
    client = place.client()
    client.open("POST", "/files/", ("Upload-Complete: ?1", "Content-Length: 100000"), b"")
    assert client.heard().named == "an-id-that-was-given"
    client.send(bytes(100_000))
    assert upload_id(client.heard()) == "an-id-that-was-given"


def test_an_append_that_a_hook_refuses_changes_nothing(place: Place) -> None:
    client = place.client()
    upload = client.created(DATA)
    place.hooks.kinds, place.hooks.says = (QuestionKind.APPEND,), Refused(403)
    said = client.patch(upload, 10, DATA, "?1")
    assert (said.status, said.get("Upload-Complete")) == (403, "?0")
    assert client.head(upload).state == (204, "?0", "10")


def test_a_success_has_what_a_hook_adds(place: Place) -> None:
    place.hooks.kinds = (QuestionKind.FINISH,)
    place.hooks.says = Granted(answer=Answer(202, {"X-Job": "7"}, b"wait"))
    said = place.client().post(DATA, "?1")
    assert said.final is not None and (said.status, said.final.body) == (202, b"wait")
    assert (said.get("X-Job"), said.get("Upload-Complete")) == ("7", "?1")


@pytest.mark.parametrize("whole", [True, False])
def test_a_refusal_to_finish_is_final_only_until_the_hook_agrees(place: Place, whole: bool) -> None:
    client = place.client()
    before = "" if whole else client.created(b"01234")
    place.hooks.kinds, place.hooks.says = (QuestionKind.FINISH,), Refused(422, {}, b"no")
    said = client.post(DATA, "?1") if whole else client.patch(before, 5, b"56789", "?1")
    assert said.final is not None and (said.status, said.final.body, said.get("Upload-Complete")) == (422, b"no", "?0")
    upload = before or upload_id(said)
    assert client.head(upload).state == (204, "?0", "10") and not place.server.row(upload).finished
    assert client.patch(upload, 10, b"", "?1").status == 422
    place.hooks.says = Granted()
    assert client.patch(upload, 10, b"", "?1").state == (200, "?1", "10")
    assert client.file(upload) == DATA


def test_a_hook_that_fails_to_answer_does_not_end_the_upload_for_a_client_that_can_resume(place: Place) -> None:
    """iOS takes a 5xx for the end, so its connection ends instead."""
    client = place.client()
    upload = client.created(DATA)
    place.hooks.kinds, place.hooks.says = (QuestionKind.FINISH,), Unavailable("Nobody knows.", 7)
    said = client.patch(upload, 10, b"", "?1")
    assert said.status == 0 and client.wire.disconnecting
    bare = place.client(version=None).patch(upload, 10, b"", "?1")
    assert (bare.status, bare.get("Retry-After"), bare.get("Upload-Complete")) == (503, "7", "?0")
    place.hooks.says = Granted()
    assert place.client().patch(upload, 10, b"", "?1").state == (200, "?1", "10")


# Expiry


def test_an_unfinished_upload_tells_when_it_expires_and_is_gone_then(stack: ExitStack) -> None:
    place = Place(stack, limits=UploadLimits(expire_after=3600.0))
    client = place.client(draft=DraftSettings(max_age=3600.0))
    said = client.post(DATA, "?0")
    upload = upload_id(said)
    assert limits(said)["max-age"] == 3600
    place.server.advance(600)
    assert limits(place.client().head(upload))["max-age"] == 3000
    assert limits(place.client().patch(upload, 10, DATA, "?0"))["max-age"] == 3600, (
        "each request with bytes begins it anew"
    )
    place.server.advance(3601)
    place.server.sweep()
    fresh = place.client()
    assert [fresh.head(upload).status, fresh.patch(upload, 20, b"", "?1").status, fresh.delete(upload).status] == [
        410
    ] * 3


def test_an_older_dialect_calls_it_expires(stack: ExitStack) -> None:
    place = Place(stack, limits=UploadLimits(expire_after=3600.0))
    said = place.client(version=6, draft=DraftSettings(max_age=3600.0)).post(b"", "?0")
    assert limits(said) == {"expires": 3600}


# Stores that must have a file before its client is told


def stored_late(stack: ExitStack) -> Place:
    place = Place(stack, limits=UploadLimits(ack_timeout=20.0, retry_after=7))
    place.remote.acknowledges = True
    return place


def told(client: Draft) -> Said:
    return client.heard()


def test_with_ack_remote_a_complete_upload_is_answered_once_it_is_stored(stack: ExitStack) -> None:
    place = stored_late(stack)
    client = place.client()
    upload = client.created(DATA)
    assert client.patch(upload, 10, b"", "?1").status == 0
    assert place.client().head(upload).state == (204, "?0", "10"), "all its bytes are here, and it isn't complete"
    place.server.store(upload)
    assert told(client).state == (200, "?1", "10")
    assert place.client().head(upload).state == (204, "?1", "10")


def test_one_that_is_not_stored_in_time_is_asked_for_again_with_an_empty_append(stack: ExitStack) -> None:
    place = stored_late(stack)
    client, bare = place.client(), place.client(version=None)
    upload = client.created(DATA)
    assert client.patch(upload, 10, b"", "?1").status == 0
    place.server.advance(20.0)
    assert told(client).status == 0 and client.wire.disconnecting, "who can resume gets no 5xx"
    assert bare.patch(upload, 10, b"", "?1").status == 0
    place.server.advance(20.0)
    late = told(bare)
    assert (late.status, late.get("Retry-After"), late.get("Upload-Complete")) == (503, "7", "?0")
    again = place.client()
    assert again.patch(upload, 10, b"", "?1").status == 0
    place.server.store(upload)
    assert told(again).state == (200, "?1", "10")
    assert place.client().patch(upload, 10, b"", "?1").status in (200, 400), "it is complete"


def test_a_whole_upload_that_is_not_stored_in_time_can_be_asked_for(stack: ExitStack) -> None:
    place = stored_late(stack)
    bare = place.client(version=None)
    assert bare.post(DATA, "?1").status == 0
    place.server.advance(20.0)
    late = told(bare)
    assert (late.status, late.get("Upload-Complete")) == (503, "?0")
    upload = upload_id(late)
    place.server.store(upload)
    assert place.client().head(upload).state == (204, "?1", "10")


def test_an_append_that_does_not_complete_waits_for_no_store(stack: ExitStack) -> None:
    client = stored_late(stack).client()
    assert client.post(DATA, "?0", "Upload-Length: 10").status == 201
    upload = client.created(b"")
    assert client.patch(upload, 0, DATA, "?0").state == (204, "?0", "10")


# What is counted


def test_uploads_are_counted_by_the_protocol_that_made_them(place: Place) -> None:
    client = place.client()
    client.created(b"")
    client.post(DATA, "?1")
    client.tell("POST", "/files/", "Tus-Resumable: 1.0.0", "Upload-Length: 10")
    counts = place.server.context.counts
    assert (counts.created, counts.created_by_draft) == (3, 2)


def test_a_status_tells_the_protocol_that_made_the_upload(place: Place) -> None:
    client = place.client()
    upload = client.created(b"")
    said = client.tell("GET", f"/files/{upload}/status")
    assert said.final is not None and json.loads(said.final.body)["protocol"] == "draft"


def test_requests_are_of_the_protocol_that_they_speak_and_others_of_none(place: Place) -> None:
    seen = []

    class Watch(RequestObserver):
        def done(self, request: StreamingRequest, seconds: float) -> None:
            seen.append(request.speaks)

    client = place.client(version=6)
    client.channel.site.watch = Watch()
    upload = upload_id(client.post(DATA, "?1"))
    client.tell("GET", f"/files/{upload}")
    client.version = None
    client.tell("GET", f"/files/{upload}")
    client.tell("OPTIONS", "/files/")
    client.tell("HEAD", f"/files/{upload}", "Tus-Resumable: 1.0.0")
    client.tell("POST", "/files/", "Tus-Resumable: 0.2")
    assert seen == [("draft", "6"), ("draft", "6"), None, None, ("tus", "1.0.0"), ("tus", None)]
